"""Contrastive predictive coding: the loss by hand, runs that stop and continue, their files."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from made import corpus

from vap_pipeline.artefacts import manifest, store
from vap_pipeline.encoders import cpc_weights
from vap_pipeline.encoders.cpc import Config, CPCEncoder, State
from vap_pipeline.encoders.original import OriginalEncoder
from vap_pipeline.extract.__main__ import main as vap_extract
from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError
from vap_pipeline.pretrain import speech
from vap_pipeline.pretrain.__main__ import main
from vap_pipeline.pretrain.batches import WINDOW_SAMPLES
from vap_pipeline.pretrain.loop import Prediction, pretrain
from vap_pipeline.settings.pretrain import WINDOW_FRAMES, PretrainSettings

ROOT = Path(__file__).parents[2]
OUTPUTS = ("encoder.safetensors", "history.parquet")
SMALL = Config(8, 8)
FEW = PretrainSettings(steps=20, speakers=2, windows=2, negatives=8, seed=3)


def make_calls(root, turn_s):
    """Six calls of 24 s: a melody for each speaker, at its own pitch, in turns of ``turn_s``."""
    (root / "audio").mkdir()
    time_s, listed, rows = np.arange(24 * 8000) / 8000, [], []
    for i in range(6):
        sides = []
        for channel in (0, 1):
            pitch = 100 * 2 ** ((2 * i + channel) / 12) * (1 + 0.2 * np.sin(2 * np.pi * 0.7 * time_s))
            phase = 2 * np.pi * np.cumsum(pitch) / 8000
            sides.append(sum(np.sin(k * phase) / k for k in range(1, 8)) * 0.1)
            starts = [turn_s * (channel + 2 * turn) for turn in range(3)]
            rows += [(f"c{i}", channel, start, start + turn_s) for start in starts]
        soundfile.write(root / "audio" / f"c{i}.wav", np.stack(sides, 1), 8000)
        split = ("test", None) if i > 3 else ("train", i % 2)
        listed.append(manifest.Conversation(f"c{i}", f"c{i}.wav", 24.0, *split))
    columns = dict(zip(manifest.SCHEMA.names, zip(*rows, strict=True), strict=True))
    manifest.write(manifest.Manifest(listed, pa.table(columns, manifest.SCHEMA)), root / "calls")
    return root


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    return make_calls(tmp_path_factory.mktemp("calls"), 3.0)  # too little of each speaker for the probes


@pytest.fixture
def stretches(calls):
    listed = manifest.read(calls / "calls")
    return speech.stretches(listed, calls / "audio", listed.select("train"), 2.0)


def flags(calls, out, *more):
    given = ["--corpus", "calls", "--manifest", calls / "calls", "--audio", calls / "audio", "--out", out]
    sizes = ["--width", 8, "--dim", 8, "--steps", 40, "--speakers", 2, "--windows", 2, "--negatives", 8]
    return [str(flag) for flag in (*given, *(sizes if "--init" not in more else sizes[4:]), *more)]


def outputs(folder):
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def test_the_loss_by_hand():
    torch.manual_seed(0)
    encoder, (speakers, windows, n_negatives, ahead) = cpc_weights.random(1, SMALL), (2, 2, 5, 3)
    model = Prediction(encoder, ahead)
    audio = torch.randn(speakers, windows, WINDOW_SAMPLES) * 0.1
    negatives = torch.randint(windows * WINDOW_FRAMES, (speakers, n_negatives))
    negatives[0, 0] = 9  # among the future frames, where it must not count against itself
    losses, right = [], []
    with torch.no_grad():
        for s in range(speakers):
            z = torch.cat([encoder.convolve(audio[s, w][None], State())[0] for w in range(windows)])
            for w in range(windows):
                c = encoder(audio[s, w][None])[0]
                for t in range(WINDOW_FRAMES - ahead):
                    for k in range(1, ahead + 1):
                        predicted = model.maps.weight[(k - 1) * 8 : k * 8] @ c[t] / math.sqrt(8)
                        true = w * WINDOW_FRAMES + t + k
                        wrong = [predicted @ z[i] for i in negatives[s].tolist() if i != true]
                        exps = torch.stack([predicted @ z[true], *wrong]).softmax(0)
                        losses.append(-exps[0].log())
                        right.append(bool((exps[0] > exps[1:]).all()))
        loss, accuracy = model(audio, negatives)
    assert loss == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)
    assert accuracy == pytest.approx(np.mean(right), abs=1e-6)


def test_it_learns(stretches, tmp_path):
    """With most seeds; with some, so small a network does not learn."""
    learnt = 0
    for seed in (3, 4, 5):
        config = replace(FEW, steps=150, negatives=16, learning_rate=5e-3, seed=seed)
        encoder = cpc_weights.random(0, Config(16, 16))
        progress = pretrain(encoder, stretches, [], config, {"corpus": "calls"}, str(tmp_path))
        rows = [row for row in progress.history if "loss" in row]
        assert rows[0]["accuracy"] < 0.08  # 1 in 17 by chance
        learnt += rows[-1]["accuracy"] > 0.1 and rows[-1]["loss"] < rows[0]["loss"] - 0.2
    assert learnt >= 2


def test_extraction_and_probes_take_the_encoder_of_a_run(tmp_path, capsys):
    calls, out = make_calls(tmp_path, 4.0), tmp_path / "out"
    assert main(flags(calls, out)) == 0
    history = pq.read_table(out / "history.parquet").to_pylist()
    assert [row["step"] for row in history if row["loss"]] == [20, 40]
    assert len([row for row in history if row["held_back_loss"]]) == 10
    said = (out / "card.md").read_text()
    for words in (
        "trained on calls",
        "0.03 h of 8 speakers",
        "40 steps",
        "seed 0",
        "random-seed0",
        "log-mel",
    ):
        assert words in said
    encoder, described = cpc_weights.load(str(out / "encoder.safetensors"))
    assert encoder.config == SMALL and described["weights"] == "encoder.safetensors"
    tiny = corpus(tmp_path / "tiny", 2)
    assert vap_extract(tiny.flags(weights=out / "encoder.safetensors")) == 0
    assert store.open_store(tiny.store).description["encoder"]["sha256"] == described["sha256"]

    # The probes print the row of the card again.
    data = ["--corpus", "calls", "--manifest", str(calls / "calls"), "--audio", str(calls / "audio")]
    assert main(["probe", *data, "--weights", str(out / "encoder.safetensors")]) == 0
    printed = capsys.readouterr().out.split("\n")
    assert printed[2].split("|")[2:] == said.split("\n")[-4].split("|")[2:]


def test_the_same_seed_gives_the_same_weights_and_init_starts_from_them(calls, tmp_path, capsys):
    out, again = tmp_path / "out", tmp_path / "again"
    assert main(flags(calls, out)) == main(flags(calls, again)) == 0
    assert outputs(again) == outputs(out)
    assert "not measured: 0 speakers with 8 s" in (out / "card.md").read_text()
    history = pq.read_table(out / "history.parquet").to_pylist()
    assert main(flags(calls, tmp_path / "on", "--init", out / "encoder.safetensors")) == 0
    on = pq.read_table(tmp_path / "on" / "history.parquet").to_pylist()
    assert on[0]["held_back_loss"] < history[0]["held_back_loss"]
    assert main(flags(calls, tmp_path / "on", "--init", out / "encoder.safetensors", "--width", 9)) == 2
    assert "has sizes of its own" in capsys.readouterr().err


def test_worker_processes_do_not_change_the_result(calls, tmp_path, caplog):
    caplog.set_level("INFO")
    assert main(flags(calls, tmp_path / "here", "--steps", 6)) == 0
    checks = [message for message in caplog.messages if ": held-back loss " in message]
    assert len(checks) == 6 and checks[0].startswith("step 1: ")  # a line each, also without a terminal
    assert main(flags(calls, tmp_path / "aside", "--steps", 6, "--workers", 2)) == 0
    assert outputs(tmp_path / "aside") == outputs(tmp_path / "here")


def test_init_takes_a_checkpoint_in_the_published_format(calls, tmp_path):
    """Both formats give the same result: the weights are exact in float16."""
    encoder = cpc_weights.random(4, SMALL)
    for parameter in encoder.parameters():
        parameter.data = parameter.data.half().float()
    for name in ("published.pt", "ours.safetensors"):
        cpc_weights.save(encoder, tmp_path / name)
        assert main(flags(calls, tmp_path / name[:4], "--steps", 6, "--init", tmp_path / name)) == 0
    assert outputs(tmp_path / "publ") == outputs(tmp_path / "ours")
    assert "from published.pt" in (tmp_path / "publ" / "card.md").read_text()


def test_the_log_has_the_history(calls, tmp_path, monkeypatch):
    for name in ("HOME", "WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert main(flags(calls, tmp_path / "out", "--steps", 20)) == 0
    (run,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    logged = run.read_bytes()
    for word in (b"held_back_accuracy", b"learning_rate", b"encoder.safetensors", b"calls/cpc/seed-0"):
        assert word in logged


def test_a_run_that_was_stopped_and_killed_ends_with_the_same_files(calls, tmp_path):
    assert main(flags(calls, tmp_path / "whole")) == 0
    folder, state = tmp_path / "stopped", tmp_path / "stopped" / "resume.safetensors"
    steps = []
    for number, signum in enumerate((signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL)):
        command = [sys.executable, "-m", "vap_pipeline.pretrain", *flags(calls, folder, "--resume")]
        child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        before = state.stat().st_mtime_ns if number else 0
        while child.poll() is None and not (state.exists() and state.stat().st_mtime_ns > before):
            time.sleep(0.005)
        child.send_signal(signum)
        said = child.communicate(timeout=60)[1]
        if signum == signal.SIGKILL:
            assert child.returncode == -signum
        else:
            assert child.returncode == 128 + signum, said
            assert "--resume to continue" in said.splitlines()[-1]
        steps.append(step_of(state))
    assert steps == sorted(steps) and steps[-1] < 40
    assert main(flags(calls, folder, "--resume")) == 0
    assert outputs(folder) == outputs(tmp_path / "whole")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_imports_ends_it_with_a_message(calls, tmp_path, signum):
    code = "import os, sys, threading, time; from vap_pipeline.pretrain.__main__ import main\n"
    code += f"end = lambda: (time.sleep(0.3), os.kill(os.getpid(), {signum}))\n"
    code += "threading.Thread(target=end).start(); sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *flags(calls, tmp_path / "out")]
    ran = subprocess.run(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=60)
    assert ran.returncode == 128 + signum and ran.stderr.count("\n") == 1, ran.stderr
    assert f"stopped by {signum.name}; nothing was trained yet" in ran.stderr


def test_two_processes_give_the_same_losses(calls, tmp_path):
    assert main(flags(calls, tmp_path / "one")) == 0
    launch = [
        str(Path(sys.executable).with_name("accelerate")),
        "launch",
        "--multi_gpu",
        "--num_processes",
        "2",
    ]
    command = [*launch, "--main_process_port", "0", "vap-pretrain", *flags(calls, tmp_path / "two")]
    environment = os.environ | {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=120)
    one, two = (pq.read_table(tmp_path / run / "history.parquet").to_pylist() for run in ("one", "two"))
    assert len(one) == len(two) == 12
    for expected, row in zip(one, two, strict=True):
        for measure, value in row.items():
            # An accuracy is a share of about 9,000 decisions; rounding can change a few of them.
            slack = 1e-3 if "accuracy" in measure else 1e-4
            assert value == pytest.approx(expected[measure], abs=slack), measure


def test_mixed_precision(calls, tmp_path):
    launch = ["launch", "--num_processes", "1", "--mixed_precision", "bf16", "vap-pretrain"]
    command = [str(Path(sys.executable).with_name("accelerate")), *launch, *flags(calls, tmp_path / "out")]
    environment = os.environ | {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([*command, "--steps", "4"], cwd=ROOT, env=environment, check=True, timeout=120)
    assert cpc_weights.load(str(tmp_path / "out" / "encoder.safetensors"))[0].config == SMALL


def test_an_error_in_a_worker_process_is_one_line(calls, tmp_path, capsys):
    """Audio files that are shorter than the manifest says."""
    audio = tmp_path / "audio"
    shutil.copytree(calls / "audio", audio)
    for path in audio.iterdir():
        soundfile.write(path, soundfile.read(path)[0][:40_000], 8000)
    assert main(flags(calls, tmp_path / "out", "--audio", audio, "--workers", 1)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert (
        error.startswith("vap-pretrain: error: ")
        and "ends at 5.00 s, though the manifest has speech" in error
    )


def test_the_folder_can_be_an_fsspec_address(calls):
    assert main(flags(calls, "memory://pretrained", "--steps", 4)) == 0
    assert b"# CPC encoder, trained on calls" in files.read("memory://pretrained/card.md")
    assert len(files.read("memory://pretrained/encoder.safetensors")) > 1000


def step_of(state):
    content = state.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    return json.loads(header["progress"])["step"]


def test_a_loss_that_is_nan_ends_the_run(stretches, tmp_path):
    encoder = cpc_weights.random(0, SMALL)
    with torch.no_grad():
        encoder.get_parameter("gAR.baseNet.weight_ih_l0").fill_(torch.nan)
    with pytest.raises(InputError, match=r"step 0: the loss is nan.*resume.safetensors, of step 0"):
        pretrain(encoder, stretches, [], FEW, {"corpus": "calls"}, str(tmp_path))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--ahead", 128], "pretrain.ahead is 128; it must be at least 1 and less than 128"),
        (["--learning-rate", 0], "pretrain.learning_rate is 0.0; it must be more than 0"),
        (["--recurrent", "CNN"], "argument --recurrent: invalid choice: 'CNN'"),
        (["--init", "nowhere.pt"], "nowhere.pt: no such weights"),
        (["--audio", "nowhere"], "nowhere/c"),
        (["--workers", -1], "argument --workers: -1: give a whole number from 0 on"),
        (["--seed", 10**20], "pretrain.seed is 100000000000000000000; it must be at least 0 and at most"),
        (["--learning-rate", "inf"], "pretrain.learning_rate is inf; it must be a number"),
    ],
)
def test_wrong_flags_and_files_are_one_line(calls, tmp_path, capsys, more, said):
    try:
        status = main(flags(calls, tmp_path / "out", *more))
    except SystemExit as exited:  # argparse's own
        status = exited.code
    error = capsys.readouterr().err.strip().splitlines()
    assert status == 2 and said in error[-1] and error[-1].startswith("vap-pretrain: error: ")


def test_a_corpus_without_long_speech_is_refused(tmp_path, capsys):
    tiny = corpus(tmp_path, 4)  # no stretch of 2 s
    data = ["--corpus", "tiny", "--manifest", str(tmp_path / "tiny"), "--audio", str(tmp_path / "audio")]
    assert main([*data, "--out", str(tmp_path / "out")]) == 2
    assert "tiny: nobody speaks for 2 s without a pause" in capsys.readouterr().err
    assert tiny.audio(0).exists()


@pytest.mark.parametrize("config", [Config(24, 12), Config(24, 12, 2, "GRU")], ids=["lstm", "gru"])
def test_the_original_package_reads_and_writes_our_checkpoints(tmp_path, config):
    pytest.importorskip("cpc.model", reason="needs the original package, cpc_audio")
    import safetensors.torch
    from cpc.model import CPCAR, CPCModel
    from cpc.model import CPCEncoder as Convolutions

    def original():
        recurrent = CPCAR(24, 12, False, config.nLevelsGRU, mode=config.arMode)
        return CPCModel(Convolutions(24, "layerNorm"), recurrent).eval()

    audio = torch.randn(1, 16_000) * 0.1
    theirs = original()
    named = {"hiddenEncoder": 24, "hiddenGar": 12, "nLevelsGRU": config.nLevelsGRU, "arMode": config.arMode}
    torch.save({"config": named, "weights": theirs.state_dict()}, tmp_path / "theirs.pt")
    ours = cpc_weights.load(str(tmp_path / "theirs.pt"))[0]
    with torch.no_grad():
        torch.testing.assert_close(ours(audio), theirs(audio[:, None], None)[0], atol=5e-5, rtol=0)

    encoder = cpc_weights.random(5, config)
    for name in ("ours.pt", "ours.safetensors"):
        cpc_weights.save(encoder, tmp_path / name)
    theirs = original()
    theirs.load_state_dict(torch.load(tmp_path / "ours.pt", weights_only=True)["weights"])
    with torch.no_grad():
        torch.testing.assert_close(encoder(audio), theirs(audio[:, None], None)[0], atol=5e-5, rtol=0)
    halves = safetensors.torch.load_file(tmp_path / "ours.safetensors")
    theirs.load_state_dict({name: tensor.float() for name, tensor in halves.items()})
    ours = cpc_weights.load(str(tmp_path / "ours.safetensors"))[0]
    with torch.no_grad():
        torch.testing.assert_close(ours(audio), theirs(audio[:, None], None)[0], atol=5e-5, rtol=0)
        torch.testing.assert_close(OriginalEncoder(ours)(audio), ours(audio), atol=5e-5, rtol=0)


def test_gradients_reach_every_weight():
    model = Prediction(CPCEncoder(SMALL), 3)
    model(torch.randn(1, 2, WINDOW_SAMPLES) * 0.1, torch.randint(2 * WINDOW_FRAMES, (1, 4)))[0].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_a_run_does_not_continue_with_other_audio(calls, tmp_path, capsys):
    shutil.copytree(calls, tmp_path / "other")
    assert main(flags(tmp_path / "other", tmp_path / "out")) == 0
    before = outputs(tmp_path / "out")
    assert main(flags(tmp_path / "other", tmp_path / "out", "--resume")) == 0
    assert (
        outputs(tmp_path / "out") == before and "starting from the beginning" not in capsys.readouterr().err
    )
    path = tmp_path / "other" / "audio" / "c0.wav"
    samples, rate = soundfile.read(path)
    soundfile.write(path, samples[::-1], rate)
    run = [
        sys.executable,
        "-m",
        "vap_pipeline.pretrain",
        *flags(tmp_path / "other", tmp_path / "out", "--resume"),
    ]
    again = subprocess.run(run, capture_output=True, text=True, env=os.environ | {"WANDB_MODE": "disabled"})
    assert again.returncode == 0
    assert "data.training was" in again.stderr and "starting from the beginning" in again.stderr
    assert outputs(tmp_path / "out") != before

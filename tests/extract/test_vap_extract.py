"""vap-extract as a whole: real files, real processes, real signals."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import zarr
from made import LAUNCH, RATE, content, corpus, in_a_namespace, mutate, places, speech

from vap_pipeline.artefacts import manifest, store
from vap_pipeline.audio.recording import gains, open_recording, pieces
from vap_pipeline.encoders.cpc_weights import load
from vap_pipeline.extract import run
from vap_pipeline.extract.__main__ import SKIPPED_STATUS, main
from vap_pipeline.io.errors import InputError
from vap_pipeline.turn_taking import voice_activity


def test_what_is_in_the_store(tmp_path):
    tiny = corpus(tmp_path, 4, 65)
    assert main(tiny.flags()) == 0
    made = store.open_store(tiny.store, {"dim": 8, "encoder": {"weights": "small.pt", "backend": "native"}})
    assert made.conversations == ["c0000", "c0001", "c0002", "c0003"]
    encoder, listed = load(str(tmp_path / "small.pt"))[0], manifest.read(tmp_path / "tiny")
    segments = listed.segments()
    for i, each in enumerate(listed.conversations):
        name, frames = each.conversation, int(100 * each.duration_s) + 1
        recording = open_recording(tiny.audio(i))
        whole = torch.cat(list(pieces(recording, gains(recording), frames, 1_000)))
        with torch.no_grad():
            expected = encoder(whole[None])[0].numpy()
        features = made.features(name, 0, made.frames(name))
        assert features.shape == (frames, 8)
        np.testing.assert_allclose(features, expected, atol=5e-4)
        va = made.va(name)
        np.testing.assert_array_equal(va, voice_activity.voice_activity(*segments[name], frames))
        assert va.shape == (frames, 2) and 0 < va.mean() < 1
        np.testing.assert_array_equal(zarr.open_group(tiny.store, mode="r")[name]["features"][:], features)
    receipt = json.loads((tmp_path / "features.json").read_text())
    assert receipt["conversations"] == 4 and receipt["store"] == made.description


def test_a_second_run_does_nothing_and_changes_are_done_again(tmp_path, caplog):
    caplog.set_level("INFO")
    tiny = corpus(tmp_path, 5)
    assert main(tiny.flags()) == 0
    first, before, receipt = (
        content(tiny.store),
        places(tiny.store),
        (tmp_path / "features.json").read_bytes(),
    )
    assert main(tiny.flags()) == 0
    assert places(tiny.store) == before and (tmp_path / "features.json").read_bytes() == receipt
    assert "0 conversations encoded" in caplog.messages[-1] and "5 up to date" in caplog.messages[-1]

    soundfile.write(tiny.audio(2), speech(12.5, seed=99), RATE, subtype="ULAW")
    assert main(tiny.flags()) == 0
    changed = {name for name, place in places(tiny.store).items() if place != before[name]}
    assert changed == {"c0002"} and "1 conversations encoded" in caplog.messages[-1]
    assert (tmp_path / "features.json").read_bytes() != receipt

    before = places(tiny.store)
    corpus(tmp_path, 5, shift=0.25)  # other segments in c0001, and the first audio in c0002 again
    assert main(tiny.flags()) == 0
    changed = {name for name, place in places(tiny.store).items() if place != before[name]}
    assert changed == {"c0001", "c0002"}
    now = content(tiny.store)
    assert {name.split("/")[0] for name in first if first[name] != now[name]} == {"c0001"}


def test_a_damaged_conversation_is_made_again(tmp_path):
    tiny = corpus(tmp_path)
    assert main(tiny.flags()) == 0
    first = content(tiny.store)
    shard = tiny.store / "c0001/features/c/0/0"
    shard.write_bytes(shard.read_bytes()[:-100])
    (tiny.store / "c0002/va/zarr.json").write_text("{")
    (tiny.store / "c0003/zarr.json").unlink()
    assert main(tiny.flags()) == 0
    assert content(tiny.store) == first


def test_other_weights_do_not_mix_into_a_store(tmp_path, capsys):
    tiny = corpus(tmp_path)
    assert main(tiny.flags()) == 0
    first = content(tiny.store)
    assert main(tiny.flags(weights="random", seed=3)) == 2
    said = capsys.readouterr().err
    assert "encoder.weights was small.pt, is random-seed3" in said and said.count("\n") == 1
    assert content(tiny.store) == first


def test_settings_come_from_the_params_file(tmp_path, capsys):
    tiny = corpus(tmp_path)
    section = {"name": "tiny", "audio": str(tmp_path / "audio"), "extract": {"weights": "random", "seed": 7}}
    params = tmp_path / "params.yaml"
    params.write_text(json.dumps({"tiny": section, "corpus": section}))
    assert (
        main(["--params", str(params), "--manifest", str(tmp_path / "tiny"), "--out", str(tiny.store)]) == 0
    )
    assert store.open_store(tiny.store).description["encoder"]["weights"] == "random-seed7"
    section["extract"]["backend"] = "other"
    params.write_text(json.dumps({"tiny": section, "corpus": section}))
    assert (
        main(["--params", str(params), "--manifest", str(tmp_path / "tiny"), "--out", str(tiny.store)]) == 2
    )
    assert "extract.backend is 'other'" in capsys.readouterr().err


def truncate(path):
    path.write_bytes(path.read_bytes()[:-4000])


def spoil(path):
    samples = speech(12)
    samples[5000] = np.nan
    soundfile.write(path, samples, RATE, subtype="FLOAT")


FAULTS = {
    "one channel": (lambda path: soundfile.write(path, speech(12)[:, 0], RATE), "1 channel, expected"),
    "not a number": (spoil, "NaN or infinite samples"),
    "too short": (
        lambda path: soundfile.write(path, speech(11), RATE),
        "lasts 11.00 s, but the manifest says 12.00",
    ),
    "truncated": (truncate, "lasts 11.75 s, but the manifest says 12.00"),
    "no audio": (lambda path: path.write_bytes(b"NIST_1A\n   1024\n"), "truncated inside its SPHERE header"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as audio"),
    "absent": (lambda path: path.unlink(), "no such file"),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "a pipe or a device"),
    "endless": (lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "a pipe or a device"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_audio_stops_or_is_skipped(tmp_path, capsys, caplog, fault):
    caplog.set_level("INFO")
    spoil_audio, said = FAULTS[fault]
    tiny = corpus(tmp_path, 3)
    good = tiny.audio(0).read_bytes()
    spoil_audio(tiny.audio(0))
    assert main(tiny.flags()) == 2
    error = capsys.readouterr().err
    assert said in error and str(tiny.audio(0)) in error and error.count("\n") == 1

    with pytest.raises(SystemExit) as ended:
        main(tiny.flags(on_error="skip"))
    assert ended.value.code == SKIPPED_STATUS
    assert said in caplog.messages[-1] and caplog.messages[-1].startswith("skipped c0000: ")
    assert store.open_store(tiny.store).conversations == ["c0001", "c0002"]
    assert not (tmp_path / "features.json").exists()

    if tiny.audio(0).is_dir():
        tiny.audio(0).rmdir()
    tiny.audio(0).unlink(missing_ok=True)
    tiny.audio(0).write_bytes(good)
    assert main(tiny.flags()) == 0
    assert (tmp_path / "features.json").exists()
    clean = corpus(tmp_path / "clean", 3)
    assert main(clean.flags()) == 0
    assert content(tiny.store) == content(clean.store)


def test_audio_that_changes_while_it_is_read(tmp_path, capsys, monkeypatch):
    """The store would note the hash of the one beside the features of the other."""
    tiny, gains = corpus(tmp_path, 2), run.gains

    def change(recording):
        if recording.path == tiny.audio(0):
            os.utime(recording.path, ns=(1, 1))
        return gains(recording)

    monkeypatch.setattr(run, "gains", change)
    assert main(tiny.flags()) == 2
    assert f"{tiny.audio(0)}: it changed while it was read" in capsys.readouterr().err
    assert "c0000" not in store.open_store(tiny.store).conversations
    monkeypatch.undo()
    assert main(tiny.flags()) == 0


def test_features_of_before_are_said_to_stay(tmp_path, caplog):
    caplog.set_level("INFO")
    tiny = corpus(tmp_path, 2)
    assert main(tiny.flags()) == 0
    tiny.audio(0).write_bytes(b"no audio")
    with pytest.raises(SystemExit):
        main(tiny.flags(on_error="skip"))
    assert caplog.messages[-1].startswith("skipped c0000: ")
    assert caplog.messages[-1].endswith("; its earlier features stay in the store")


def test_two_hundred_broken_files_and_some_good_ones(tmp_path, caplog, capsys):
    """Each is refused with a line of its own, or had nothing changed that matters."""
    caplog.set_level("INFO")
    tiny, choose, right = corpus(tmp_path, 220, 10, "sph"), random.Random(2), {}
    for i in range(0, 220, 11):
        right[f"c{i:04d}"] = sum_of_channels(tiny.audio(i))
    for i in set(range(220)) - set(range(0, 220, 11)):
        whole = sum_of_channels(tiny.audio(i))
        tiny.audio(i).write_bytes(mutate(tiny.audio(i).read_bytes(), choose))
        with suppress(InputError):
            if torch.equal(sum_of_channels(tiny.audio(i)), whole):
                right[f"c{i:04d}"] = whole
    with pytest.raises(SystemExit) as ended:
        main(tiny.flags(on_error="skip"))
    assert ended.value.code == SKIPPED_STATUS and "Traceback" not in capsys.readouterr().err
    skipped = [line for line in caplog.messages if line.startswith("skipped ")]
    assert len(skipped) > 150 and all("\n" not in line and ".sph: " in line for line in skipped)
    made = store.open_store(tiny.store)
    assert set(made.conversations) == set(right)


def sum_of_channels(path):
    """All that the features depend on: two channels that changed places are no fault that a file shows."""
    return torch.cat(list(open_recording(path).blocks()), dim=1).sum(0)


def test_other_faults(tmp_path, capsys):
    tiny = corpus(tmp_path)

    def refused(said, **flags):
        assert main(tiny.flags(**flags)) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, error

    refused("no such file", manifest=tmp_path / "absent")
    refused("no such weights", weights=tmp_path / "absent.pt")
    refused("cannot be written", out=tmp_path / "small.pt" / "store")
    refused("not installed", backend="cpc_audio") if not _has_original() else None
    listed = manifest.read(tmp_path / "tiny")
    listed.conversations[2] = replace(listed.conversations[2], audio="")
    manifest.write(listed, tmp_path / "tiny")
    refused("conversation c0002: no audio in the manifest")
    listed.conversations = [replace(each, split="", fold=None) for each in listed.conversations]
    manifest.write(listed, tmp_path / "tiny")
    refused("no conversation is in train or test")
    assert not tiny.store.exists()


def _has_original():
    try:
        import cpc.model  # noqa: F401
    except ImportError:
        return False
    return True


def test_the_original_backend_gives_the_same_features(tmp_path):
    pytest.importorskip("cpc.model", reason="needs the original package, cpc_audio")
    tiny = corpus(tmp_path, 2, 30)
    assert main(tiny.flags(weights="random")) == 0
    assert main(tiny.flags(weights="random", backend="cpc_audio", out=tmp_path / "original.zarr")) == 0
    ours, theirs = store.open_store(tiny.store), store.open_store(tmp_path / "original.zarr")
    assert theirs.description["encoder"]["backend"] == "cpc_audio"
    for name in ours.conversations:
        frames = ours.frames(name)
        assert theirs.frames(name) == frames
        np.testing.assert_allclose(
            ours.features(name, 0, frames), theirs.features(name, 0, frames), atol=5e-4
        )
        np.testing.assert_array_equal(ours.va(name), theirs.va(name))


def test_a_store_on_any_fsspec_path(tmp_path):
    tiny, url = corpus(tmp_path), "memory://extract-test/features.zarr"
    assert main(tiny.flags(out=url)) == 0 and main(tiny.flags(out=url)) == 0
    assert main(tiny.flags()) == 0
    local, remote = store.open_store(tiny.store), store.open_store(url)
    assert local.description == remote.description and local.conversations == remote.conversations
    for name in local.conversations:
        np.testing.assert_array_equal(local.features(name, 0, 1200), remote.features(name, 0, 1200))
        assert local.attributes(name) == remote.attributes(name)


def kill_and_start_again(tiny, kills, seed):
    """Kill runs with SIGKILL at random moments of their work; what is complete must not be done again."""
    choose, done, survived = random.Random(seed), {}, 0
    while survived < kills:
        run, goal = tiny.start(), len(done) + choose.randint(1, 6)
        _wait_for(lambda run=run, goal=goal: run.poll() is not None or len(complete(tiny)) >= goal)
        time.sleep(choose.random() * 0.05)  # about what one conversation takes
        run.kill()
        run.communicate()
        now = complete(tiny)
        assert len(now) >= goal and all(now.get(name) == place for name, place in done.items())
        opened = store.open_store(tiny.store)
        for name in opened.conversations:
            assert opened.features(name, 0, opened.frames(name)).shape == (len(opened.va(name)), 8)
        if run.returncode == 0:
            break
        survived, done = survived + 1, now
    assert main(tiny.flags()) == 0
    assert {name: complete(tiny)[name] for name in done} == done
    return survived


def complete(tiny):
    """The conversations that a reader counts, and the inode of their features."""
    return {name: at for name, at in places(tiny.store).items() if (tiny.store / name / "zarr.json").exists()}


def _wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments(tmp_path, kills):
    tiny, clean = corpus(tmp_path / "a", 12 * kills, 12), corpus(tmp_path / "b", 12 * kills, 12)
    assert main(clean.flags()) == 0
    assert kill_and_start_again(tiny, kills, seed=kills) == kills
    assert content(tiny.store) == content(clean.store)
    assert (tiny.root / "features.json").read_bytes() == (clean.root / "features.json").read_bytes()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_soon_with_a_message(tmp_path, signum):
    tiny = corpus(tmp_path, 3, 12)
    long = speech(300)
    for i in (0, 1):  # minutes of work: a stop must not wait for it
        soundfile.write(tiny.audio(i), long, RATE, subtype="ULAW")
    listed = manifest.read(tmp_path / "tiny")
    listed.conversations[:2] = [replace(each, duration_s=300.0) for each in listed.conversations[:2]]
    manifest.write(listed, tmp_path / "tiny")
    run = tiny.start()
    _wait_for(lambda: any(tiny.store.glob(".*.partial")))
    asked = time.monotonic()
    run.send_signal(signum)
    _, said = run.communicate(timeout=30)
    assert time.monotonic() - asked < 5
    assert run.returncode == 128 + signum
    assert f"stopped by {signum.name}" in said and "start the same command again" in said
    assert "Traceback" not in said and not list(tiny.store.glob(".*"))


SLOW = """
import sys, time
from vap_pipeline.extract import run
from vap_pipeline.extract.__main__ import main
def gains(recording):
    print("working", file=sys.stderr, flush=True)
    time.sleep(60)
run.gains = gains
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process(tmp_path, signum):
    run = corpus(tmp_path).start(sys.executable, "-c", SLOW)
    assert run.stderr.readline() == "working\n"
    run.send_signal(signum)
    time.sleep(2)
    assert run.poll() is None
    run.send_signal(signum)
    run.communicate(timeout=5)
    assert run.returncode == -signum


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("after_s", [0.2, 0.7, 1.5])
def test_a_signal_during_imports_ends_it_with_a_message(tmp_path, signum, after_s):
    code = (
        "import os, sys, threading, time; from vap_pipeline.extract.__main__ import main\n"
        f"end = lambda: (time.sleep({after_s}), os.kill(os.getpid(), {signum}))\n"
        "threading.Thread(target=end).start(); sys.exit(main(sys.argv[1:]))"
    )
    run = corpus(tmp_path, 60).start(sys.executable, "-c", code)
    _, said = run.communicate(timeout=30)
    assert run.returncode == 128 + signum and said.count("\n") == 1, said
    assert f"stopped by {signum.name}" in said


def test_hours_of_audio_do_not_delay_a_stop(tmp_path):
    """Neither while its file is summed nor while its peaks are looked for."""
    tiny = corpus(tmp_path, 1)
    with soundfile.SoundFile(tiny.audio(0), "w", RATE, 2, "PCM_16") as file:
        for _ in range(120):
            file.write(speech(60))
    listed = manifest.read(tmp_path / "tiny")
    listed.conversations[0] = replace(listed.conversations[0], duration_s=7200.0)
    manifest.write(listed, tmp_path / "tiny")
    run = tiny.start()
    _wait_for(lambda: any(tiny.store.glob(".*.partial")))
    asked = time.monotonic()
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=30)
    assert time.monotonic() - asked < 3 and run.returncode == 128 + signal.SIGTERM, said


def test_two_runs_share_the_work(tmp_path):
    tiny, clean = corpus(tmp_path / "a", 20), corpus(tmp_path / "b", 20)
    runs = [tiny.start(), tiny.start()]
    said = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    encoded = [int(each.split(" conversations encoded")[0].split()[-1]) for each in said]
    assert sum(encoded) == 20, said
    assert main(clean.flags()) == 0
    assert content(tiny.store) == content(clean.store)


def test_two_processes_of_accelerate_stopped_and_started_again_write_the_same_store(tmp_path):
    """SLURM sends SIGTERM to every process of a job: the launcher and both of ours."""
    one, two = corpus(tmp_path / "a", 60), corpus(tmp_path / "b", 60)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--main_process_port", "0", "vap-extract"]
    run = two.start(*launch)
    _wait_for(lambda: len(places(two.store)) > 3)
    os.killpg(run.pid, signal.SIGTERM)
    said = run.communicate(timeout=15)[1]
    assert run.returncode != 0 and said.count("stopped by SIGTERM") == 2 and "start the same command" in said
    after = said.split("stopped by SIGTERM")[-1]
    assert "vap_pipeline/extract/" not in after  # it is the launcher's own
    done = places(two.store)
    assert 3 < len(done) < 60 and not list(two.store.glob(".*"))

    run = two.start(*launch)
    said = run.communicate(timeout=120)[1]
    assert run.returncode == 0, said
    assert said.count(f"{60 - len(done)} conversations encoded") == 1 and "another vap-extract" not in said
    assert {name: places(two.store)[name] for name in done} == done
    assert main(one.flags()) == 0
    assert content(one.store) == content(two.store)
    assert (one.root / "features.json").read_bytes() == (two.root / "features.json").read_bytes()


def ranks(made, numbers, **others):
    """Start processes that know each other, as `srun` does: with no launcher to end them."""
    with socket.socket() as free, pytest.MonkeyPatch.context() as patch:
        free.bind(("127.0.0.1", 0))
        meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1], "WORLD_SIZE": 2}
        started = []
        for number in numbers:
            for name, value in {**meet, "RANK": number, "LOCAL_RANK": number, "LOCAL_WORLD_SIZE": 2}.items():
                patch.setenv(name, str(value))
            started.append(made.start(**others))
    return started


@pytest.mark.parametrize("at_fault", [0, 1])
def test_a_process_whose_peer_fails_ends_with_a_line(tmp_path, at_fault):
    tiny = corpus(tmp_path, 8)
    truncate(tiny.audio(4 - at_fault))  # the longest is rank 0's, the next one rank 1's
    runs = ranks(tiny, (0, 1))
    said = [run.communicate(timeout=60)[1] for run in runs]
    assert [run.returncode for run in runs] == [2, 2] and "Traceback" not in "".join(said)
    assert "s, but the manifest says" in said[at_fault]
    assert "error: another of the processes ended early; its own message is above" in said[1 - at_fault]


def test_a_process_whose_peer_is_killed_ends_with_a_line(tmp_path):
    tiny = corpus(tmp_path, 8)
    listed = manifest.read(tmp_path / "tiny")
    soundfile.write(tiny.audio(0), speech(600), RATE, subtype="ULAW")  # the longest: rank 0's
    listed.conversations[0] = replace(listed.conversations[0], duration_s=600.0)
    manifest.write(listed, tmp_path / "tiny")
    killed, other = ranks(tiny, (0, 1))
    _wait_for(lambda: len(places(tiny.store)) >= 4)  # rank 1 has no more to do
    killed.kill()
    said = other.communicate(timeout=60)[1]
    assert other.returncode == 2 and "another of the processes ended early" in said, said
    assert "Traceback" not in said
    killed.communicate()


def test_a_process_whose_peer_never_comes_can_be_ended(tmp_path):
    (run,) = ranks(corpus(tmp_path), (0,))
    with suppress(subprocess.TimeoutExpired):
        run.communicate(timeout=12)  # it waits
    run.terminate()
    said = run.communicate(timeout=10)[1]
    assert run.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM) and "Traceback" not in said


def test_a_full_disk_a_read_only_one_and_no_network(tmp_path):
    tiny, clean = corpus(tmp_path / "a", 16), corpus(tmp_path / "b", 16)
    (small := tmp_path / "small").mkdir()
    command = " ".join([*LAUNCH, *tiny.flags(out=small / "features.zarr")])
    ran = in_a_namespace(
        f"""
        mount -t tmpfs -o size=400k small {small}
        {command} && exit 1 || test $? = 2
        echo complete: $(ls {small}/features.zarr | grep -c ^c)
        echo leftovers: $(ls -A {small}/features.zarr | grep -c partial || true)
        mount -o remount,ro {small}
        {command} && exit 1 || test $? = 2
        mount -o remount,rw,size=64m {small}
        {command}
        cp -r {small}/features.zarr {tmp_path}/result
        """
    )
    assert ran.returncode == 0, ran.stderr
    first, second, third = ran.stderr.strip().splitlines()
    assert "cannot be written (No space left on device)" in first and "start the same command again" in first
    assert "cannot be written (Read-only file system)" in second
    complete = int(ran.stdout.split()[1])
    assert 0 < complete < 16 and "leftovers: 0" in ran.stdout
    assert f"{16 - complete} conversations encoded" in third and f"{complete} up to date" in third
    assert main(clean.flags()) == 0
    assert content(tmp_path / "result") == content(clean.store)


@pytest.mark.parametrize("conversations", [100, pytest.param(2_000, marks=pytest.mark.slow)])
def test_memory_files_and_threads_stay_flat(tmp_path, conversations):
    tiny = corpus(tmp_path, conversations, 10)
    seen = []
    write = store.Writer.write

    def observed(self, *args):
        write(self, *args)
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        open_files = len(list(Path("/proc/self/fd").iterdir()))
        seen.append((int(status["VmRSS"].split()[0]), open_files, threading.active_count()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.Writer, "write", observed)
        assert main(tiny.flags()) == 0
    assert len(seen) == conversations
    early, late = (
        np.array(seen[conversations // 3 : conversations // 2]),
        np.array(seen[-conversations // 6 :]),
    )
    growth = np.median(late, axis=0) - np.median(early, axis=0)
    assert growth[0] < 20_000  # kB
    assert abs(growth[1]) <= 2 and growth[2] == 0


def test_help_is_fast_and_says_what_is_read_and_written():
    code = "import sys; from vap_pipeline.extract.__main__ import main\ntry: main(['--help'])\n"
    code += "finally: sys.exit(any(m in sys.modules for m in ('torch', 'zarr', 'accelerate')))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0
    for word in ("Reads", "Writes", "features.zarr", "--on-error", "examples:", "accelerate launch"):
        assert word in ran.stdout


def test_asked_to_stop_it_ends_though_no_exception_comes(tmp_path):
    """As when the signal's exception is lost in a finalizer."""
    tiny, asked = corpus(tmp_path, 6), []
    encoder, described = load(str(tmp_path / "small.pt"))
    writer = store.create(str(tiny.store), {"dim": 8, "frame_rate": 100, "encoder": described, "audio": {}})

    def stopped():
        asked.append(True)
        return len(asked) > 30

    jobs = run.jobs(manifest.read(tmp_path / "tiny"), tmp_path / "audio")
    with pytest.raises(run.Stopped):
        run.extract(jobs, writer, encoder, 1, False, stopped)
    assert 0 < len(places(tiny.store)) < 6 and not list(tiny.store.glob(".*"))

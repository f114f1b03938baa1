"""A training run on a corpus whose features tell what comes next."""

import json
import re

import pyarrow.parquet as pq
import pytest
import torch
from accelerate import Accelerator
from synthetic import make

from vap_pipeline.artefacts.store import open_store
from vap_pipeline.artefacts.windows import Windows
from vap_pipeline.models.checkpoint import load
from vap_pipeline.runtime.signals import Requests
from vap_pipeline.train.__main__ import main
from vap_pipeline.train.validation import Validation
from vap_pipeline.turn_taking.projection import MODELS
from vap_pipeline.turn_taking.scores import METRICS

pytestmark = pytest.mark.usefixtures("unlogged_on_one_thread")


def history(folder):
    rows = pq.read_table(folder / "history.parquet").to_pylist()
    return (
        [row for row in rows if row["validation_loss"] is None],
        [row for row in rows if row["validation_loss"] is not None],
    )


@pytest.mark.parametrize("model", MODELS)
def test_learns(arguments, tmp_path, model):
    flags = ["--epochs", 12, "--learning-rate", 0.03, "--dropout", 0]
    assert main(arguments(tmp_path, *flags, model=model)) == 0
    steps, checks = history(tmp_path)
    assert [row["step"] for row in steps] == sorted({*range(3, 37, 3), 10, 20})
    assert [row["step"] for row in checks] == list(range(3, 37, 3))
    assert checks[0]["epoch"] == 1 and checks[-1]["epoch"] == 12
    assert steps[-1]["training_loss"] < 0.85 * steps[0]["training_loss"]
    assert checks[-1]["validation_loss"] < 0.8 * checks[0]["validation_loss"]
    assert max(row["f1_predict_shift"] for row in checks) > 0.75 > checks[0]["f1_predict_shift"]
    assert {name for name in METRICS if checks[-1][name] is None} == (
        {"f1_predict_backchannel"} if model == "comparative" else set()
    )


def test_the_best_check_is_kept(arguments, corpus, tmp_path):
    """Its scores come back when the checkpoint is loaded and checked again."""
    assert main(arguments(tmp_path, "--learning-rate", 0.05, "--checks-per-epoch", 3)) == 0
    _, checks = history(tmp_path)
    qualities = [row["f1_hold_shift"] for row in checks]
    assert len(checks) == 12 and qualities.index(max(qualities)) < 11  # or the last would do
    model, config = load(str(tmp_path))
    best = {key: value for key, value in config["best"].items() if key not in ("step", "epoch")}
    assert best["f1_hold_shift"] == max(qualities)
    assert config["best"]["step"] == 1 + qualities.index(max(qualities))  # the first of equals
    windows = Windows(open_store(corpus / "features.zarr"), ["c0000", "c0003"])
    check = Validation(windows, len(windows), 5, config["seed"], 0)
    measured = check(model, Accelerator(cpu=True), Requests())
    assert measured.measures == pytest.approx(best, rel=1e-6)
    assert measured.thresholds == config["thresholds"]


def test_config_says_all_that_rebuilds_and_describes(arguments, tmp_path):
    assert main(arguments(tmp_path, "--epochs", 1, "--fold", 2, "--seed", 5)) == 0
    config = json.loads((tmp_path / "config.json").read_text())
    assert (
        config["corpus"] == "tiny" and config["fold"] == 2 and config["seed"] == config["train"]["seed"] == 7
    )
    assert config["model"]["input_dim"] == 16 and config["store"]["encoder"] == {"name": "synthetic"}


def test_a_checkpoint_may_lie_on_any_file_system(arguments, tmp_path):
    """In memory here; and a run goes on from there."""
    for flags in (["--epochs", 1], ["--epochs", 1, "--resume"]):
        assert main([*arguments("memory://runs/fold-0"), *map(str, flags)]) == 0
    assert main(arguments(tmp_path, "--epochs", 1)) == 0
    remote, local = (load(folder)[0].state_dict() for folder in ("memory://runs/fold-0", str(tmp_path)))
    assert all(torch.equal(remote[name], local[name]) for name in local)


def test_stops_when_no_check_is_better(arguments, tmp_path):
    assert main(arguments(tmp_path, "--learning-rate", 1e-12, "--epochs", 20, "--patience", 3)) == 0
    _, checks = history(tmp_path)
    assert len(checks) == 1 + 3


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(arguments, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert main(arguments(tmp_path / name, "--epochs", 1, "--seed", seed)) == 0
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_readers_in_processes_change_nothing(arguments, tmp_path):
    for name, workers in (("a", 0), ("b", 2)):
        assert main(arguments(tmp_path / name, "--epochs", 2, "--workers", workers)) == 0
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert a == b


@pytest.mark.parametrize(("poison", "where"), [("c0001", "the loss is"), ("c0000", "the validation loss is")])
def test_a_loss_that_is_not_a_number_stops_the_run(arguments, tmp_path, capsys, poison, where):
    data = make(tmp_path / "corpus", poison=poison)
    flags = ["--store", data / "features.zarr", "--manifest", data / "manifest", "--batch", 1]
    assert main(arguments(tmp_path / "out", *flags)) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    step, saved = map(int, re.search(r": step (\d+): .*resume.safetensors, of step (\d+);", last).groups())
    assert saved <= step and last.endswith(f"conversations: {poison}") and where in last and "nan" in last


def test_fast_dev_run_does_one_batch_of_everything_and_keeps_nothing(
    arguments, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_MODE")
    assert main([*arguments("out"), "--fast-dev-run"]) == 0
    assert not list(tmp_path.iterdir())


def test_without_a_shift_or_hold_to_validate_on_the_loss_decides(arguments, tmp_path):
    data = make(tmp_path / "corpus", silent=True)
    flags = ["--store", data / "features.zarr", "--manifest", data / "manifest", "--learning-rate", 1e-3]
    assert main(arguments(tmp_path / "out", *flags, "--epochs", 3)) == 0
    _, checks = history(tmp_path / "out")
    losses = [row["validation_loss"] for row in checks]
    _, config = load(str(tmp_path / "out"))
    assert config["best"]["validation_loss"] == min(losses)

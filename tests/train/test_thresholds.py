"""The thresholds of the best check, which training notes and evaluation takes."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from vap_pipeline.artefacts import manifest
from vap_pipeline.evaluate import score
from vap_pipeline.evaluate.__main__ import main as evaluate
from vap_pipeline.models.checkpoint import load, save
from vap_pipeline.train.__main__ import main as train
from vap_pipeline.turn_taking.scores import LEVELS, TASKS, named, numbered

pytestmark = pytest.mark.usefixtures("unlogged_on_one_thread")


@pytest.fixture
def trained(corpus, arguments, tmp_path):
    """Flags for vap-evaluate of a model that learned a little; fold 2 of the corpus is its test set."""
    listed = manifest.read(corpus / "manifest")
    listed.conversations = [
        replace(c, split="test", fold=None) if c.fold == 2 else c for c in listed.conversations
    ]
    manifest.write(listed, tmp_path / "tiny")
    flags = ["--manifest", str(tmp_path / "tiny"), "--learning-rate", "0.03"]
    assert train([*arguments(tmp_path / "model"), *flags]) == 0
    data = ["--store", str(corpus / "features.zarr"), "--manifest", str(tmp_path / "tiny")]
    return ["score", "--corpus", "tiny", "--checkpoint", str(tmp_path / "model"), *data, "--device", "cpu"]


def change(folder, **others):
    model, config = load(str(folder))
    thresholds = config.pop("thresholds", None)
    (folder / "resume.safetensors").unlink(missing_ok=True)  # else it tells that the model is another's
    save(model, config | others, str(folder))
    return thresholds


def test_evaluation_takes_those_of_the_checkpoint_and_finds_the_same_itself(trained, tmp_path, monkeypatch):
    with monkeypatch.context() as without:
        without.delattr(score, "thresholds")  # which would choose them
        assert evaluate([*trained, "--out", str(tmp_path / "noted.parquet")]) == 0
    thresholds = change(tmp_path / "model")
    assert len({t for task in thresholds.values() for t in task.values()}) > 2
    assert evaluate([*trained, "--out", str(tmp_path / "found.parquet")]) == 0
    for part in ("", ".events", ".timeline"):
        a, b = ((tmp_path / f"{name}{part}.parquet").read_bytes() for name in ("noted", "found"))
        assert a == b

    noted = {task: {"frame": 0.2, "event": 0.7} for task in TASKS}
    change(tmp_path / "model", thresholds=noted)
    assert evaluate([*trained, "--out", str(tmp_path / "other.parquet")]) == 0
    rows = pq.read_table(tmp_path / "other.parquet").to_pylist()
    assert {(r["level"], r["threshold"]) for r in rows} == {("frame", 0.2), ("event", 0.7), ("frame", None)}


def test_those_of_another_validation_set_are_not_taken(trained, tmp_path):
    """A model may be scored on another corpus: its thresholds are then of that corpus's fold."""
    assert evaluate([*trained, "--out", str(tmp_path / "own.parquet")]) == 0
    wrong = {task: {"frame": 0.99, "event": 0.99} for task in TASKS}
    change(tmp_path / "model", thresholds=wrong, corpus="another", data={"validation": "of another"})
    assert evaluate([*trained, "--out", str(tmp_path / "other.parquet")]) == 0
    assert (tmp_path / "own.parquet").read_bytes() == (tmp_path / "other.parquet").read_bytes()


@pytest.mark.parametrize("damage", [{}, {"hold_shift": 0.5}, "text", [1], {task: {} for task in TASKS}])
def test_damaged_thresholds_get_one_line(trained, tmp_path, capsys, damage):
    change(tmp_path / "model", thresholds=damage or {"hold_shift": {"frame": 0.5, "event": "x"}})
    capsys.readouterr()
    assert evaluate([*trained, "--out", str(tmp_path / "out.parquet")]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "its thresholds are damaged" in last and "train the model again" in last
    assert not (tmp_path / "out.parquet").exists()


def test_names_and_numbers_of_thresholds_are_one_another_s_inverse():
    best = np.arange(99)[: len(TASKS) * len(LEVELS) * 12 : 12].reshape(len(TASKS), len(LEVELS))
    assert (numbered(named(best)) == best).all()
    assert (numbered(named(np.full_like(best, 98))) == 98).all()
    for outside in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError):
            numbered({task: dict.fromkeys(LEVELS, outside) for task in TASKS})

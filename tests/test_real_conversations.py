"""Ten real conversations of Switchboard, spoken by the renderer, through every command."""

import csv
import tarfile
from itertools import product
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from vap_pipeline.artefacts.store import open_store
from vap_pipeline.corpora.__main__ import main as vap_manifest
from vap_pipeline.evaluate.__main__ import main as vap_evaluate
from vap_pipeline.extract.__main__ import main as vap_extract
from vap_pipeline.report.__main__ import main as vap_anova
from vap_pipeline.train.__main__ import main as vap_train

MODELS, FOLDS = ("discrete", "comparative"), (0, 1)
PARAMS = """
switchboard: &switchboard
  name: switchboard
  manifest: {test: 3, folds: 2}
  extract: {weights: telephone-small}
  models: [discrete, comparative]
  folds: [0, 1]
  model: {width: 16, layers: 1, heads: 1, feedforward: 16}
  train: {batch: 8, learning_rate: 1.0e-3, epochs: 1, checks_per_epoch: 1}
corpus: *switchboard
"""


def shortest(archive: Path, count: int) -> dict[str, dict[str, str]]:
    """The word files, by name, of the ``count`` shortest conversations of the ms98 release."""
    found: dict[str, dict[str, str]] = {}
    with tarfile.open(archive) as release:
        for member in release:
            name = Path(member.name).name
            if name.endswith("-word.text"):
                text = release.extractfile(member).read().decode()  # type: ignore[union-attr]
                found.setdefault(name[:6], {})[name] = text
    return {name: found[name] for name in sorted(sorted(found, key=lambda n: last_s(found[n]))[:count])}


def last_s(sides: dict[str, str]) -> float:
    return max(float(text.split()[-2]) for text in sides.values())


@pytest.mark.slow
def test_ten_real_conversations_become_the_published_table(
    shared, tmp_path, monkeypatch, unlogged_on_one_thread
):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS)
    chosen = shortest(shared / "swb_ms98_transcriptions.tar.xz", 10)
    for name, sides in chosen.items():
        folder = Path("data/switchboard/transcripts", name[2:4], name[2:])
        folder.mkdir(parents=True)
        for file, text in sides.items():
            (folder / file).write_text(text)

    assert vap_manifest(["render", "--corpus", "switchboard"]) == 0
    assert vap_manifest(["switchboard"]) == 0
    used = [name for name, sides in chosen.items() if "<b_aside>" not in "".join(sides.values())]
    train = used[:-3]
    first = len(train) - len(train) // 2  # the first fold is the longer one
    expected = dict.fromkeys(chosen, ("", "")) | dict.fromkeys(used[-3:], ("test", ""))
    expected |= {name: ("train", str(int(i >= first))) for i, name in enumerate(train)}
    with Path("data_manifest/switchboard/conversations.csv").open() as file:
        rows = {row["conversation"]: row for row in csv.DictReader(file)}
    assert {name: (row["split"], row["fold"]) for name, row in rows.items()} == expected
    for name, row in rows.items():
        assert Path("data/switchboard/audio", row["audio"]).is_file()
        assert float(row["duration_s"]) == pytest.approx(last_s(chosen[name]), abs=0.01)

    assert vap_extract([]) == 0
    assert open_store("data/switchboard/features.zarr").conversations == used
    for model, fold in product(MODELS, FOLDS):
        run = ["--model", model, "--fold", str(fold)]
        assert vap_train(run) == vap_evaluate(["score", *run, "--device", "cpu"]) == 0
        scores = pq.read_table(f"scores/switchboard/{model}/fold-{fold}.parquet").to_pylist()
        assert {(row["model"], row["fold"]) for row in scores} == {(model, fold)}
    assert vap_anova([]) == 0
    table = Path("reports/switchboard/table.md").read_text()
    lines = table.splitlines()
    published = {"discrete": "*.899* | (*.510*) | *.786*", "comparative": "*.893* | (*.475*) | *.546*"}
    for model, numbers in published.items():
        at = next(i for i, line in enumerate(lines) if line.startswith(f"| {model} |"))
        assert lines[at + 1].startswith(f"| *published* | {numbers} |"), table
    assert "telephone-small" in table

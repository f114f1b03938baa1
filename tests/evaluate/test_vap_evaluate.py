import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from vap_pipeline.artefacts.store import open_store
from vap_pipeline.evaluate.__main__ import main
from vap_pipeline.turn_taking.scores import regions


def test_events_are_those_that_the_scores_look_at(corpus, tmp_path: Path):
    out = tmp_path / "events.parquet"
    assert main(["events", "--manifest", str(corpus.manifest), "--split", "test", "--out", str(out)]) == 0
    found = pq.read_table(out).to_pylist()
    store = open_store(corpus.store)
    scored = regions(((name, store.va(name)) for name in ("t", "u")), 0).to_pylist()
    task = {"shift": "hold_shift", "hold": "hold_shift", "short": "short_long", "long": "short_long"}
    task |= {"pre_shift": "predict_shift", "pre_backchannel": "predict_backchannel"}
    place = ("conversation", "window", "speaker", "start", "end")
    assert len(found) > 20
    assert sorted([task[row["event"]], *(row[key] for key in place)] for row in found) == sorted(
        [row["task"], *(row[key] for key in place)]
        for row in scored
        if row["label"] == 1 or not row["task"].startswith("predict")
    )


def test_a_missing_manifest_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name in "events", "statistics":
        assert main([name, "--manifest", str(tmp_path / "no"), "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert error.startswith("vap-evaluate: error: ") and error.count("\n") == 1
        assert list(tmp_path.iterdir()) == []


def test_help_comes_without_loading_torch():
    code = (
        "import sys; from vap_pipeline.evaluate.__main__ import main\n"
        "try: main(['score', '--help'])\n"
        "finally: assert 'torch' not in sys.modules and 'pyarrow' not in sys.modules"
    )
    shown = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "fold-K.events.parquet" in shown.stdout

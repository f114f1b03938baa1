"""Files of scores, and the events and timelines beside them."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vap_pipeline.artefacts import score_files
from vap_pipeline.evaluate.__main__ import main as evaluate
from vap_pipeline.io.errors import InputError
from vap_pipeline.report import __main__ as anova


@pytest.fixture(scope="module")
def scored(corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a scored model."""
    folder = tmp_path_factory.mktemp("scored")
    for model in "discrete", "comparative":
        which = ["--manifest", str(corpus.manifest), "--store", str(corpus.store)]
        which += ["--checkpoint", str(corpus.checkpoint(model)), "--device", "cpu"]
        out = folder / model / "fold-0.parquet"
        assert evaluate(["score", "--corpus", "small", *which, "--out", str(out)]) == 0
    return folder


def test_what_is_written_is_read(scored: Path):
    for model in "discrete", "comparative":
        path = str(scored / model / "fold-0.parquet")
        scores = score_files.read_scores(path)
        assert scores.schema.metadata[b"encoder"] == b"random-seed0"
        assert len(score_files.read_beside(path, "events", scores)) > 100
        assert len(score_files.read_beside(path, "timeline", scores)) > 1000


@pytest.mark.parametrize("kind", ["events", "timeline"])
def test_files_of_two_evaluations_are_not_taken_together(scored: Path, tmp_path: Path, kind: str):
    shutil.copytree(scored / "discrete", tmp_path / "discrete")
    shutil.copy(scored / "comparative" / f"fold-0.{kind}.parquet", tmp_path / "discrete")
    path = str(tmp_path / "discrete" / "fold-0.parquet")
    scores = score_files.read_scores(path)
    with pytest.raises(InputError, match=f"{kind} of other scores"):
        score_files.read_beside(path, kind, scores)


def test_damaged_and_mixed_files_are_refused_in_one_line(
    scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "discrete"
    flags = ["--corpus", "small", "--scores", str(tmp_path), "--out", str(tmp_path / "out")]
    for name in ("fold-0.parquet", "fold-0.events.parquet", "fold-0.timeline.parquet"):
        shutil.copytree(scored / "discrete", folder)
        whole = (folder / name).read_bytes()
        for content in (b"PAR1 of something else", whole[: len(whole) // 2], whole.replace(b"PAR1", b"PAR2")):
            (folder / name).write_bytes(content)
            assert anova.main(flags) == 2
            error = capsys.readouterr().err.splitlines()[-1]
            assert f"{name}: not readable" in error and error.endswith(score_files.CURE)
        shutil.rmtree(folder)
    shutil.copytree(scored / "discrete", folder)
    table = pq.read_table(folder / "fold-0.parquet")
    seed = table.schema.get_field_index("seed")
    other = table.set_column(seed, "seed", pa.array([7] * len(table), pa.int64()))
    pq.write_table(pa.concat_tables([table, other]), folder / "fold-0.parquet")
    assert anova.main(flags) == 2
    assert "scores of 2 runs, expected one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

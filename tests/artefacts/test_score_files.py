"""Files of scores, events and timelines, and what they must not say."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from vap_pipeline.artefacts import score_files
from vap_pipeline.evaluate.__main__ import main as evaluate
from vap_pipeline.io import parquet
from vap_pipeline.io.errors import InputError
from vap_pipeline.report import __main__ as anova

NAN, INF = float("nan"), float("inf")
Forge = Callable[[pa.Table], pa.Table]


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
        of = score_files.read_scores(path)
        assert of.schema.metadata[b"encoder"] == b"random-seed0"
        assert (
            len(score_files.read_events(path, of)) > 100 and len(score_files.read_timeline(path, of)) > 1000
        )


def column(name: str, value: Any) -> Forge:
    """Put ``value`` into every cell; or what it makes of the cells, where it is a function."""

    def forge(table: pa.Table) -> pa.Table:
        at, field = table.schema.get_field_index(name), table.schema.field(name)
        cells = table[name].to_pylist()
        new = list(map(value, cells)) if callable(value) else [value] * len(cells)
        return table.set_column(at, field, pa.array(new, field.type))

    return forge


def as_type(name: str, kind: pa.DataType, value: Any) -> Forge:
    def forge(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index(name)
        return table.set_column(at, name, pa.array([value] * len(table), kind))

    return forge


FORGED: dict[str, tuple[str, Forge, str]] = {
    "no rows": ("", lambda t: t.slice(0, 0), "no rows"),
    "other columns": ("", lambda t: pa.table({"x": [1]}), "columns are x int64; they must be corpus string"),
    "a score is missing": ("", lambda t: t.slice(1), "more than there can be"),
    "a score twice": ("", lambda t: pa.concat_tables([t.slice(1), t.slice(1, 1)]), "twice"),
    "two runs": ("", column("seed", lambda seed: None), "empty cells"),
    "another value": ("", column("value", lambda value: value * 0.99), "events of other scores"),
    "a value that is none": ("", column("value", 1e308), "is 1e"),
    "an infinite F1": ("", column("value", INF), "is inf"),
    "no loss": ("", lambda t: t.filter(pc.not_equal(t["metric"], "loss")), "not one loss"),
    "a loss of events": ("", column("level", "event"), "twice"),
    "fewer than nothing": ("", column("support_0", -1), "of [-1"),
    "no support": ("", column("support_1", None), "None"),
    "another support": ("", column("support_1", 7), "more than there can be"),
    "no threshold": ("", column("threshold", None), "at None"),
    "a threshold of 7": ("", column("threshold", 7.0), "at 7"),
    "a threshold that is none": ("", column("threshold", NAN), "at nan"),
    "another threshold": ("", column("threshold", 0.01), "events of other scores"),
    "an encoder that is no text": (
        "",
        lambda t: t.replace_schema_metadata(t.schema.metadata | {b"encoder": b"\xff\xfe"}),
        "encoder is no text",
    ),
    "an encoder of two lines": (
        "",
        lambda t: t.replace_schema_metadata(t.schema.metadata | {b"encoder": b"a\n# b"}),
        "encoder is no text",
    ),
    "no events": ("events", lambda t: t.slice(0, 0), "events of other scores"),
    "other columns of events": ("events", lambda t: t.drop_columns("label"), "its columns are"),
    "a column twice": ("events", lambda t: t.append_column("label", t["label"]), "its columns are"),
    "an event twice": ("events", lambda t: pa.concat_tables([t, t.slice(0, 1)]), "more than there can be"),
    "a label of 2": ("events", column("label", 2), "a label 2"),
    "a label of -1": ("events", column("label", -1), "a label -1"),
    "no label": ("events", column("label", None), "empty cells"),
    "the other label": ("events", column("label", lambda label: 1 - label), "events of other scores"),
    "an unknown task": ("events", column("task", "x"), "a task 'x'"),
    "no task": ("events", column("task", None), "empty cells"),
    "one task": ("events", column("task", "predict_backchannel"), "events of other scores"),
    "a speaker of 2": ("events", column("speaker", 2), "a speaker 2"),
    "probabilities of 2": ("events", column("probabilities", lambda p: [2.0 for _ in p]), "that are none"),
    "NaN": ("events", column("probabilities", lambda p: [NAN for _ in p]), "that are none"),
    "no probabilities": ("events", column("probabilities", None), "empty cells"),
    "none inside": ("events", column("probabilities", lambda p: [None for _ in p]), "empty cells"),
    "empty lists": ("events", column("probabilities", []), "that are none"),
    "other probabilities": ("events", column("probabilities", [0.5]), "events of other scores"),
    "another mean": ("events", column("probability", 0.5), "events of other scores"),
    "an infinite mean": ("events", column("probability", INF), "that are none"),
    "times that are none": ("events", column("end_s", NAN), "times"),
    "backwards": ("events", column("start_s", 1e6), "times"),
    "doubles": ("events", as_type("probabilities", pa.list_(pa.float64()), [0.5]), "its columns are"),
    "text": ("events", as_type("probabilities", pa.list_(pa.string()), ["x"]), "its columns are"),
    "a number, no list": ("events", as_type("probabilities", pa.float32(), 0.5), "its columns are"),
    "tasks as numbers": ("events", as_type("task", pa.int64(), 1), "its columns are"),
    "no frames": ("timeline", lambda t: t.slice(0, 0), "not one conversation"),
    "one frame": ("timeline", lambda t: t.slice(0, 1), "not one conversation"),
    "no conversation": ("timeline", column("conversation", None), "empty cells"),
    "a name of two lines": ("timeline", column("conversation", "a\nb"), "name"),
    "a long name": ("timeline", column("conversation", "x" * 100_000), "name"),
    "one frame over and over": ("timeline", column("frame", 7), "one after the other"),
    "frames before the first": ("timeline", column("frame", lambda frame: frame - 10**6), "one after"),
    "voice activity of 2": ("timeline", column("va_0", 2), "voice activity"),
    "p is none": ("timeline", column("p_0", NAN), "that are none"),
    "p is empty": ("timeline", column("p_1", None), "empty cells"),
    "p_bc is none": ("timeline", column("p_bc_1", NAN), "that are none"),
}


def forge(folder: Path, which: str, change: Forge) -> None:
    """Change one of the three files of a scored model, and all checksums with it."""
    path = folder / "discrete" / f"fold-0{'.' * bool(which)}{which}.parquet"
    content = parquet.encode(change(pq.read_table(path)))
    if which:
        path.write_bytes(content)
        path = folder / "discrete" / "fold-0.parquet"
        of = pq.read_table(path)
        content = parquet.encode(
            of.replace_schema_metadata(of.schema.metadata | {which.encode(): parquet.stamp(content)})
        )
    path.write_bytes(content)


@pytest.mark.parametrize("forged", FORGED)
def test_forged_files_are_refused_in_one_line(
    scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], forged: str
):
    which, change, said = FORGED[forged]
    shutil.copytree(scored / "discrete", tmp_path / "discrete")
    forge(tmp_path, which, change)
    assert anova.main(["--corpus", "small", "--scores", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("vap-anova: error: ") and said in error and error.endswith(score_files.CURE)
    assert not (tmp_path / "out").exists()


def test_a_conversation_whose_name_looks_like_a_formula(scored: Path, tmp_path: Path):
    shutil.copytree(scored, tmp_path / "scores")
    forge(tmp_path / "scores", "timeline", column("conversation", "$x_{"))
    which = ["--scores", str(tmp_path / "scores"), "--out", str(tmp_path / "out")]
    assert anova.main(["--corpus", "small", *which]) == 0


@pytest.mark.parametrize("which", [".events", ".timeline"])
def test_files_of_two_evaluations_are_not_taken_together(scored: Path, tmp_path: Path, which: str):
    shutil.copytree(scored / "discrete", tmp_path / "discrete")
    shutil.copy(scored / "comparative" / f"fold-0{which}.parquet", tmp_path / "discrete")
    path = str(tmp_path / "discrete" / "fold-0.parquet")
    of = score_files.read_scores(path)
    read = score_files.read_events if which == ".events" else score_files.read_timeline
    with pytest.raises(InputError, match=f"{which[1:]} of other scores"):
        read(path, of)


def test_files_that_are_none_or_grow_beyond_measure(scored: Path, tmp_path: Path):
    path = tmp_path / "fold-0.parquet"
    path.write_bytes(b"PAR1 of something else")
    with pytest.raises(InputError, match=r"fold-0.parquet: not readable"):
        score_files.read_scores(str(path))
    of = pq.read_table(scored / "discrete" / "fold-0.parquet")
    pq.write_table(of, path, compression="zstd")
    with pytest.raises(InputError, match="compressed with zstd"):
        score_files.read_scores(str(path))
    pq.write_table(column("corpus", "x" * (1 << 27))(of), path)
    with pytest.raises(InputError, match="more than a gigabyte"):
        score_files.read_scores(str(path))
    pq.write_table(pa.concat_tables([of] * 3), path)
    with pytest.raises(InputError, match="33 rows, more than there can be"):
        score_files.read_scores(str(path))
    shutil.copytree(scored / "discrete", tmp_path / "discrete")
    path = tmp_path / "discrete" / "fold-0.parquet"
    few = column("support_1", 1)(column("support_0", 1)(of))
    with pytest.raises(InputError, match=r"events.parquet: .* rows, more than there can be"):
        score_files.read_events(str(path), few)

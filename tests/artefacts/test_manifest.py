"""Manifests: written and read back, refused when a rule is broken, whole or not there."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vap_pipeline.artefacts import manifest
from vap_pipeline.artefacts.manifest import SCHEMA, Conversation, Manifest
from vap_pipeline.io.errors import InputError

Row = tuple[str, int, float, float]
ROWS: list[Row] = [("a", 0, 0.0, 1.5), ("a", 0, 1.5, 2.0), ("a", 1, 0.25, 20.0), ("c", 1, 3.0, 3.0)]
CONVERSATIONS = [
    Conversation("c", "d1/c.wav", 12.3400625, "train", 0),
    Conversation("a", "", 20.0, "train", 1),
    Conversation("b", "", 30.0, "test"),
    Conversation("e", "", 10.0, ""),
]


def activity(rows: list[Row]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [[]] * 4
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


@pytest.fixture
def made() -> Manifest:
    return Manifest(list(CONVERSATIONS), activity(ROWS))


def test_what_is_written_is_read(made: Manifest, tmp_path: Path) -> None:
    manifest.write(made, tmp_path / "calls")
    assert (tmp_path / "calls" / "conversations.csv").read_text() == (
        "conversation,audio,duration_s,split,fold\n"
        "c,d1/c.wav,12.3400625,train,0\na,,20.0,train,1\nb,,30.0,test,\ne,,10.0,,\n"
    )
    assert pq.read_schema(tmp_path / "calls" / "voice_activity.parquet") == SCHEMA
    found = manifest.read(tmp_path / "calls")
    assert (found.name, found.conversations) == ("calls", made.conversations)
    assert found.voice_activity.equals(made.voice_activity)


def test_the_same_manifest_gives_the_same_bytes(made: Manifest, tmp_path: Path) -> None:
    manifest.write(made, tmp_path / "one")
    manifest.write(manifest.read(tmp_path / "one"), tmp_path / "two")
    for name in ("conversations.csv", "voice_activity.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == [
        "conversations.csv",
        "voice_activity.parquet",
    ]


def test_sets(made: Manifest) -> None:
    assert made.folds == 2
    assert made.select("all") == ["c", "a", "b", "e"]
    assert made.select("train") == ["c", "a"]
    assert made.test_set() == made.select("test") == ["b"]
    assert (made.training_set(0), made.validation_set(0)) == (["a"], ["c"])
    assert (made.training_set(1), made.validation_set(1)) == (["c"], ["a"])
    for fold in (-1, 2):
        with pytest.raises(InputError, match="has folds 0 to 1"):
            made.training_set(fold)
    with pytest.raises(InputError, match="train, test, all"):
        made.select("validation")
    with pytest.raises(InputError, match="only fold"):
        Manifest(CONVERSATIONS[:1], activity([])).training_set(0)
    with pytest.raises(InputError, match="no folds"):
        Manifest(CONVERSATIONS[2:3], activity([])).validation_set(0)


def test_segments(made: Manifest) -> None:
    found = made.segments()
    assert list(found) == ["c", "a", "b", "e"]
    channel, start_s, end_s = found["a"]
    assert channel.tolist() == [0, 0, 1] and channel.dtype == np.int8
    assert start_s.tolist() == [0.0, 1.5, 0.25] and end_s.tolist() == [1.5, 2.0, 20.0]
    assert [len(column) for column in found["b"]] == [0, 0, 0]
    assert [column.tolist() for column in found["c"]] == [[1], [3.0], [3.0]]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 900)), max_size=8), min_size=1, max_size=6)
)
def test_segments_of_any_manifest(conversations: list[list[tuple[int, int]]]) -> None:
    rows = [(f"c{i}", c, t / 100, t / 100) for i, cs in enumerate(conversations) for c, t in sorted(cs)]
    made = Manifest(
        [Conversation(f"c{i}", "", 10.0, "test") for i in range(len(conversations))], activity(rows)
    )
    manifest.check(made)
    for name, columns in made.segments().items():
        mine = list(zip(*(column.tolist() for column in columns), strict=True))
        assert mine == [row[1:] for row in rows if row[0] == name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conversation": "a"}, "conversation a: listed twice"),
        ({"conversation": "../x"}, "'../x': a name must have"),
        ({"conversation": "x/y"}, "no slash"),
        ({"conversation": "x\\y"}, "no slash"),
        ({"conversation": "__x"}, "no '.' or '__' at the start"),
        ({"conversation": ""}, "1 to 200 bytes"),
        ({"conversation": "x\0"}, "odd characters"),
        ({"conversation": " x"}, "odd characters"),
        ({"conversation": "x" * 300}, "1 to 200 bytes"),
        ({"audio": "/etc/passwd"}, "conversation c: audio '/etc/passwd' must be a path below"),
        ({"audio": "d/../../x.wav"}, "below the audio folder"),
        ({"audio": "x\n.wav"}, "below the audio folder"),
        ({"duration_s": 9.99}, "conversation c: 9.99 s long"),
        ({"duration_s": float("nan")}, "conversation c: nan s long"),
        ({"duration_s": float("inf")}, "conversation c: inf s long"),
        ({"duration_s": 1e300}, "more than a day"),
        ({"split": "validation"}, "conversation c: split 'validation'"),
        ({"fold": None}, "train needs a fold"),
        ({"split": "test"}, "test and '' have none"),
        ({"split": ""}, "test and '' have none"),
        ({"fold": 2}, "fold 0 has no conversations"),
        ({"fold": -1}, "fold 0 has no conversations"),
    ],
)
def test_a_conversation_that_breaks_a_rule(made: Manifest, change: dict, message: str) -> None:
    made.conversations[0] = replace(made.conversations[0], **change)
    made.voice_activity = activity([])
    with pytest.raises(InputError, match=message):
        manifest.check(made)


def test_a_manifest_of_nothing() -> None:
    with pytest.raises(InputError, match="no conversation"):
        manifest.check(Manifest([], activity([])))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", 2, 1.0, 2.0)], "conversation a: channel 2 .* only channels 0 and 1"),
        ([("a", 0, -1.0, 2.0)], "from -1.000000 to 2.000000 s: times must be numbers from 0"),
        ([("a", 0, float("nan"), 2.0)], "times must be numbers"),
        ([("a", 0, 1.0, float("inf"))], "times must be numbers"),
        ([("a", 0, 2.0, 1.0)], "ends before it starts"),
        ([("a", 0, 2.0, 20.001)], "ends after the conversation"),
        ([("a", 1, 1.0, 2.0), ("a", 0, 3.0, 4.0)], "channel 0 comes first"),
        ([("a", 0, 1.0, 2.0), ("a", 0, 1.9, 4.0)], "starts before the segment above it has ended"),
        ([("a", 0, 1.0, 2.0), ("a", 0, 0.0, 0.5)], "starts before the segment above it has ended"),
        ([("c", 0, 1.0, 2.0), ("a", 0, 3.0, 4.0)], "conversation a: its voice activity is not sorted"),
        ([("a", 0, 1.0, 2.0), ("c", 0, 3.0, 4.0), ("a", 0, 5.0, 6.0)], "not sorted"),
        ([("z", 0, 1.0, 2.0)], "conversation z: .* not listed"),
    ],
)
def test_voice_activity_that_breaks_a_rule(made: Manifest, rows: list[Row], message: str) -> None:
    made.voice_activity = activity(rows)
    with pytest.raises(InputError, match=message):
        manifest.check(made)


def test_segments_may_touch_and_overlap_the_other_speaker(made: Manifest) -> None:
    made.voice_activity = activity(
        [("a", 0, 1.0, 2.0), ("a", 0, 2.0, 3.0), ("a", 1, 1.0, 2.0), ("b", 0, 0.0, 1.0)]
    )
    manifest.check(made)


def test_nothing_is_written_that_cannot_be_read(made: Manifest, tmp_path: Path) -> None:
    made.conversations[0] = replace(made.conversations[0], fold=5)
    with pytest.raises(InputError):
        manifest.write(made, tmp_path / "calls")
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "conversations.csv: the first line must be conversation,audio,"),
        ("conversation,audio\n", "the first line must be"),
        ("conversation,audio,duration_s,split,fold\na,,20.0,train\n", "line 2: .* does not fit the columns"),
        ("conversation,audio,duration_s,split,fold\na,,long,train,0\n", "line 2"),
        ("conversation,audio,duration_s,split,fold\na,,20.0,train,x\n", "line 2"),
        ("conversation,audio,duration_s,split,fold\n\na,,long,train,0\n", "line 3"),
        ("conversation,audio,duration_s,split,fold\n", "has no conversations"),
        ('conversation,audio,duration_s,split,fold\n"a,,20.0\n', "not a table in UTF-8"),
        (b"conversation,audio,duration_s,split,fold\n\xff,,20.0,train,0\n", "not a table in UTF-8"),
    ],
)
def test_a_broken_table(made: Manifest, tmp_path: Path, text: str | bytes, message: str) -> None:
    manifest.write(made, tmp_path)
    (tmp_path / "conversations.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as caught:
        manifest.read(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_broken_voice_activity(made: Manifest, tmp_path: Path) -> None:
    manifest.write(made, tmp_path)
    target = tmp_path / "voice_activity.parquet"
    pq.write_table(
        made.voice_activity.rename_columns(["conversation", "speaker", "start_s", "end_s"]), target
    )
    with pytest.raises(InputError, match="no column channel; it has conversation, speaker"):
        manifest.read(tmp_path)
    lacking = activity(ROWS).set_column(2, "start_s", pa.array([0.0, None, 0.25, 3.0], pa.float64()))
    pq.write_table(lacking, target)
    with pytest.raises(InputError, match="empty cells"):
        manifest.read(tmp_path)
    target.write_bytes(b"")
    with pytest.raises(InputError, match=r"voice_activity.parquet: not readable as Parquet"):
        manifest.read(tmp_path)
    target.unlink()
    with pytest.raises(InputError, match=r"voice_activity.parquet: no such file"):
        manifest.read(tmp_path)
    with pytest.raises(InputError, match=r"conversations.csv: no such file"):
        manifest.read(tmp_path / "nowhere")


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
def test_voice_activity_that_pandas_wrote(made: Manifest, tmp_path: Path, compression: str) -> None:
    """With an index column, wide types, and any compression."""
    manifest.write(made, tmp_path)
    table = made.voice_activity
    table = table.set_column(0, "conversation", table["conversation"].cast(pa.large_string()))
    table = table.set_column(1, "channel", table["channel"].cast(pa.int64()))
    table = table.append_column("__index_level_0__", pa.array(range(len(table))))
    pq.write_table(
        table.replace_schema_metadata({"pandas": "{}"}),
        tmp_path / "voice_activity.parquet",
        compression=compression,
    )
    assert manifest.read(tmp_path).voice_activity.equals(made.voice_activity)


@pytest.mark.parametrize("name", ["conversations.csv", "voice_activity.parquet"])
def test_garbled_files_are_refused_or_valid(made: Manifest, tmp_path: Path, name: str) -> None:
    manifest.write(made, tmp_path)
    whole = (tmp_path / name).read_bytes()
    rng = random.Random(name)
    refused = 0
    for _ in range(150):
        garbled = bytearray(whole)
        for _ in range(rng.choice((1, 1, 3))):
            garbled[rng.randrange(len(garbled))] ^= 1 << rng.randrange(8)
        if rng.random() < 0.2:
            del garbled[rng.randrange(len(garbled)) :]
        (tmp_path / name).write_bytes(garbled)
        try:
            manifest.check(manifest.read(tmp_path))
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 50


def test_an_unwritable_folder(made: Manifest, tmp_path: Path) -> None:
    (tmp_path / "calls").write_text("a file where the folder should be")
    with pytest.raises(InputError, match="cannot be written"):
        manifest.write(made, tmp_path / "calls")

"""Tables of segments and of words, and the three real dialogues."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vap_pipeline.artefacts import manifest
from vap_pipeline.artefacts.manifest import Manifest
from vap_pipeline.corpora import segments
from vap_pipeline.io.errors import InputError

HEADER = "conversation,channel,start_s,end_s\n"
WORDS = [
    {"speaker": "B", "word": "hi", "start": 1.0, "end": 2.0},
    {"speaker": "A", "word": "hello", "start": 0.5, "end": 0.75},
    {"speaker": "B", "word": "there", "start": 2.04, "end": 3.0},
    {"speaker": "B", "word": "nested", "start": 2.2, "end": 2.4},
    {"speaker": "B", "word": "you", "start": 3.06, "end": 4.0},
]


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """Five conversations of 12 s, one in an inner folder, besides what is no audio."""
    folder = tmp_path / "audio"
    (folder / "more").mkdir(parents=True)
    for name in ("a", "b", "c", "d", "more/e"):
        soundfile.write(folder / f"{name}.wav", np.zeros((96_000, 2)), 8000)
    (folder / "notes.txt").write_text("nothing")
    return folder


def table(path: Path, content: object) -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def rows_of(found: Manifest) -> list[tuple]:
    return list(zip(*(column.to_pylist() for column in found.voice_activity.columns), strict=True))


ROWS = "e,1,0.5,1.5\na,0,3.0,4.0\na,0,1.0,2.0\na,0,2.01,3.0\na,1,0,12\nb,B,5,6.25\nc,0,1,2\nd,0,1,1\n"
SORTED = [
    ("a", 0, 1.0, 2.0),  # 10 ms before the next: segments that do not touch stay apart
    ("a", 0, 2.01, 4.0),
    ("a", 1, 0.0, 12.0),
    ("b", 1, 5.0, 6.25),
    ("c", 0, 1.0, 2.0),
    ("d", 0, 1.0, 1.0),
    ("e", 1, 0.5, 1.5),
]


def test_a_table_of_segments(audio: Path, tmp_path: Path) -> None:
    found = segments.read(audio, [table(tmp_path / "calls.csv", HEADER + ROWS)], test=1, folds=2)
    manifest.check(found)
    assert rows_of(found) == SORTED
    assert [(c.conversation, c.audio, c.duration_s) for c in found.conversations] == [
        ("a", "a.wav", 12.0),
        ("b", "b.wav", 12.0),
        ("c", "c.wav", 12.0),
        ("d", "d.wav", 12.0),
        ("e", "more/e.wav", 12.0),
    ]


def test_the_same_table_in_json_and_in_parts(audio: Path, tmp_path: Path) -> None:
    rows = [dict(zip(HEADER.strip().split(","), row, strict=True)) for row in SORTED]
    whole = segments.read(audio, [table(tmp_path / "calls.csv", HEADER + ROWS)], 1, 2)
    as_json = segments.read(audio, [table(tmp_path / "calls.json", rows)], 1, 2)
    parts = [table(tmp_path / "1.json", rows[:2]), table(tmp_path / "2.json", rows[2:])]
    excel = table(tmp_path / "excel.csv", b"\xef\xbb\xbf" + (HEADER + ROWS).replace("\n", "\r\n").encode())
    for found in (as_json, segments.read(audio, parts, 1, 2), segments.read(audio, [excel], 1, 2)):
        assert rows_of(found) == SORTED and found.conversations == whole.conversations


def test_words_become_segments(audio: Path, tmp_path: Path) -> None:
    folder = tmp_path / "words"
    folder.mkdir()
    for name in "abcde":
        table(folder / f"{name}.json", WORDS)
    table(folder / ".hidden.json", "not read")
    table(folder / "readme.txt", "not read")
    found = segments.read(audio, [folder], 1, 2)
    manifest.check(found)
    mine = [row for row in rows_of(found) if row[0] == "c"]
    assert mine == [("c", 0, 0.5, 0.75), ("c", 1, 1.0, 3.0), ("c", 1, 3.06, 4.0)]


def test_folds_are_seeded_and_whole(audio: Path, tmp_path: Path) -> None:
    calls = [table(tmp_path / "calls.csv", HEADER + ROWS)]
    seen = set()
    for seed in range(20):
        found = segments.read(audio, calls, test=2, folds=3, seed=seed)
        assert found.conversations == segments.read(audio, calls, 2, 3, seed).conversations
        assert sorted(len(found.validation_set(fold)) for fold in range(3)) == [1, 1, 1]
        assert len(found.test_set()) == 2
        seen.add(tuple(found.test_set()))
    assert len(seen) > 5
    assert len(segments.read(audio, calls, test=None, folds=2).test_set()) == 1
    assert segments.read(audio, calls, test=0, folds=5).test_set() == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "t.csv: no column start_s; the first line must name"),
        ("t.csv", HEADER, "t.csv: no rows"),
        ("t.csv", "conversation,channel,start_s\na,0,1\n", "t.csv: no column end_s"),
        ("t.csv", HEADER + "a,0,1\n", "row 1: no end; it needs"),
        ("t.csv", HEADER + "a,0,1,2,3\n", "row 1: 5 cells, but 4 columns; quote decimal commas"),
        ("t.csv", HEADER + "a,0,1,2\na,2,3,4\n", "name channels '0' and '2'"),
        ("t.csv", HEADER + "a,0,one,2\n", "row 1: start is 'one'"),
        ("t.csv", HEADER + "a,0,1_0,20\n", "row 1: start is '1_0'"),
        ("t.csv", HEADER + "a,0,nan,2\n", "row 1: start is 'nan'"),
        ("t.csv", HEADER + "a,0,-1.5,2\n", "row 1: from -1.5 to 2 s"),
        ("t.csv", HEADER + "a,0,1,inf\n", "row 1: end is 'inf'"),
        ("t.csv", HEADER + "a,0,2,1\n", "row 1: ends at 1 s, before it starts at 2 s"),
        ("t.csv", HEADER + "a,0,1,13.5\n", "conversation a: its speech ends 1.50 s after"),
        ("t.csv", HEADER + "../z,0,1,2\n", "conversation ../z: no audio below"),
        ("t.csv", HEADER.encode() + b"\xff,0,1,2\n", "t.csv: not text in UTF-8"),
        ("t.csv", HEADER + '"a,0,1,2\n', "t.csv: not a CSV table"),
        ("t.json", "[", "t.json: not JSON"),
        ("t.json", b"\xff[]", "t.json: not text in UTF-8"),
        ("t.json", "[" * 100_000, "t.json: not JSON"),
        ("t.json", "{}", "t.json: expected a list of rows"),
        ("t.json", "[]", "t.json: no rows"),
        ("t.json", "[1]", "row 1: needs conversation"),
        ("t.json", [{"conversation": "a", "channel": 0, "start_s": True, "end_s": 2}], "start is True"),
        ("t.json", [{"conversation": "a", "channel": 0, "start_s": [1], "end_s": 2}], r"start is \[1\]"),
        ("t.json", [{"conversation": "a", "channel": 0, "start_s": 1, "end_s": 10**400}], "end is 1000"),
        ("t.json", [{"conversation": "a", "channel": 0, "start_s": math.nan, "end_s": 2}], "start is nan"),
        (
            "t.json",
            [{"conversation": "a", "channel": None, "start_s": 1, "end_s": 2}],
            "row 1: no channel nor speaker",
        ),
        ("a.json", [{"speaker": "C", "start": 1, "end": 2}], "row 1: channel is 'C'; it must be 0 or 1"),
        ("a.json", [{"speaker": "A", "start": 1}], "a.json: no column end_s"),
        ("a.json", [{"speaker": "A", "start": 2, "end": 1}], "row 1: ends at 1 s"),
        ("x.json", [{"speaker": "A", "start": 1, "end": 2}], "conversation x: no audio"),
        ("t.txt", "not read", "t.txt: no column start_s"),
        ("t.pdf", "", "t.pdf: not a table"),
    ],
)
def test_a_broken_table(audio: Path, tmp_path: Path, name: str, content: object, message: str) -> None:
    for other in ("b", "c", "d", "more/e"):
        (audio / f"{other}.wav").unlink()
    with pytest.raises(InputError, match=message) as caught:
        segments.read(audio, [table(tmp_path / name, content)], 0, 2)
    assert "\n" not in str(caught.value)


def test_missing_tables_and_folders(audio: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for missing, message in (
        (tmp_path / "empty", "no label files in this folder"),
        (tmp_path / "no.csv", "no such file"),
    ):
        with pytest.raises(InputError, match=message):
            segments.read(audio, [missing], 0, 2)
    with pytest.raises(InputError, match="no such folder"):
        segments.read(tmp_path / "nowhere", [table(tmp_path / "calls.csv", HEADER + ROWS)], 0, 2)


def test_faulty_conversations_are_left_out(
    audio: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    soundfile.write(audio / "b.wav", np.zeros(96_000), 8000)  # one channel
    soundfile.write(audio / "f.wav", np.zeros((96_000, 2)), 8000)  # nobody's
    (audio / "c.wav").write_bytes(b"")
    calls = [table(tmp_path / "calls.csv", HEADER + ROWS + "d,0,3,2\n")]  # ends before it starts
    with pytest.raises(InputError, match="conversation f: no transcripts"):
        segments.read(audio, calls, 0, 2)
    found = segments.read(audio, calls, 0, 2, on_error="skip")
    manifest.check(found)
    assert found.select() == ["a", "e"]
    for message in (
        "f: no transcripts",
        "b.wav: 1 channel",
        "c.wav: cannot be read as audio",
        "row 9: ends at 2 s",
    ):
        assert message in caplog.text


def test_a_recording_that_was_cut_short(
    audio: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The samples that are there count, and the log says what is missing."""
    path = audio / "b.wav"
    path.write_bytes(path.read_bytes()[:-4_000])
    found = segments.read(audio, [table(tmp_path / "calls.csv", HEADER + ROWS)], 0, 2)
    (cut,) = (c for c in found.conversations if c.conversation == "b")
    assert 11.8 < cut.duration_s < 12
    assert caplog.text.count("b.wav: truncated: its header declares 12.0 s of audio") == 1


def test_the_three_real_dialogues(shared: Path) -> None:
    folder = shared / "two_channel_phone"
    found = segments.read(folder, [folder], test=1, folds=2)
    manifest.check(found)
    assert [(c.conversation, c.duration_s) for c in found.conversations] == [
        ("MUL1423", 119.86),
        ("SNG0072", 101.68),
        ("SNG0480", 114.6),
    ]
    assert [len(found.select(split)) for split in ("train", "test")] == [2, 1]
    for name, (channel, start_s, end_s) in found.segments().items():
        words = json.loads((folder / f"{name}.json").read_text())
        for number, speaker in enumerate("AB"):
            mine = [(w["start"], w["end"]) for w in words if w["speaker"] == speaker]
            inside = channel == number
            assert start_s[inside][0] == mine[0][0] and end_s[inside][-1] == max(end for _, end in mine)
            for start, end in mine:  # every word lies in one segment
                assert ((start_s[inside] <= start) & (end <= end_s[inside])).sum() == 1
            assert (start_s[inside][1:] - end_s[inside][:-1] >= 0.05).all()

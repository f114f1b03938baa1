"""Tables and label files as the field has them, each with the voice activity that it must give."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vap_pipeline.artefacts import manifest
from vap_pipeline.artefacts.manifest import Manifest
from vap_pipeline.corpora import segments
from vap_pipeline.corpora.__main__ import main
from vap_pipeline.corpora.formats import registry, textgrid
from vap_pipeline.io.errors import InputError

HEADER = "conversation,channel,start_s,end_s"
TURNS = [(0, 0.5, 1.9), (1, 2.1, 3.9), (0, 4.2, 5.8), (1, 6.1, 7.9), (0, 8.2, 9.5)]
NAMES = ("call0", "call1", "call2", "call3")
ROWS = [(name, *turn) for name in NAMES for turn in TURNS]
SORTED = sorted(TURNS)


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    folder = tmp_path / "audio"
    folder.mkdir()
    for name in NAMES:
        soundfile.write(folder / f"{name}.wav", np.zeros((96_000, 2)), 8000)
    return folder


def mono(audio: Path, side: Callable[[str, int], str]) -> None:
    """Replace the recordings by a file of each speaker."""
    for name in NAMES:
        (audio / f"{name}.wav").unlink()
        for number in (0, 1):
            path = audio / side(name, number)
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, np.zeros(96_000), 8000)


def table(path: Path, rows: list[tuple], header: str = HEADER, separator: str = ",") -> Path:
    lines = [header.replace(",", separator), *(separator.join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def turns(found: Manifest) -> dict[str, list[tuple[int, float, float]]]:
    return {
        name: list(zip(*(column.tolist() for column in columns), strict=True))
        for name, columns in found.segments().items()
    }


def same(found: Manifest) -> None:
    manifest.check(found)
    assert turns(found) == dict.fromkeys(NAMES, SORTED)


@pytest.mark.parametrize(
    ("header", "separator"),
    [
        (HEADER, ";"),
        (HEADER, "\t"),
        (HEADER, ", "),
        (HEADER.title(), ","),
        ("Call ID,Speaker,Start Time,End Time", "|"),
        ("recordingId,channelIndex,startTime (s),endTime (s)", ","),
        ("file,side,onset,stop", ","),
    ],
)
def test_dialects_of_csv(audio: Path, tmp_path: Path, header: str, separator: str) -> None:
    path = table(tmp_path / "t.csv", [*ROWS, ("", "", "", "")], header, separator)
    same(segments.read(audio, [path], 1, 2))


def test_decimal_commas_and_the_note_of_a_spreadsheet(audio: Path, tmp_path: Path) -> None:
    rows = [(n, c, f'"{s}"'.replace(".", ","), str(e).replace(".", ",")) for n, c, s, e in ROWS]
    path = table(tmp_path / "t.csv", rows, separator=";")
    path.write_bytes(b"\xef\xbb\xbfsep=;\r\n" + path.read_bytes().replace(b"\n", b"\r\n"))
    same(segments.read(audio, [path], 1, 2))


def test_names_with_the_suffix_of_the_audio(audio: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", [(f"wavs/{n}.WAV", *turn) for n, *turn in ROWS])
    same(segments.read(audio, [path], 1, 2))


def test_names_of_channels_that_the_user_explains(audio: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", [(n, ("agent", "customer")[c], s, e) for n, c, s, e in ROWS])
    with pytest.raises(InputError, match=r"row 1: channel is 'agent'; .*as in --channels agent,customer"):
        segments.read(audio, [path], 1, 2)
    same(segments.read(audio, [path], 1, 2, channels=("agent", "customer")))
    swapped = segments.read(audio, [path], 1, 2, channels=("Customer", "Agent"))
    assert turns(swapped)["call0"] == sorted((1 - c, s, e) for c, s, e in TURNS)


def test_milliseconds(audio: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", [(n, c, round(s * 1000), round(e * 1000)) for n, c, s, e in ROWS])
    with pytest.raises(
        InputError, match=r"call0: its speech ends at 9500 s, its audio at 12 s; .* --unit ms"
    ):
        segments.read(audio, [path], 1, 2)
    same(segments.read(audio, [path], 1, 2, unit="ms"))


def test_calls_of_harper_valley(audio: Path, tmp_path: Path) -> None:
    """Milliseconds, durations, channels from 1; the caller's file is channel 1 there, and here the second."""
    mono(audio, lambda name, number: f"{('caller', 'agent')[number]}/{name}.wav")
    (tmp_path / "transcript").mkdir()
    rows = [
        {
            "channel_index": c + 1,
            "speaker_role": ("caller", "agent")[c],
            "start_ms": round(s * 1000),
            "duration_ms": round((e - s) * 1000),
            "start_timestamp_ms": 1591056064136,
        }
        for c, s, e in TURNS
    ]
    for name in NAMES:
        (tmp_path / f"transcript/{name}.json").write_text(json.dumps(rows))
    found = segments.read(audio, [tmp_path / "transcript"], 1, 2)
    assert found.conversations[0].audio == "agent/call0.wav|caller/call0.wav"
    assert turns(found)["call3"] == sorted((1 - c, s, e) for c, s, e in TURNS)
    same(segments.read(audio, [tmp_path / "transcript"], 1, 2, channels=("caller", "agent")))


def test_files_of_two_speakers(audio: Path, tmp_path: Path) -> None:
    mono(audio, lambda name, number: f"{name}_{'AB'[number]}.wav")
    whole = segments.read(audio, [table(tmp_path / "t.csv", ROWS)], 1, 2)
    same(whole)
    assert whole.conversations[0].audio == "call0_A.wav|call0_B.wav"
    by_file = [(f"{n}_{'AB'[c]}.wav", s, e) for n, c, s, e in ROWS]
    same(segments.read(audio, [table(tmp_path / "f.csv", by_file, "file,start,end")], 1, 2))
    column = [(f"x-{n}", c, s, e, f"{n}_{'AB'[c]}.wav") for n, c, s, e in ROWS]
    named = segments.read(audio, [table(tmp_path / "a.csv", column, f"{HEADER},audio")], 1, 2)
    assert [c.audio for c in named.conversations] == [c.audio for c in whole.conversations]
    assert turns(named) == {f"x-{name}": SORTED for name in NAMES}
    manifest.write(named, tmp_path / "m")
    assert manifest.read(tmp_path / "m").conversations == named.conversations
    third = [(*row[:4], f"{row[0][2:]}_{'AB'[i % 2]}.wav") for i, row in enumerate(column)]
    third[0] = (*third[0][:4], "call3_A.wav")
    with pytest.raises(InputError, match=r"x-call0: the column audio names call3_A\.wav, call0_A\.wav"):
        segments.read(audio, [table(tmp_path / "b.csv", third, f"{HEADER},audio")], 1, 2)


def test_labels_in_folders_of_speakers(audio: Path, tmp_path: Path) -> None:
    for number, side in enumerate(("left", "right")):
        (tmp_path / side).mkdir()
        for name in NAMES:
            rows = [turn[1:] for turn in TURNS if turn[0] == number]
            table(tmp_path / side / f"{name}.tsv", rows, "begin,end", "\t")
    same(segments.read(audio, [tmp_path / "left", tmp_path / "right"], 1, 2))


def test_one_conversation_is_skipped_and_the_rest_goes_on(
    audio: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (audio / "old").mkdir()
    soundfile.write(audio / "old/call1.flac", np.zeros((96_000, 2)), 8000)
    (audio / "call2.wav").unlink()
    (audio / "call2.wav").symlink_to(tmp_path / "nowhere.wav")
    for name in ("call4", "call5"):
        soundfile.write(audio / f"{name}.wav", np.zeros((96_000, 2)), 8000)
    rows = [*ROWS, *(("call4", *turn) for turn in TURNS), ("call5", 0, 3, 2)]
    path = table(tmp_path / "t.csv", rows)
    with pytest.raises(InputError, match=r"call1: there are .*call1\.wav and .*old/call1\.flac; remove one"):
        segments.read(audio, [path], 1, 2)
    found = segments.read(audio, [path], 1, 2, on_error="skip")
    assert found.select() == ["call0", "call3", "call4"]
    lines = caplog.text.partition("left out:\n")[2].splitlines()
    assert len(lines) == 3
    for message in ("old/call1.flac", "call2.wav: cannot be read (No such file", "row 26: ends at 2 s"):
        assert message in caplog.text


def test_a_damaged_label_file_is_said_once(
    audio: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "labels").mkdir()
    for name in NAMES:
        table(tmp_path / f"labels/{name}.csv", TURNS, "channel,start,end")
    (tmp_path / "labels/call2.csv").write_bytes(b"\xff")
    found = segments.read(audio, [tmp_path / "labels"], 1, 2, on_error="skip")
    assert found.select() == ["call0", "call1", "call3"]
    assert len(caplog.text.partition("left out:\n")[2].splitlines()) == 1


def test_labels_of_one_conversation_in_two_formats(audio: Path, tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    folder.mkdir()
    table(folder / "t.csv", ROWS)
    (folder / "call0.rttm").write_text("SPEAKER call0 1 0 1 <NA> <NA> A <NA> <NA>\n")
    with pytest.raises(
        InputError, match=r"conversation call0: labels in .*call0\.rttm and .*t\.csv; name one"
    ):
        segments.read(audio, [folder], 1, 2)


def test_the_command_says_what_it_changed(
    audio: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [("call0", "x", 1, 2), ("call0", "x", 2, 3), ("call0", "y", 4, 12.5), ("call0", "noise", 0, 9)]
    rows += [(n, "xy"[c], s, e) for n, c, s, e in ROWS[5:]]
    path = table(tmp_path / "t.csv", rows)
    argv = ["segments", "--audio", str(audio), "--table", str(path), "--test", "1", "--folds", "2"]
    argv += ["--out", str(tmp_path / "m")]
    with caplog.at_level("INFO"):
        assert main([*argv, "--channels", "x,y"]) == 0
    assert turns(manifest.read(tmp_path / "m"))["call0"] == [(0, 1.0, 3.0), (1, 4.0, 12.0)]
    assert "overlapping, touching or repeated segments joined: 1" in caplog.text
    assert "times after the end cut: 1" in caplog.text
    assert "rows of other channels left out: noise (1)" in caplog.text
    for text in ("x", "x,", "x,x", "x,y,z"):
        with pytest.raises(SystemExit):
            main([*argv, "--channels", text])
        assert "give two names, as in agent,customer" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "conversation,channel,start_s,duration_ms\n", "start_s and duration_ms are in two units"),
        ("t.rttm", "SPEAKER call0 1 0.5\n", "line 1: 4 columns, expected 8"),
        ("t.rttm", "SPKR-INFO call0\n", "no rows"),
        ("t.ctm", "call0 1 0.5 x hm\n", "line 1: duration is 'x'"),
        ("call0.TextGrid", 'File type = "ooTextFile"\n', "not a TextGrid"),
        ("call0.eaf", "<ANNOTATION_DOCUMENT>", "not XML"),
        ("call0.eaf", "<A><TIER TIER_ID='A'><ALIGNABLE_ANNOTATION/></TIER></A>", "annotation None: no start"),
        ("t.jsonl", '{"a": 1}\n{', "line 2: not JSON"),
        ("t.jsonl.gz", "not packed", "cannot be unpacked"),
        ("call0.srt", "1\n", "no rows"),
        ("call0.json", '{"segments": [1]}', "segment 1: not an object"),
        (
            "supervisions.jsonl",
            '{"recording_id": "call0", "start": 0, "duration": 1}\n',
            "line 1: no channel",
        ),
    ],
)
def test_damaged_label_files(audio: Path, tmp_path: Path, name: str, content: str, message: str) -> None:
    for other in NAMES[1:]:
        (audio / f"{other}.wav").unlink()
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError, match=rf"{name}: .*{message}") as caught:
        segments.read(audio, [path], 1, 2)
    assert "\n" not in str(caught.value)


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "praatio.utilities.textgrid_io", None)
    with pytest.raises(InputError, match=r"install it with `pip install 'vap-pipeline\[formats\]'`"):
        textgrid.read(tmp_path / "call0.TextGrid", "")


def test_every_suffix_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["segments", "--help"])
    text = capsys.readouterr().out.lower()
    assert all(suffix in text for suffix in registry.READERS if suffix != ".ndjson")

"""Recordings in folders as people keep them, and the names by which tables and label files refer to them."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vap_pipeline.corpora import discover, layout, recordings
from vap_pipeline.io.errors import InputError

RATE_HZ = 8000


def wav(path: Path, channels: int = 2, seconds: float = 12) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros((round(RATE_HZ * seconds), channels)), RATE_HZ)


def names(root: Path, given: tuple[str, ...] = ()) -> dict[str, str]:
    return {found.name: found.audio(root) for found in discover.find(root, given).recordings}


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        ("call0_A.wav", "call0_B.wav", "call0"),
        ("call0.left.wav", "call0.right.wav", "call0"),
        ("deep/call0-ch1.wav", "deep/call0-ch2.wav", "call0"),
        ("agent/call0.wav", "caller/call0.wav", "call0"),
        ("x/A/call0.wav", "x/B/call0.wav", "call0"),
        ("call0 speaker1.flac", "call0 speaker2.wav", "call0"),
        ("V00_S0809_I00000582_P0947.wav", "V00_S0809_I00000582_P0948.wav", "V00_S0809_I00000582"),
    ],
)
def test_files_of_two_speakers_make_a_recording(tmp_path: Path, first: str, second: str, name: str) -> None:
    wav(tmp_path / second, 1, 13)
    wav(tmp_path / first, 1, 12)
    wav(tmp_path / "other.wav")
    assert names(tmp_path) == {name: f"{first}|{second}", "other": "other.wav"}
    found = discover.find(tmp_path)
    recording, side = found.match(name, [])
    assert side is None and recordings.duration_s(*recording.paths) == 13  # the longer one
    for file, expected in ((first, 0), (second, 1)):
        recording, side = found.match(file, [])
        assert side is not None and recording.sides is not None and recording.sides.index(side) == expected


def test_what_makes_no_pair(tmp_path: Path) -> None:
    for number in (1, 2):  # conversations, not speakers
        wav(tmp_path / f"session_{number}.wav")
    for number in (1, 2, 3):
        wav(tmp_path / f"day_{number}.wav", 1)
    wav(tmp_path / "call0_A.wav", 1)
    assert len(names(tmp_path)) == 6
    with pytest.raises(InputError, match=r"call0_A\.wav: 1 channel, expected one for each of two speakers"):
        recordings.duration_s(tmp_path / "call0_A.wav")
    wav(tmp_path / "call0_B.wav")
    with pytest.raises(InputError, match=r"call0_B\.wav: 2 channels, one of 2 files; a recording is"):
        recordings.duration_s(tmp_path / "call0_A.wav", tmp_path / "call0_B.wav")


def test_the_user_names_the_sides(tmp_path: Path) -> None:
    for folder in ("ann", "bob"):
        wav(tmp_path / folder / "call0.wav", 1)
    assert names(tmp_path, ("bob", "ann")) == {"call0": "bob/call0.wav|ann/call0.wav"}
    assert names(tmp_path) == {"ann_call0": "ann/call0.wav", "bob_call0": "bob/call0.wav"}


def test_files_of_one_name_are_told_apart_by_folder(tmp_path: Path) -> None:
    for session in ("monday", "tuesday"):
        wav(tmp_path / session / "mix.wav")
    found = discover.find(tmp_path)
    for reference in (
        "tuesday/mix",
        "tuesday/mix.wav",
        "tuesday_mix",
        "labels/tuesday/mix",
        "tuesday\\mix.WAV",
    ):
        recording, _ = found.match(reference, [])
        assert (recording.name, recording.audio(tmp_path)) == ("tuesday_mix", "tuesday/mix.wav")
    with pytest.raises(
        InputError, match=r"mix: there are .*monday/mix\.wav and .*tuesday/mix\.wav; remove one"
    ):
        found.match("mix", [])


def test_names_as_people_write_them(tmp_path: Path) -> None:
    wav(tmp_path / (unicodedata.normalize("NFD", "Gespräch") + ".wav"))
    found = discover.find(tmp_path)
    for reference in (
        "Gespräch",
        unicodedata.normalize("NFD", "Gespräch"),
        " Gespräch.wav ",
        "/data/Gespräch.mp3",
    ):
        assert found.match(reference, [])[0].name == "Gespräch"


def test_a_label_file_of_one_speaker_of_a_two_channel_file(tmp_path: Path) -> None:
    wav(tmp_path / "call0.wav")
    found = discover.find(tmp_path)
    for reference, side in (("call0", None), ("call0_B", "b"), ("left/call0", "left"), ("x/call0-ch2", "2")):
        assert found.match(reference, []) == (found.recordings[0], side)


def test_near_misses_are_named(tmp_path: Path) -> None:
    for name in ("call0_A", "call0_B", "interview"):
        wav(tmp_path / f"{name}.wav")
    found = discover.find(tmp_path)
    with pytest.raises(
        InputError, match=r"call0: no audio below .*; there is call0_A\.wav and call0_B\.wav: did"
    ):
        found.match("call0", [])
    with pytest.raises(InputError, match=r"there is interview\.wav: did you mean 'interview'\?"):
        found.match("intervew", [])
    with pytest.raises(InputError, match=r"zzz: no audio below .*; complete the folder"):
        found.match("zzz", [])


def test_a_link_to_nothing_is_a_line(tmp_path: Path) -> None:
    wav(tmp_path / "call0.wav")
    (tmp_path / "call1.wav").symlink_to(tmp_path / "gone.wav")
    assert set(names(tmp_path)) == {"call0", "call1"}
    with pytest.raises(InputError, match=r"call1\.wav: cannot be read \(No such file or directory\)"):
        recordings.duration_s(tmp_path / "call1.wav")


def test_the_column_audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "audio"
    for name in ("x/1.wav", "x/2.wav"):
        wav(root / name, 1)
    wav(tmp_path / "outside.wav")
    monkeypatch.chdir(tmp_path)
    for entries in (["x/1.wav", "x/2.wav"], ["x/1.wav|x/2.wav"], [str(root / "x/1.wav"), "audio/x/2.wav"]):
        assert layout.from_column(root, "call0", entries).audio(root) == "x/1.wav|x/2.wav"
    assert (
        layout.from_column(Path("audio"), "call0", [str(root / "x/2.wav")]).audio(Path("audio")) == "x/2.wav"
    )
    for entry, message in (
        ("x/3.wav", "no such file; check the column audio"),
        ("../outside.wav", "is not below .*audio; give --audio a folder above it"),
        ("x/1.wav|x/2.wav|x/1.wav", "3 files in the column audio"),
        ("x", "no such file"),
    ):
        with pytest.raises(InputError, match=f"conversation call0: .*{message}"):
            layout.from_column(root, "call0", [entry])

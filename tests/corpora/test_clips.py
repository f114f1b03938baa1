"""Clips of one speaker each become calls: who is on which channel when, and what of the sound is left."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vap_pipeline.artefacts import manifest
from vap_pipeline.audio.recording import open_recording
from vap_pipeline.corpora.__main__ import main

RATE = 16_000


def clip(path, seconds, pitch, silence=0.5, channels=1):
    """A tone with silence at both ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = 0.2 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * RATE)) / RATE)
    samples = np.pad(tone, round(silence * RATE))
    soundfile.write(path, samples if channels == 1 else np.stack([samples] * channels, 1), RATE)


@pytest.fixture
def clips(tmp_path):
    """Five speakers, of whom 30 and 40 say most."""
    for speaker, lengths in {"10": [4], "11": [5, 5], "20": [6, 5], "30": [9, 8], "40": [10, 9, 3]}.items():
        for i, seconds in enumerate(lengths):
            clip(tmp_path / "clips" / speaker / f"{speaker}-7-{i:04d}.flac", seconds, 300 + 20 * int(speaker))
    return tmp_path


def run(folder, *more):
    given = [
        "--clips",
        folder / "clips",
        "--audio",
        folder / "audio",
        "--out",
        folder / "calls",
        "--folds",
        2,
    ]
    return main([str(each) for each in ("clips", *given, "--folds", 2, *more)])


def test_calls(clips):
    assert run(clips, "--test", 1) == 0
    made = manifest.read(clips / "calls")
    names = {each.conversation: each for each in made.conversations}
    assert set(names) == {"10", "11-20", "30-40"} and made.test_set() == ["30-40"]
    assert names["10"].duration_s == 10  # filled up with silence: manifests have no shorter conversation
    channel, start_s, end_s = made.segments()["11-20"]
    # In turns: 5, 6, 5 and 5 s with half a second after each.
    assert channel.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(start_s, [0, 12, 5.5, 17.5], atol=0.05)
    np.testing.assert_allclose(end_s, [5, 17, 11.5, 22.5], atol=0.05)

    recording = open_recording(clips / "audio" / "11-20.wav")
    samples = recording.read(0, recording.samples)
    assert recording.rate == 8000 and recording.duration_s == pytest.approx(23, abs=0.1)
    for number, a, b in zip(channel.tolist(), start_s, end_s, strict=True):
        spoken = samples[round(a * 8000) : round(b * 8000)]
        assert np.abs(spoken[:, number]).max() == pytest.approx(0.5, abs=0.02)
        assert np.abs(spoken[:, 1 - number]).max() < 0.001
        spectrum = np.abs(np.fft.rfft(spoken[:, number]))
        pitch = spectrum.argmax() * 8000 / len(spoken)
        assert pitch == pytest.approx(300 + 20 * (11, 20)[number], abs=2)


def test_the_same_clips_give_the_same_bytes(clips):
    assert run(clips) == 0
    first = {path: path.read_bytes() for path in clips.rglob("*") if path.is_file()}
    assert run(clips) == 0
    assert {path: path.read_bytes() for path in clips.rglob("*") if path.is_file()} == first


def test_faulty_clips(clips, capsys, caplog):
    clip(clips / "clips" / "50-0.wav", 5, 500, channels=2)
    assert run(clips) == 2
    assert "50-0.wav: 2 channels, expected one" in capsys.readouterr().err
    assert run(clips, "--on-error", "skip") == 0
    assert "50-0.wav" in caplog.text
    (clips / "clips" / "50-0.wav").write_bytes(b"RIFF nothing")
    assert run(clips) == 2
    assert "50-0.wav: cannot be read as audio" in capsys.readouterr().err
    (clips / "clips" / "50-0.wav").unlink()
    soundfile.write(clips / "clips" / "50-0.wav", np.zeros(RATE * 5), RATE)
    assert run(clips) == 2
    assert "50-0.wav: only silence" in capsys.readouterr().err


def test_no_clips(tmp_path, capsys):
    (tmp_path / "clips").mkdir()
    assert run(tmp_path) == 2
    assert "no clips below it" in capsys.readouterr().err


@pytest.mark.parametrize("rate", [0, 1, 10**9])
def test_absurd_rates(clips, capsys, rate):
    path = clips / "clips" / "50-0.wav"
    soundfile.write(path, np.zeros(RATE), RATE)
    content = bytearray(path.read_bytes())
    content[24:28] = rate.to_bytes(4, "little")
    path.write_bytes(content)
    assert run(clips) == 2
    assert "50-0.wav: " in capsys.readouterr().err


def test_folders_whose_names_are_no_text(clips, capfd):
    odd = Path(os.fsdecode(os.fsencode(clips / "clips") + b"/\xff\xfe"))
    odd.mkdir()
    (odd / "50-0.flac").write_bytes((clips / "clips" / "10" / "10-7-0000.flac").read_bytes())
    assert run(clips) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert ": error: " in error and "50-0" in error

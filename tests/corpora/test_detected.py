"""Manifests of recordings without labels."""

import numpy as np
import soundfile

from vap_pipeline.artefacts import manifest
from vap_pipeline.audio.recording import open_recording
from vap_pipeline.audio.vad import voice_activity_of
from vap_pipeline.corpora.__main__ import main


def test_real_dialogues_without_labels(shared, tmp_path, caplog):
    """A stereo file, a pair of mono files and a broken file."""
    calls = tmp_path / "calls"
    calls.mkdir()
    source = shared / "two_channel_phone"
    for name in ("MUL1423", "SNG0072"):
        samples, rate = soundfile.read(source / f"{name}.flac")
        soundfile.write(calls / f"{name}.ogg", samples, rate)
    samples, rate = soundfile.read(source / "SNG0480.flac")
    for side, channel in zip("AB", samples.T, strict=True):
        soundfile.write(calls / f"SNG0480_{side}.wav", channel, rate)
    (calls / "broken.wav").write_bytes(b"RIFF")
    out = tmp_path / "m" / "calls"
    flags = ["vad", "--audio", str(calls), "--out", str(out), "--folds", "2"]
    assert main(flags) == 2
    assert main([*flags, "--on-error", "skip"]) == 0 and "broken.wav" in caplog.text
    made = manifest.read(out)
    assert [c.conversation for c in made.conversations] == ["MUL1423", "SNG0072", "SNG0480"]
    assert made.conversations[2].audio == "SNG0480_A.wav|SNG0480_B.wav" and made.folds == 2
    found = dict(made.activity(["SNG0480"]))["SNG0480"]
    stereo = open_recording(source / "SNG0480.flac")
    expected = voice_activity_of(stereo, len(found))
    assert np.mean(found != expected) < 0.001 and found.mean() > 0.2

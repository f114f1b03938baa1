"""The mix of the two channels: the published level by its definition, the robust one by what leaves it as it is."""

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from sounds import speech

from vap_pipeline.audio.level import gains, pieces
from vap_pipeline.audio.recording import open_recording


def by_definition(samples, rate):
    """semantics: resample; each channel by its peak if over 0.05; the mean; that by its peak if over 0.05."""
    channels = torchaudio.functional.resample(torch.from_numpy(samples.T.astype(np.float64)), rate, 16_000)
    channels = [c / c.abs().max() if c.abs().max() > 0.05 else c for c in channels]
    mixed = (channels[0] + channels[1]) / 2
    return mixed / mixed.abs().max() if mixed.abs().max() > 0.05 else mixed


@pytest.mark.parametrize("loudness", [(1, 1), (0.3, 0.02), (0.05, 0.05), (0.02, 0.02), (1, 0)])
@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_normalised_as_defined(tmp_path, loudness, rate):
    samples = (speech(24.5, rate) * loudness).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    recording = open_recording(tmp_path / "a.wav")
    out = torch.cat(list(pieces(recording, gains(recording), 2451, 2)))
    assert len(out) == 2451 * 160
    expected = by_definition(samples, rate)
    torch.testing.assert_close(out[: len(expected)].double(), expected, atol=1e-6, rtol=0)
    assert not out[len(expected) :].any()


def test_real_dialogues_are_normalised_as_defined(shared):
    for path in sorted(shared.glob("two_channel_phone/*.flac")):
        recording = open_recording(path)
        samples, rate = soundfile.read(path)
        frames = int(100 * recording.duration_s) + 1
        out = torch.cat(list(pieces(recording, gains(recording), frames, 2)))
        expected = by_definition(samples, rate)
        torch.testing.assert_close(out[: len(expected)].double(), expected, atol=1e-6, rtol=0)

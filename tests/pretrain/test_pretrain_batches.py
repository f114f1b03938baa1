"""Batches of pretraining: where their windows are, and what they depend on."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from vap_pipeline.pretrain.batches import WINDOW_SAMPLES, Batches
from vap_pipeline.pretrain.speech import Stretch
from vap_pipeline.settings.pretrain import WINDOW_FRAMES, PretrainSettings

FEW = PretrainSettings(steps=20, speakers=3, windows=8, negatives=8, seed=3)


@pytest.fixture
def stretches(tmp_path):
    """Three stretches of two speakers. Every sample is its own time, and negative in the right channel."""
    where = np.arange(30 * 16_000) / (30 * 16_000)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([where, -where], 1), 16_000, subtype="FLOAT")
    places = [("a/0", 0, 4.0, 7.0), ("a/0", 0, 20.0, 21.3), ("a/1", 1, 10.0, 12.0)]
    return [Stretch(speaker, path, *place) for speaker, *place in places]


def test_windows_are_inside_one_speakers_speech(stretches):
    batches, seen = Batches(stretches, FEW, slice(0, 3)), set()
    for i in range(5):
        batch = batches[i]
        assert batch.audio.shape == (3, 8, WINDOW_SAMPLES) and batch.negatives.shape == (3, 8)
        assert batch.negatives.min() >= 0 and batch.negatives.max() < 8 * WINDOW_FRAMES
        for windows in batch.audio:
            signs = windows.sign().unique().tolist()
            assert len(signs) == 1  # one speaker
            for window in windows:
                # The gain is unknown, so the place follows from the ratio of the first and the last sample.
                first, last = float(window[0]), float(window[-1])
                start_s = (WINDOW_SAMPLES - 1) / 16_000 * first / (last - first)
                spans = [(s.start_s, s.end_s) for s in stretches if s.channel == (signs[0] < 0)]
                assert any(a - 0.02 <= start_s and start_s + 1.28 <= b + 0.02 for a, b in spans), start_s
                assert 0.099 < window.abs().max() < 1.001
                seen.add(round(start_s))
    assert len(seen) >= 5


def test_batches_depend_on_the_seed_and_the_step_alone(stretches):
    whole = Batches(stretches, FEW, slice(0, 3))
    later = list(whole.read(7, 0, torch.device("cpu")))
    assert len(later) == 13
    for a, b in zip(whole[9], later[2], strict=True):
        assert torch.equal(a, b)
    for a, b in zip(whole[9], Batches(stretches, FEW, slice(1, 3))[9], strict=True):
        assert torch.equal(a[1:], b)
    other = Batches(stretches, replace(FEW, seed=4), slice(0, 3))
    assert not torch.equal(whole[9].audio, whole[10].audio)
    assert not torch.equal(whole[9].audio, other[9].audio)

"""Audio in pieces: the same samples as if it were whole, and a level that knows only the past."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vap_pipeline.audio.live import RunningLevel
from vap_pipeline.audio.recording import resample
from vap_pipeline.audio.resampling import Resampler


def cut(signal: torch.Tensor, lengths: list[int]) -> list[torch.Tensor]:
    pieces, start = [], 0
    for length in lengths:
        pieces.append(signal[:, start : start + length])
        start += length
    return [*pieces, signal[:, start:]]


@settings(deadline=None, max_examples=25)
@given(st.sampled_from([8000, 11025, 16000, 44100, 48000]), st.lists(st.integers(0, 3000), max_size=12))
def test_pieces_resample_as_the_whole(rate, lengths):
    signal = torch.randn(2, 9000, generator=torch.Generator().manual_seed(rate))
    whole = torch.cat(list(resample([signal], rate)), dim=1)
    resampler = Resampler(rate)
    pieces = cut(signal, lengths)
    parts = [resampler.push(piece, last=i == len(pieces) - 1) for i, piece in enumerate(pieces)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=2e-6, rtol=0)


def test_the_running_level_by_hand():
    """Channel 0 has frames of 0.5 and then 0.25, channel 1 of 0.02 and then 0.1."""
    left = torch.cat([torch.full((160,), 0.5), torch.full((160,), 0.25)])
    right = torch.cat([torch.full((160,), 0.02), torch.full((160,), 0.1)])
    mix = RunningLevel().push(torch.stack([left, right]))
    # Frame 0: (0.5/0.5 + 0.02)/2 = 0.51, divided by its peak, 0.51. Frame 1: (0.25/0.5 + 0.1/0.1)/2 = 0.75.
    assert mix[0] == pytest.approx(1.0) and mix[160] == pytest.approx(1.0)
    quiet = RunningLevel().push(torch.full((2, 160), 0.04))
    assert quiet[0] == pytest.approx(0.04)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 9), max_size=8))
def test_the_running_level_does_not_depend_on_the_cut(frames):
    signal = torch.randn(2, 160 * 30, generator=torch.Generator().manual_seed(1)) * 0.1
    whole, level = RunningLevel().push(signal), RunningLevel()
    parts = [level.push(piece) for piece in cut(signal, [160 * n for n in frames])]
    assert torch.equal(torch.cat(parts), whole)

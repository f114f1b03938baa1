"""Audio as it arrives: resampled piece by piece, and levelled by what was heard so far."""

from math import gcd

import torch
import torchaudio
from torch import Tensor

from vap_pipeline.audio.rates import HOP_SAMPLES, SAMPLE_RATE_HZ

QUIET_PEAK = 0.05  # a peak up to this is left as it is
CONTEXT_STEPS = 8  # of input samples on each side of a piece; the filter reaches at most 6.06 steps


class Resampler:
    """Resample a signal to 16 kHz in pieces of any length, to the same samples as if it were whole.

    Args:
        rate: of the signal, samples a second.
    """

    def __init__(self, rate: int) -> None:
        self._step, self._new = (value // gcd(rate, SAMPLE_RATE_HZ) for value in (rate, SAMPLE_RATE_HZ))
        self._filter = torchaudio.transforms.Resample(self._step, self._new, dtype=torch.float32)
        self._held: Tensor | None = None
        self._done = 0  # samples of `_held` that are resampled already

    def push(self, samples: Tensor, last: bool = False) -> Tensor:
        """Return the next samples (channels, any) at 16 kHz after ``samples`` (channels, n) have come.

        Args:
            last: the signal ends here, so that everything is returned.
        """
        if self._step == self._new:
            return samples
        held = samples if self._held is None else torch.cat([self._held, samples], dim=1)
        context = CONTEXT_STEPS * self._step
        end = held.shape[1] if last else max(held.shape[1] - context, 0) // self._step * self._step
        if end <= self._done:
            self._held = held
            return samples.new_zeros(len(samples), 0)
        resampled = self._filter(held)[:, self._done // self._step * self._new :]
        if not last:
            resampled = resampled[:, : (end - self._done) // self._step * self._new]
        kept = max(end - context, 0)
        self._held, self._done = held[:, kept:], end - kept
        return resampled


class RunningLevel:
    """Mix two channels as a recording's mix is made, with the peaks so far in place of the whole recording's.

    Each channel is divided by its peak up to and including the current frame of 10 ms, if that exceeds 0.05;
    the mean of the two is divided by its own peak likewise.
    """

    def __init__(self) -> None:
        self._channels, self._mix = torch.zeros(2), torch.zeros(1)

    def push(self, samples: Tensor) -> Tensor:
        """Return the mix (frames * 160,) of the next frames, ``samples`` (2, frames * 160) at 16 kHz."""
        frames = samples.unflatten(1, (-1, HOP_SAMPLES))
        scaled, self._channels = _levelled(frames, self._channels)
        mix, self._mix = _levelled(scaled.mean(0, keepdim=True), self._mix)
        return mix.flatten()


def _levelled(frames: Tensor, peak: Tensor) -> tuple[Tensor, Tensor]:
    """Divide frames (channels, frames, 160) by the peaks so far; return them and the peaks at the end."""
    if not frames.shape[1]:
        return frames, peak
    peaks = torch.maximum(frames.abs().amax(2).cummax(1).values, peak[:, None])
    gains = torch.where(peaks > QUIET_PEAK, 1 / peaks, 1.0)
    return frames * gains[..., None], peaks[:, -1]

"""Resampling to 16 kHz, in blocks or from any place, to the same samples as if the signal were whole."""

from collections.abc import Iterable, Iterator
from math import gcd

import numpy as np
import torch
import torchaudio
from torch import Tensor

from vap_pipeline.audio.rates import SAMPLE_RATE_HZ
from vap_pipeline.audio.sequential import Read

REACH_STEPS = 8  # the filter reaches at most 6.06 · step samples to each side


class Resampler:
    """Resample a signal to 16 kHz in pieces of any length, to the same samples as if it were whole.

    Args:
        rate: of the signal, samples a second.
    """

    def __init__(self, rate: int) -> None:
        self._step, self._new = _ratio(rate)
        self._filter: torch.nn.Module | None = None  # made for the type of the first samples
        self._held: Tensor | None = None
        self._done = 0  # samples of `_held` that are resampled already

    def push(self, samples: Tensor, last: bool = False) -> Tensor:
        """Return the next samples (channels, any) at 16 kHz after ``samples`` (channels, n) have come.

        Args:
            last: the signal ends here, so that everything is returned.
        """
        if self._step == self._new:
            return samples
        if self._filter is None:
            self._filter = torchaudio.transforms.Resample(self._step, self._new, dtype=samples.dtype)
        held = samples if self._held is None else torch.cat([self._held, samples], dim=1)
        context = REACH_STEPS * self._step
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


def resample(blocks: Iterable[Tensor], rate: int) -> Iterator[Tensor]:
    """Resample a signal in blocks (channels, samples) to 16 kHz, to the same samples as if it were whole."""
    resampler, block = Resampler(rate), None
    for block in blocks:
        if (heard := resampler.push(block)).shape[1]:
            yield heard
    if block is not None and (heard := resampler.push(block[:, :0], last=True)).shape[1]:
        yield heard


def resampled(read: Read, rate: int, samples: int) -> tuple[Read, int]:
    """Return a signal at 16 kHz as a function that reads it from any place, and its number of samples.

    Args:
        read: returns the samples from one number to another, (count, channels) float32, at ``rate``.
        samples: the number of its samples.
    """
    step, new = _ratio(rate)

    def read_resampled(start: int, stop: int) -> np.ndarray:
        first = max(start // new - REACH_STEPS, 0) * step
        last = min((-(-stop // new) + REACH_STEPS) * step, samples)
        block = torch.from_numpy(np.ascontiguousarray(read(first, last).T))
        skipped = start - first // step * new
        whole = torchaudio.functional.resample(block, step, new)
        return whole[:, skipped : skipped + stop - start].numpy().T

    return read_resampled, -(-samples * new // step)


def _ratio(rate: int) -> tuple[int, int]:
    common = gcd(rate, SAMPLE_RATE_HZ)
    return rate // common, SAMPLE_RATE_HZ // common

"""Resampling to 16 kHz, in blocks or from any place, to the same samples as if the signal were whole."""

from collections.abc import Iterable, Iterator
from itertools import chain
from math import gcd

import numpy as np
import torch
import torchaudio
from torch import Tensor

from vap_pipeline.audio.rates import SAMPLE_RATE_HZ
from vap_pipeline.audio.sequential import Read

REACH_STEPS = 8  # the filter reaches at most 6.06 · step samples to each side


def resample(blocks: Iterable[Tensor], rate: int) -> Iterator[Tensor]:
    """Resample a signal in blocks (channels, samples) to 16 kHz, to the same samples as if it were whole."""
    if rate == SAMPLE_RATE_HZ:
        yield from blocks
        return
    step, new = _ratio(rate)
    context = REACH_STEPS * step
    held, done = None, 0  # samples, and how many of them are resampled already
    for block in chain(blocks, [None]):
        if block is not None:
            held = block if held is None else torch.cat([held, block], dim=1)
        elif held is None:
            return
        end = held.shape[1] if block is None else max(held.shape[1] - context, 0) // step * step
        if end > done:
            resampled = torchaudio.functional.resample(held, step, new)
            yield resampled[:, done // step * new : None if block is None else end // step * new]
            kept = max(end - context, 0)
            held, done = held[:, kept:], end - kept


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

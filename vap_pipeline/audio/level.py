"""The mix of a recording's two channels at one level: what encoders are given.

``published``: each channel is divided by its peak over the conversation where that exceeds 0.05, the two are
averaged, and the mix is divided by its own peak likewise (Ekstedt & Skantze 2022, but once a conversation).
An offset, a click or a quiet recording changes the features beyond recognition.

``robust``: each channel loses its mean first, and peaks leave out the loudest frame in a thousand. A channel
whose peak is less than 3 % of the other's holds no speech: it gets the factor of the other. A recording that
is louder or quieter as a whole gives the same mix.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from vap_pipeline.audio.rates import HOP_SAMPLES, SAMPLE_RATE_HZ
from vap_pipeline.audio.resampling import resample

LevelName = Literal["published", "robust"]
QUIET_PEAK = 0.05  # published: a peak up to this is left as it is
SILENT_PEAK = 1e-4  # robust: three steps of 16 bits
SILENT_SHARE = 0.03  # robust: of the other channel's peak
FRAMES_PER_S = 100
LOUDEST_SHARE, LOUDEST_FRAMES = 0.001, 3  # of frames, and at least this many, that are no robust peak
MIX = {
    "published": "each channel, then their mean, "
    "divided by its peak over the conversation where that exceeds 0.05",
    "robust": "each channel less its mean, then their mean, divided by its peak over the conversation "
    "without the loudest thousandth of frames of 10 ms; a channel below 3 % of the other as the other",
}


def settings(level: LevelName) -> dict[str, Any]:
    """Return what a store records about the audio of its features."""
    return {"sample_rate": SAMPLE_RATE_HZ, "mix": MIX[level]}


SETTINGS = settings("published")


class Blocks(Protocol):
    """What is needed of a recording: its samples in order, in blocks (2, samples)."""

    @property
    def rate(self) -> int: ...

    def blocks(self) -> Iterator[Tensor]: ...


@dataclass(frozen=True)
class Level:
    """What makes the mix: ``means`` (2,) are subtracted, then the channels are summed with ``gains`` (2,)."""

    gains: Tensor
    means: Tensor

    def mix(self, block: Tensor) -> Tensor:
        """Return the mix (samples,) of a block (2, samples)."""
        return self.gains @ (block - self.means[:, None])


def gains(recording: Blocks, level: LevelName = "published") -> Level:
    """Measure a recording, in two passes over it.

    Raises:
        InputError: samples are missing, or NaN or infinite.
    """
    peaks, gain = (
        (_published_peaks, _published_gain) if level == "published" else (_robust_peaks, _robust_gain)
    )
    peak, means = peaks(recording.blocks(), recording.rate)
    channels = Level(gain(peak) / 2, means)
    # Resampling is linear, so the mix can be made at the recording's rate.
    mixed = (channels.mix(block)[None] for block in recording.blocks())
    return Level(channels.gains * gain(peaks(mixed, recording.rate)[0]), means)


def pieces(recording: Blocks, level: Level, frames: int, seconds: int) -> Iterator[Tensor]:
    """Yield the mix at 16 kHz in pieces (samples,) of at most ``seconds``, ``frames`` * 160 samples in all.

    A shorter recording is followed by silence, a longer one is cut. The recording is read again, as it was
    for the gains, so that memory does not grow with its length.
    """
    missing = frames * HOP_SAMPLES
    mixed = (level.mix(block)[None] for block in recording.blocks())
    for block in resample(mixed, recording.rate):
        yield from block[0, :missing].split(seconds * SAMPLE_RATE_HZ)
        missing -= min(block.shape[1], missing)
    yield from torch.zeros(missing).split(seconds * SAMPLE_RATE_HZ)


class FrameExtremes:
    """The least and greatest sample of every frame of a signal that comes in blocks."""

    def __init__(self, frame_samples: int) -> None:
        self.frame_samples, self.channels = frame_samples, 0
        self.content = bytearray()  # many small tensors, kept between large ones, would fragment the memory

    def add(self, block: Tensor) -> None:
        """Note the frames of a block (channels, samples); its last one may be shorter."""
        missing = -block.shape[1] % self.frame_samples
        framed = F.pad(block[None], (0, missing), mode="replicate")[0].unflatten(1, (-1, self.frame_samples))
        self.channels = len(block)
        self.content += torch.stack([framed.amin(2).T, framed.amax(2).T]).movedim(0, 1).numpy().tobytes()

    def all(self) -> tuple[Tensor, Tensor]:
        """Return the least and greatest samples, (channels, frames) both."""
        both = torch.frombuffer(self.content, dtype=torch.float32).unflatten(0, (-1, 2, self.channels))
        return both[:, 0].T, both[:, 1].T


def robust_peak(frame_peaks: Tensor) -> Tensor:
    """Return the peak (channels,) of all but the loudest thousandth of frames (channels, frames)."""
    left_out = max(LOUDEST_FRAMES, math.ceil(LOUDEST_SHARE * frame_peaks.shape[1]))
    return frame_peaks.topk(min(left_out + 1, frame_peaks.shape[1]), dim=1).values[:, -1]


def _published_gain(peak: Tensor) -> Tensor:
    return torch.where(peak > QUIET_PEAK, 1 / peak, 1.0)


def _robust_gain(peak: Tensor) -> Tensor:
    louder = peak.amax()
    if louder <= SILENT_PEAK:
        return torch.ones_like(peak)
    return 1 / torch.where(peak < SILENT_SHARE * louder, louder, peak)


def _published_peaks(blocks: Iterable[Tensor], rate: int) -> tuple[Tensor, Tensor]:
    """Return the peaks of channels at 16 kHz, and zeros."""
    peak = torch.zeros(())
    for block in resample(blocks, rate):
        peak = torch.maximum(peak, block.abs().amax(dim=1))
    return peak, torch.zeros_like(peak)


def _robust_peaks(blocks: Iterable[Tensor], rate: int) -> tuple[Tensor, Tensor]:
    """Return the robust peaks of channels less their means, and the means."""
    total, count, extremes = torch.zeros((), dtype=torch.float64), 0, FrameExtremes(rate // FRAMES_PER_S)
    for block in blocks:
        total = total + block.sum(1, dtype=torch.float64)
        count += block.shape[1]
        extremes.add(block)
    means = (total / count).float()
    least, greatest = extremes.all()
    return robust_peak(torch.maximum(greatest - means[:, None], means[:, None] - least)), means


MEASURES = {
    "published": (_published_peaks, _published_gain),
    "robust": (_robust_peaks, _robust_gain),
}

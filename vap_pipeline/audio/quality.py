"""How good the signal of a recording is: level, offset, clipping, silence, and channels that are alike."""

import math
from array import array
from dataclasses import dataclass

import torch
from torch import Tensor

from vap_pipeline.audio.level import FRAMES_PER_S, SILENT_SHARE, Blocks, FrameExtremes, robust_peak

CLIPPED = 0.98  # of full scale: the largest value of mu-law, 32,124 of 32,768
SILENT = 1e-3  # half the range of a frame of 10 ms without a signal
LAG_S = 0.05  # by which crosstalk may be late
# Where a warning starts:
MOST_CLIPPED, MOST_SILENT = 1e-4, 0.999  # share of samples, of frames
LEAST_PEAK = 0.05  # the published level leaves such a channel as it is
LEAST_OFFSET = 3e-3  # of full scale
ALIKE = 0.95  # correlation of the channels
CROSSTALK, MOST_CROSSTALK = 0.4, 0.2  # correlation in a second of crosstalk, share of such seconds


@dataclass(frozen=True)
class Channel:
    """One channel's signal.

    Attributes:
        peak: of all but the loudest thousandth of frames, less the offset; full scale is 1.
        offset: mean.
        clipped: share of samples at full scale.
        silent: share of frames of 10 ms without a signal.
    """

    peak: float
    offset: float
    clipped: float
    silent: float


@dataclass(frozen=True)
class Quality:
    """The signal of a recording.

    Attributes:
        channels: each channel's.
        correlation: of the two channels: 1 for copies, −1 for L = −R, 0 where one is silent.
        crosstalk: share of the seconds with a signal in which one channel holds the other, perhaps softer
            and up to 50 ms later.
    """

    channels: tuple[Channel, Channel]
    correlation: float
    crosstalk: float

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know, in plain words."""
        lines: list[str] = []
        louder = max(channel.peak for channel in self.channels)
        for number, channel in enumerate(self.channels):
            name = f"channel {number}"
            if channel.silent > MOST_SILENT:
                lines.append(f"{name} is silent")
                continue
            if channel.peak < SILENT_SHARE * louder:
                softer_db = 20 * math.log10(louder / channel.peak)
                lines.append(f"{name} is {softer_db:.0f} dB softer than the other and may hold no speech")
            elif channel.peak < LEAST_PEAK:
                lines.append(f"{name} is quiet (peak {channel.peak:.3f} of full scale)")
            if abs(channel.offset) > LEAST_OFFSET:
                lines.append(f"{name} has a DC offset of {channel.offset:.3f} of full scale")
            if channel.clipped > MOST_CLIPPED:
                lines.append(f"{name} is clipped ({channel.clipped:.2%} of the samples)")
        if self.correlation > ALIKE:
            lines.append("both channels hold the same signal")
        elif self.correlation < -ALIKE:
            lines.append("one channel is the other upside down (L = −R): their mix cancels out")
        elif self.crosstalk > MOST_CROSSTALK:
            lines.append(f"crosstalk: one channel repeats the other in {self.crosstalk:.0%} of the time")
        return tuple(lines)


def measure(recording: Blocks) -> Quality:
    """Measure a recording in one pass; memory grows by 6 MB an hour.

    Raises:
        InputError: samples are missing, or NaN or infinite.
    """
    count, clipped, sums = 0, torch.zeros(2), torch.zeros(2, dtype=torch.float64)
    products = torch.zeros(2, 2, dtype=torch.float64)
    extremes, likeness = FrameExtremes(recording.rate // FRAMES_PER_S), array("f")
    for block in recording.blocks():
        count += block.shape[1]
        clipped += (block.abs() >= CLIPPED).sum(1)
        wide = block.double()
        sums += wide.sum(1)
        products += wide @ wide.T
        extremes.add(block)
        likeness.extend(_likeness(block, recording.rate).tolist())
    means = sums / count
    covariance = products / count - means[:, None] * means
    scale = covariance.diagonal().clamp(min=0).prod().sqrt()
    least, greatest = extremes.all()
    offset = means.float()[:, None]
    peaks = robust_peak(torch.maximum(greatest - offset, offset - least))
    silent = ((greatest - least) / 2 < SILENT).float().mean(1)
    columns = torch.stack([peaks, means.float(), clipped / count, silent], 1).tolist()
    return Quality(
        (Channel(*columns[0]), Channel(*columns[1])),
        float(covariance[0, 1] / scale) if scale > SILENT**2 / 100 else 0.0,
        sum(value > CROSSTALK for value in likeness) / max(len(likeness), 1),
    )


def _likeness(block: Tensor, rate: int) -> Tensor:
    """Return the greatest correlation over lags of up to 50 ms, for each second with a signal."""
    seconds = block[:, : block.shape[1] // rate * rate].unflatten(1, (-1, rate))
    seconds = seconds - seconds.mean(2, keepdim=True)
    norms = seconds.norm(dim=2)
    has_signal = norms.amax(0) > SILENT * rate**0.5
    if not has_signal.any():
        return torch.zeros(0)
    seconds, norms = seconds[:, has_signal], norms[:, has_signal]
    size, reach = 1 << (rate + round(LAG_S * rate)).bit_length(), round(LAG_S * rate)
    spectra = torch.fft.rfft(seconds, size)
    lags = torch.fft.irfft(spectra[0].conj() * spectra[1], size)
    near = torch.cat([lags[:, : reach + 1], lags[:, -reach:]], 1).abs().amax(1)
    return near / norms.prod(0).clamp(min=1e-9)

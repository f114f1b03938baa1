"""Audio as it arrives: levelled by its peaks so far."""

import torch
from torch import Tensor

from vap_pipeline.audio.level import QUIET_PEAK
from vap_pipeline.audio.rates import HOP_SAMPLES


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

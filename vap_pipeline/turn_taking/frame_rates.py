"""Frame rates below that of voice activity and events, 100 Hz.

A frame at r Hz covers 100/r frames of 10 ms. Models may run at such a rate; events and scores stay at 100 Hz.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vap_pipeline.io.errors import InputError
from vap_pipeline.settings.events import FRAME_RATE_HZ

RATES_HZ = (100.0, 50.0, 25.0, 20.0, 12.5, 10.0, 5.0)


def stride(rate_hz: float) -> int:
    """Return how many frames of 10 ms a frame at ``rate_hz`` covers.

    Raises:
        InputError: no such rate.
    """
    if rate_hz not in RATES_HZ:
        known = ", ".join(f"{rate:g}" for rate in RATES_HZ)
        raise InputError(f"frame rate {rate_hz:g} Hz is not supported; choose from {known}")
    return round(FRAME_RATE_HZ / rate_hz)


def activity_at(va: Tensor, rate_hz: float) -> Tensor:
    """Return voice activity at ``rate_hz``: a frame is active when at least half of it is.

    Args:
        va: (..., T, 2) at 100 Hz, of any type. Past its end it counts as silence.

    Returns:
        (..., ⌈T / stride⌉, 2), 0 or 1, of the type of ``va``.
    """
    size = stride(rate_hz)
    padded = F.pad(va, (0, 0, 0, -va.shape[-2] % size))
    return (2 * padded.unflatten(-2, (-1, size)).sum(-2) >= size).to(va.dtype)


def at_frame_ends(values: Tensor, rate_hz: float) -> Tensor:
    """Return, of values (..., T, dim) at 100 Hz, those at the last 10 ms of every frame at ``rate_hz``.

    Returns:
        (..., ⌈T / stride⌉, dim); a frame that the values do not fill gets the last of them.
    """
    size = stride(rate_hz)
    filled = values[..., size - 1 :: size, :]
    if values.shape[-2] % size == 0:
        return filled
    return torch.cat([filled, values[..., -1:, :]], dim=-2)


def held(values: Tensor, rate_hz: float, frames: int) -> Tensor:
    """Return values (..., n, dim) at ``rate_hz`` as (..., frames, dim) at 100 Hz, without looking ahead.

    A value is known at the end of its frame, so it holds from the frame's last 10 ms until the next frame's
    last but one. The first value also fills the time before it.

    Raises:
        ValueError: the values end before ``frames``.
    """
    size = stride(rate_hz)
    known = values.repeat_interleave(size, dim=-2)
    first = values[..., :1, :].expand(*values.shape[:-2], size - 1, values.shape[-1])
    known = torch.cat([first, known], dim=-2)
    if known.shape[-2] < frames:
        raise ValueError(f"{values.shape[-2]} frames at {rate_hz:g} Hz do not cover {frames} at 100 Hz")
    return known[..., :frames, :]

"""Voice activity on a grid of frames, and its history.

A frame lasts 10 ms: frame f covers [f/100, (f+1)/100) s. Voice activity is an array (frames, 2), 1 where the
speaker of that channel speaks.
"""

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vap_pipeline.settings.events import FRAME_RATE_HZ

HISTORY_BOUNDS_FRAMES = (6000, 3000, 1000, 500, 0)  # frames before now at which a period of the history ends


def frames(duration_s: float) -> int:
    """Number of frames of a conversation that lasts ``duration_s`` seconds."""
    return int(_frame(np.array(duration_s))) + 1


def voice_activity(channel: np.ndarray, start_s: np.ndarray, end_s: np.ndarray, n_frames: int) -> np.ndarray:
    """Mark the frames of the segments of one conversation.

    Args:
        channel, start_s, end_s: (segments,) the speaker, 0 or 1, and the times of [start, end) in seconds.
            Segments may overlap and come in any order; what lies outside the frames is cut off.
        n_frames: length of the result.

    Returns:
        (n_frames, 2) uint8, 1 where the speaker speaks.
    """
    steps = np.zeros((n_frames + 1, 2), np.int32)
    np.add.at(steps, (_frame(start_s).clip(0, n_frames), channel), 1)
    np.add.at(steps, (_frame(end_s).clip(0, n_frames), channel), -1)
    return (steps[:-1].cumsum(0) > 0).astype(np.uint8)


def _frame(time_s: np.ndarray) -> np.ndarray:
    # The small term puts 1.15 s, which is 114.99999999999999 frames in floating point, into frame 115.
    return np.floor(FRAME_RATE_HZ * time_s + 1e-6).astype(np.int64)


def activity_history(va: Tensor, before: Tensor | None = None) -> Tensor:
    """Speaker A's share of the activity over five periods up to each frame t.

    The periods are (−∞, t−60 s], (t−60, t−30], (t−30, t−10], (t−10, t−5] and (t−5, t] (Ekstedt &
    Skantze 2022; docs/definitions.md, "Activity history"). The share is 0.5 where nobody spoke or nothing is
    there yet.

    Args:
        va: (..., frames, 2) voice activity.
        before: (..., 2) how many frames each speaker was active before the first frame given; zero when left
            out. Those frames count as more than 60 s ago, so the result is exact from frame 6000 on, and
            everywhere where ``before`` is zero.

    Returns:
        (..., frames, 5) float32. Swapping the speakers turns h into 1 − h.
    """
    active = F.pad(va.to(torch.int32).cumsum(-2, dtype=torch.int32), (0, 0, max(HISTORY_BOUNDS_FRAMES), 0))
    if before is not None:
        active = active + before.to(active)[..., None, :]
    n = va.shape[-2]
    up_to = [active.narrow(-2, max(HISTORY_BOUNDS_FRAMES) - bound, n) for bound in HISTORY_BOUNDS_FRAMES]
    periods = [up_to[0], *(later - earlier for earlier, later in pairwise(up_to))]
    spoken = torch.stack(periods, dim=-2)  # (..., frames, 5, 2)
    total = spoken.sum(-1)
    return torch.where(total > 0, spoken[..., 0] / total, 0.5)

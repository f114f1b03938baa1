"""The activity history of a stream: the same numbers as offline, from one minute of counts."""

from itertools import pairwise

import torch
from torch import Tensor

from vap_pipeline.turn_taking.voice_activity import HISTORY_BOUNDS_FRAMES

LONGEST_FRAMES = max(HISTORY_BOUNDS_FRAMES)


class RunningHistory:
    """Speaker A's share of the activity over the five periods up to each frame, as frames arrive.

    The same as :func:`vap_pipeline.turn_taking.voice_activity.activity_history` of the whole.
    """

    def __init__(self) -> None:
        # Frames active up to each of the last 6,000 frames, in a ring; before the start nobody spoke.
        self._active = torch.zeros(LONGEST_FRAMES, 2, dtype=torch.int64)
        self._frame = 0

    def push(self, va: Tensor) -> Tensor:
        """Return the history (n, 5) float32 of the next n frames of voice activity (n, 2)."""
        return torch.cat([self._push(part) for part in va.split(LONGEST_FRAMES - HISTORY_BOUNDS_FRAMES[1])])

    def _push(self, va: Tensor) -> Tensor:
        ring = self._active
        last = ring[(self._frame - 1) % LONGEST_FRAMES]
        frame = self._frame + torch.arange(len(va))
        # What the ring forgets now is what the longest period begins with.
        oldest = ring[frame % LONGEST_FRAMES]
        active = va.cumsum(0, dtype=torch.int64) + last
        ring[frame % LONGEST_FRAMES] = active
        up_to = [oldest, *(ring[(frame - bound) % LONGEST_FRAMES] for bound in HISTORY_BOUNDS_FRAMES[1:])]
        periods = [oldest, *(later - earlier for earlier, later in pairwise(up_to))]
        spoken = torch.stack(periods, dim=1)  # (n, 5, 2)
        self._frame += len(va)
        total = spoken.sum(-1)
        return torch.where(total > 0, spoken[..., 0] / total, 0.5)

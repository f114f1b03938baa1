"""Runs: the maximal stretches of frames in one state, of many windows at once.

A window has far fewer runs than frames, and what defines an event is mostly said of neighbouring runs.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# The states of a frame; the last stands for what lies outside the window.
SILENCE, ONLY_A, ONLY_B, BOTH, OUTSIDE = range(5)


@dataclass
class Runs:
    """The runs of all windows, one after the other, each attribute (runs,) int64.

    Attributes:
        window: the window a run lies in.
        start, end: its frames in the window, [start, end).
        state: SILENCE, ONLY_A, ONLY_B or BOTH; in merged runs whatever they were merged by.
        n_frames: length of a window.
    """

    window: Tensor
    start: Tensor
    end: Tensor
    state: Tensor
    n_frames: int

    @property
    def length(self) -> Tensor:
        """(runs,) frames in each run."""
        return self.end - self.start

    @property
    def last_speaker(self) -> Tensor:
        """(runs,) the state of who spoke last: a silence hands on the state before it."""
        return torch.where(self.state == SILENCE, self.before(self.state), self.state)

    def before(self, value: Tensor, outside: int = OUTSIDE) -> Tensor:
        """``value`` (runs,) of the run before each, ``outside`` at the start of a window."""
        return torch.where(self.start == 0, outside, value.roll(1))

    def after(self, value: Tensor, outside: int = OUTSIDE) -> Tensor:
        """``value`` (runs,) of the run after each, ``outside`` at the end of a window."""
        return torch.where(self.end == self.n_frames, outside, value.roll(-1))

    def merge(self, state: Tensor) -> tuple["Runs", Tensor]:
        """Merge neighbours of equal ``state`` (runs,): the coarser runs, and which runs begin one."""
        first, last = self.before(state) != state, self.after(state) != state
        return Runs(self.window[first], self.start[first], self.end[last], state[first], self.n_frames), first

    def spread(self, value: Tensor) -> Tensor:
        """``value`` (runs,) in 0 … 255 on every frame of its run: (windows, frames) uint8."""
        return value.to(torch.uint8).repeat_interleave(self.length).view(-1, self.n_frames)


def find_runs(va: Tensor) -> Runs:
    """Runs of the voice activity (windows, frames, 2) of zeros and ones."""
    va = va.to(torch.uint8)
    state = va[..., 0] + 2 * va[..., 1]
    window, start = F.pad(state[:, 1:] != state[:, :-1], (1, 0), value=True).nonzero(as_tuple=True)
    end = start.roll(-1)
    end[end == 0] = state.shape[1]
    return Runs(window, start, end, state[window, start].long(), state.shape[1])


def is_single(state: Tensor) -> Tensor:
    """Where exactly one speaker is active."""
    return (state == ONLY_A) | (state == ONLY_B)

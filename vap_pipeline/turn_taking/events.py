"""Turn-taking events in windows of voice activity (Ekstedt & Skantze 2022; docs/definitions.md, "Events").

A window is 10 s in which events can lie and 2 s of look-ahead, 1,200 frames. All windows are done at once.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vap_pipeline.turn_taking.speaker_runs import BOTH, ONLY_A, ONLY_B, SILENCE, Runs, find_runs, is_single

WINDOW = 1000
HOP = 800
LOOK_AHEAD = 200
MIN_CONTEXT = 300

EVENTS = ("shift", "hold", "pre_shift", "long", "short", "pre_backchannel")
SHIFT, HOLD, PRE_SHIFT, LONG, SHORT, PRE_BACKCHANNEL = range(len(EVENTS))

# All in frames of 10 ms.
PAD = 5  # from the start of a silence to the region of a shift or hold
REGION = 10  # length of that region
SOLO = 100  # how long one speaker alone is active, before and after the silence of a shift or hold
PRE = 50  # length of the regions before a shift and before a backchannel
ONSET = 20  # length of the regions at the start of a turn (long) and of a backchannel (short)
SHORTEST, LONGEST = 20, 100  # backchannels
SILENT_BEFORE, SILENT_AFTER = 100, 200  # the backchanneller's silence around it


@dataclass
class Events:
    """The events of k windows.

    Attributes (m events, sorted by window, event, start and speaker):
        window: (m,) int64, 0 … k−1.
        event: (m,) int8, index in ``EVENTS``.
        speaker: (m,) int8, 0 or 1: of shift, pre_shift and long the one who takes the turn, of hold the one
            who keeps it, of short and pre_backchannel the one who gives the backchannel.
        start, end: (m,) int64, the region's frames in the window, [start, end).
        non_shift: (k, 1000, 2) bool, frames in which X spoke last and whose next 2 s hold activity, all X's.
    """

    window: Tensor
    event: Tensor
    speaker: Tensor
    start: Tensor
    end: Tensor
    non_shift: Tensor


def window_starts(n_frames: int) -> Tensor:
    """(windows,) int64: the first frames of the windows of a conversation, every 8 s while 10 s fit."""
    return torch.arange(0, n_frames - WINDOW + 1, HOP) if n_frames >= WINDOW else torch.arange(0)


def windows(va: Tensor) -> Tensor:
    """Cut the voice activity (frames, 2) of a conversation into windows (windows, 1200, 2).

    The windows are views of one copy. What lies past the end of the conversation is silence.
    """
    n = len(window_starts(len(va)))
    length = max(n - 1, 0) * HOP + WINDOW + LOOK_AHEAD
    padded = F.pad(va[:length], (0, 0, 0, max(length - len(va), 0)))
    return padded.unfold(0, WINDOW + LOOK_AHEAD, HOP).transpose(1, 2)[:n]


def find_events(va: Tensor) -> Events:
    """Find the events of all windows.

    Args:
        va: (windows, 1200, 2) voice activity of zeros and ones, on any device.

    Raises:
        ValueError: the windows have another shape.
    """
    if va.ndim != 3 or va.shape[1:] != (WINDOW + LOOK_AHEAD, 2):
        raise ValueError(f"expected windows of shape (n, {WINDOW + LOOK_AHEAD}, 2), got {tuple(va.shape)}")
    runs = find_runs(va)
    window, event, speaker, start, end = torch.cat([_turns(runs), _backchannels(runs)], dim=1)
    order = (((window * len(EVENTS) + event) * WINDOW + start) * 2 + speaker).argsort()
    return Events(
        window=window[order],
        event=event[order].to(torch.int8),
        speaker=speaker[order].to(torch.int8),
        start=start[order],
        end=end[order],
        non_shift=find_non_shift(va, runs),
    )


def find_backchannels(runs: Runs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Find the backchannels anywhere in the windows, at their full length.

    Returns:
        window, speaker, start, end: (backchannels,) int64, sorted by speaker, window and start.
    """
    speaker_before = runs.before(runs.last_speaker)
    found = []
    for x, (only_x, only_y) in enumerate([(ONLY_A, ONLY_B), (ONLY_B, ONLY_A)]):
        own, first = runs.merge(((runs.state == only_x) | (runs.state == BOTH)).long())
        chosen = (
            (own.state == 1)
            & (own.length >= SHORTEST)
            & (own.length <= LONGEST)
            & (own.before(own.length, outside=0) >= SILENT_BEFORE)  # no first run of a window,
            & (own.after(own.length, outside=0) >= SILENT_AFTER)  # and no last
            & (speaker_before[first] == only_y)
        )
        window = own.window[chosen]
        found.append(torch.stack([window, torch.full_like(window, x), own.start[chosen], own.end[chosen]]))
    window, speaker, start, end = torch.cat(found, dim=1)
    return window, speaker, start, end


def _turns(runs: Runs) -> Tensor:
    """Shifts, holds, pre-shifts and longs: (5, events) window, event, speaker, start, end."""
    before, after = runs.before(runs.state), runs.after(runs.state)
    between_singles = (runs.state == SILENCE) & is_single(before) & is_single(after)
    # Filled activity: a silence inside one speaker's speech counts as that speaker's.
    filled, first = runs.merge(torch.where(between_singles & (before == after), before, runs.state))
    stretch = first.cumsum(0) - 1  # of filled activity, in which each run lies
    # At a window's first and last run these reach into another window, but such a run is between no singles.
    solo_before = runs.start - filled.start[stretch].roll(1)
    solo_after = filled.end[stretch].roll(-1) - runs.end
    chosen = (
        between_singles
        & (runs.length >= PAD + REGION)
        & (runs.start < WINDOW)
        & (runs.start + PAD >= MIN_CONTEXT)
        & (solo_before >= SOLO)
        & (solo_after >= SOLO)
    )
    window, start, end = runs.window[chosen], runs.start[chosen], runs.end[chosen]
    speaker = after[chosen] - ONLY_A
    shift = before[chosen] != after[chosen]
    kept = start + PAD + REGION < WINDOW
    long = shift & (end + ONSET < WINDOW)  # which only a kept shift can be early enough for
    return torch.cat(
        [
            _regions(window, SHIFT, speaker, start + PAD, REGION)[:, shift & kept],
            _regions(window, HOLD, speaker, start + PAD, REGION)[:, ~shift & kept],
            _regions(window, PRE_SHIFT, speaker, start - PRE, PRE)[:, shift],
            _regions(window, LONG, speaker, end, ONSET)[:, long],
        ],
        dim=1,
    )


def _backchannels(runs: Runs) -> Tensor:
    """Shorts and pre-backchannels: (5, events) window, event, speaker, start, end."""
    window, speaker, start, _ = find_backchannels(runs)
    kept = (start >= MIN_CONTEXT) & (start + ONSET < WINDOW)
    announced = kept & (start - PRE >= MIN_CONTEXT)
    return torch.cat(
        [
            _regions(window, SHORT, speaker, start, ONSET)[:, kept],
            _regions(window, PRE_BACKCHANNEL, speaker, start - PRE, PRE)[:, announced],
        ],
        dim=1,
    )


def _regions(window: Tensor, event: int, speaker: Tensor, start: Tensor, length: int) -> Tensor:
    return torch.stack([window, torch.full_like(window, event), speaker, start, start + length])


def find_non_shift(va: Tensor, runs: Runs) -> Tensor:
    """Return the frames of non-shift, (windows, 1000, 2) bool, of windows whose runs are given."""
    last_speaker = runs.spread(runs.last_speaker)
    active = F.pad(va.transpose(1, 2).cumsum(2, dtype=torch.int16), (1, 0))  # frames active before each frame
    # Whether each speaks in the next 2 s, and whether each spoke last: (windows, 2, 1000).
    speaks = active[..., 1 + LOOK_AHEAD :] > active[..., 1 : 1 + WINDOW]
    spoke = torch.stack([last_speaker == ONLY_A, last_speaker == ONLY_B], dim=1)[..., :WINDOW]
    non_shift = spoke & speaks & ~speaks.flip(1)
    non_shift[..., :MIN_CONTEXT] = False
    return non_shift.transpose(1, 2)

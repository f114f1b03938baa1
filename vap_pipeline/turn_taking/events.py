"""Turn-taking events in windows of voice activity (Ekstedt & Skantze 2022; docs/definitions.md, "Events").

A window is, with the paper's settings, 10 s that can hold events and 2 s of look-ahead, 1,200 frames. All
windows are searched at once.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vap_pipeline.settings.events import PAPER, EventSettings, in_frames
from vap_pipeline.turn_taking.speaker_runs import BOTH, ONLY_A, ONLY_B, SILENCE, Runs, find_runs, is_single

EVENTS = ("shift", "hold", "pre_shift", "long", "short", "pre_backchannel")
SHIFT, HOLD, PRE_SHIFT, LONG, SHORT, PRE_BACKCHANNEL = range(len(EVENTS))


class Lengths(NamedTuple):
    """The settings of events in frames of 10 ms."""

    window: int
    hop: int
    look_ahead: int  # behind a window: the projection window of its last frame
    min_context: int  # frames at the start of a window in which there are no events
    pad: int  # from the start of a silence to the region of a shift or hold
    region: int  # length of that region
    alone_before_shift: int
    alone_after_shift: int
    alone_before_hold: int
    alone_after_hold: int
    pre_shift: int  # length of the region before a shift
    onset: int  # length of the region at the start of a turn (long)
    non_shift_horizon: int
    shortest_backchannel: int
    longest_backchannel: int
    silence_before_backchannel: int
    silence_after_backchannel: int
    backchannel_onset: int  # length of the region at the start of a backchannel (short)
    pre_backchannel: int  # length of the region before a backchannel


@cache
def lengths(settings: EventSettings = PAPER) -> Lengths:
    """Return the settings of events in frames."""
    settings = settings.complete()
    hs, bc, metric = settings.hs, settings.bc, settings.metric
    seconds = (
        *(settings.window_s, settings.hop_s, settings.horizon_s, metric.min_context),
        *(hs.metric_pad, hs.metric_dur),
        *(hs.pre_offset_shift, hs.post_onset_shift, hs.pre_offset_hold, hs.post_onset_hold),
        *(hs.metric_pre_label_dur, hs.metric_onset_dur, hs.non_shift_horizon),
        *(bc.min_duration_frames, bc.max_duration_frames, bc.pre_silence_frames, bc.post_silence_frames),
        *(bc.metric_dur_frames, bc.metric_pre_label_dur),
    )
    return Lengths(*(in_frames(length) for length in seconds if length is not None))


@dataclass
class Events:
    """The events of k windows.

    Attributes (m events, sorted by window, event, start and speaker):
        window: (m,) int64, 0 … k−1.
        event: (m,) int8, index in ``EVENTS``.
        speaker: (m,) int8, 0 or 1: of shift, pre_shift and long the one who takes the turn, of hold the one
            who keeps it, of short and pre_backchannel the one who gives the backchannel.
        start, end: (m,) int64, the region's frames in the window, [start, end).
        non_shift: (k, window, 2) bool, frames in which X spoke last and whose next 2 s
            (``non_shift_horizon``) hold activity, all X's.
    """

    window: Tensor
    event: Tensor
    speaker: Tensor
    start: Tensor
    end: Tensor
    non_shift: Tensor


def window_starts(n_frames: int, settings: EventSettings = PAPER) -> Tensor:
    """(windows,) int64: the first frames of the windows of a conversation, every 8 s while 10 s fit."""
    window, hop = lengths(settings)[:2]
    return torch.arange(0, n_frames - window + 1, hop) if n_frames >= window else torch.arange(0)


def windows(va: Tensor, settings: EventSettings = PAPER) -> Tensor:
    """Cut the voice activity (frames, 2) of a conversation into windows (windows, window + look-ahead, 2).

    The windows are views of one copy. Frames past the end of the conversation are silent.
    """
    window, hop, look_ahead = lengths(settings)[:3]
    n = len(window_starts(len(va), settings))
    length = max(n - 1, 0) * hop + window + look_ahead
    padded = F.pad(va[:length], (0, 0, 0, max(length - len(va), 0)))
    return padded.unfold(0, window + look_ahead, hop).transpose(1, 2)[:n]


def find_events(va: Tensor, settings: EventSettings = PAPER) -> Events:
    """Find the events of all windows.

    Args:
        va: (windows, window + look-ahead, 2) voice activity of zeros and ones, on any device.

    Raises:
        ValueError: the windows have another shape.
    """
    frames = lengths(settings)
    if va.ndim != 3 or va.shape[1:] != (frames.window + frames.look_ahead, 2):
        expected = f"(n, {frames.window + frames.look_ahead}, 2)"
        raise ValueError(f"expected windows of shape {expected}, got {tuple(va.shape)}")
    runs = find_runs(va)
    window, event, speaker, start, end = torch.cat([_turns(runs, frames), _backchannels(runs, frames)], dim=1)
    order = (((window * len(EVENTS) + event) * frames.window + start) * 2 + speaker).argsort()
    return Events(
        window=window[order],
        event=event[order].to(torch.int8),
        speaker=speaker[order].to(torch.int8),
        start=start[order],
        end=end[order],
        non_shift=find_non_shift(va, runs, frames),
    )


def find_backchannels(runs: Runs, frames: Lengths) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Find the backchannels anywhere in the windows, at their full length.

    Returns:
        window, speaker, start, end: (backchannels,) int64, sorted by speaker, window and start.
    """
    speaker_before = runs.before(runs.last_speaker)
    parts = []
    for x, (only_x, only_y) in enumerate([(ONLY_A, ONLY_B), (ONLY_B, ONLY_A)]):
        activity, first = runs.merge(((runs.state == only_x) | (runs.state == BOTH)).long())
        chosen = (
            (activity.state == 1)
            & (activity.start > 0)
            & (activity.end < activity.n_frames)
            & (activity.length >= frames.shortest_backchannel)
            & (activity.length <= frames.longest_backchannel)
            & (activity.before(activity.length, outside=0) >= frames.silence_before_backchannel)
            & (activity.after(activity.length, outside=0) >= frames.silence_after_backchannel)
            & (speaker_before[first] == only_y)
        )
        window = activity.window[chosen]
        parts.append(
            torch.stack([window, torch.full_like(window, x), activity.start[chosen], activity.end[chosen]])
        )
    window, speaker, start, end = torch.cat(parts, dim=1)
    return window, speaker, start, end


def _turns(runs: Runs, frames: Lengths) -> Tensor:
    """Shifts, holds, pre-shifts and longs: (5, events) window, event, speaker, start, end."""
    before, after = runs.before(runs.state), runs.after(runs.state)
    between_singles = (runs.state == SILENCE) & is_single(before) & is_single(after)
    is_shift = before != after
    # Filled activity: a silence inside one speaker's speech counts as that speaker's.
    filled, first = runs.merge(torch.where(between_singles & ~is_shift, before, runs.state))
    stretch = first.cumsum(0) - 1  # the stretch of filled activity that each run belongs to
    # At a window's first and last run these reach into another window, but such a run is between no singles.
    alone_before = runs.start - filled.start[stretch].roll(1)
    alone_after = filled.end[stretch].roll(-1) - runs.end
    alone_shift = (alone_before >= frames.alone_before_shift) & (alone_after >= frames.alone_after_shift)
    alone_hold = (alone_before >= frames.alone_before_hold) & (alone_after >= frames.alone_after_hold)
    chosen = (
        between_singles
        & (runs.length >= frames.pad + frames.region)
        & (runs.start < frames.window)
        & (runs.start + frames.pad >= frames.min_context)
        & torch.where(is_shift, alone_shift, alone_hold)
    )
    window, start, end = runs.window[chosen], runs.start[chosen], runs.end[chosen]
    speaker, shift = after[chosen] - ONLY_A, is_shift[chosen]
    kept = start + frames.pad + frames.region < frames.window
    long = shift & kept & (end + frames.onset < frames.window)
    return torch.cat(
        [
            _regions(window, SHIFT, speaker, start + frames.pad, frames.region)[:, shift & kept],
            _regions(window, HOLD, speaker, start + frames.pad, frames.region)[:, ~shift & kept],
            _regions(window, PRE_SHIFT, speaker, start - frames.pre_shift, frames.pre_shift)[:, shift],
            _regions(window, LONG, speaker, end, frames.onset)[:, long],
        ],
        dim=1,
    )


def _backchannels(runs: Runs, frames: Lengths) -> Tensor:
    """Shorts and pre-backchannels: (5, events) window, event, speaker, start, end."""
    window, speaker, start, _ = find_backchannels(runs, frames)
    kept = (start >= frames.min_context) & (start + frames.backchannel_onset < frames.window)
    announced = kept & (start - frames.pre_backchannel >= frames.min_context)
    before = start - frames.pre_backchannel
    return torch.cat(
        [
            _regions(window, SHORT, speaker, start, frames.backchannel_onset)[:, kept],
            _regions(window, PRE_BACKCHANNEL, speaker, before, frames.pre_backchannel)[:, announced],
        ],
        dim=1,
    )


def _regions(window: Tensor, event: int, speaker: Tensor, start: Tensor, length: int) -> Tensor:
    return torch.stack([window, torch.full_like(window, event), speaker, start, start + length])


def find_non_shift(va: Tensor, runs: Runs, frames: Lengths) -> Tensor:
    """Return the frames of non-shift, (windows, window, 2) bool, of windows whose runs are given."""
    last_speaker = runs.spread(runs.last_speaker)
    active = F.pad(va.transpose(1, 2).cumsum(2, dtype=torch.int16), (1, 0))  # frames active before each frame
    # Whether each speaks within the horizon, and whether each spoke last: (windows, 2, window).
    ahead = active[..., 1 + frames.non_shift_horizon :][..., : frames.window]
    speaks = ahead > active[..., 1 : 1 + frames.window]
    spoke = torch.stack([last_speaker == ONLY_A, last_speaker == ONLY_B], dim=1)[..., : frames.window]
    non_shift = spoke & speaks & ~speaks.flip(1)
    non_shift[..., : frames.min_context] = False
    return non_shift.transpose(1, 2)

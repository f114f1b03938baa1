"""Measures of a corpus's turn-taking: speech, gaps, overlaps, pauses, turns, backchannels and events."""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from vap_pipeline.settings.events import FRAME_RATE_HZ, PAPER, EventSettings
from vap_pipeline.turn_taking.events import EVENTS, find_backchannels, find_events, lengths, windows
from vap_pipeline.turn_taking.speaker_runs import BOTH, SILENCE, find_runs, is_single
from vap_pipeline.turn_taking.voice_activity import voice_activity


@dataclass
class TurnTaking:
    """Measures of one or more conversations (c), durations in seconds.

    Attributes:
        durations: (c,) of the conversations.
        states: (c, 4) of silence, only A, only B, both, in whole frames.
        offsets: (transfers,) of floor transfers: of the gap, or minus that of the overlap.
        pauses, turns: (pauses,), (turns,).
        backchannels: (c,) number.
        windows: (c,) number.
        events: (c, 6) number of each of ``EVENTS``.
    """

    durations: np.ndarray
    states: np.ndarray
    offsets: np.ndarray
    pauses: np.ndarray
    turns: np.ndarray
    backchannels: np.ndarray
    windows: np.ndarray
    events: np.ndarray


def measure(va: Tensor, duration_s: float, settings: EventSettings = PAPER) -> TurnTaking:
    """Measure the voice activity (frames, 2) of a conversation."""
    runs = find_runs(va[None])
    seconds = runs.length.double() / FRAME_RATE_HZ
    before, after = runs.before(runs.state), runs.after(runs.state)
    between_singles = is_single(before) & is_single(after)
    gap = between_singles & (runs.state == SILENCE) & (before != after)
    pause = between_singles & (runs.state == SILENCE) & (before == after)
    overlap = between_singles & (runs.state == BOTH) & (before != after)
    at_once = is_single(before) & is_single(runs.state)  # without gap and overlap
    _, speaker, start, end = find_backchannels(runs, lengths(settings))
    cut = windows(va, settings)
    return TurnTaking(
        durations=np.array([duration_s]),
        states=torch.bincount(runs.state, seconds, minlength=4).numpy()[None],
        offsets=torch.cat([seconds[gap], -seconds[overlap], 0 * seconds[at_once]]).numpy(),
        pauses=seconds[pause].numpy(),
        turns=_turns(va, speaker, start, end),
        backchannels=np.array([len(speaker)]),
        windows=np.array([len(cut)]),
        events=torch.bincount(find_events(cut, settings).event, minlength=len(EVENTS)).numpy()[None],
    )


def _turns(va: Tensor, speaker: Tensor, start: Tensor, end: Tensor) -> np.ndarray:
    """Return the durations of the turns of a conversation in seconds, given its backchannels."""
    start_s, end_s = start.numpy() / FRAME_RATE_HZ, end.numpy() / FRAME_RATE_HZ
    backchannels = torch.from_numpy(voice_activity(speaker.numpy(), start_s, end_s, len(va)))
    runs = find_runs((va & ~backchannels)[None])
    alone = is_single(runs.state)
    state, start, end = runs.state[alone], runs.start[alone], runs.end[alone]
    first = state != state.roll(1)
    first[:1] = True
    return (end[first.roll(-1)] - start[first]).numpy() / FRAME_RATE_HZ


def pool(parts: list[TurnTaking]) -> TurnTaking:
    """Join the measures of several conversations."""
    return TurnTaking(
        *(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(TurnTaking))
    )

"""The events that a model predicts: a shift or a hold in each silence, and backchannels."""

from typing import NamedTuple

import numpy as np
import torch

from vap_pipeline.settings.events import FRAME_RATE_HZ, PAPER, EventSettings
from vap_pipeline.turn_taking.events import lengths
from vap_pipeline.turn_taking.speaker_runs import ONLY_A, SILENCE, find_runs, is_single

SHORTEST_FRAMES, GAP_FRAMES = 10, 20  # of the announcement of a backchannel, and of a break in it


class Event(NamedTuple):
    """A predicted event.

    Attributes:
        name: shift, hold or backchannel.
        speaker: 0 or 1, whose turn follows, or whose backchannel.
        start_s, end_s: of the silence, or of the frames that announce the backchannel.
        probability: of the event, as the model sees it.
        truth: what followed, shift or hold; None if nothing did, or for a backchannel.
        error: 0 to 1, how far the model was from the truth.
    """

    name: str
    speaker: int
    start_s: float
    end_s: float
    probability: float
    truth: str | None = None
    error: float | None = None


def predicted_events(
    va: np.ndarray,
    p: np.ndarray,
    p_bc: np.ndarray | None,
    threshold: float = 0.5,
    settings: EventSettings = PAPER,
) -> list[Event]:
    """Return the predicted events of a recording, in order of time.

    A silence after one speaker alone is a shift if the mean probability of the other is at least 0.5 in the
    region that S/H scores (0.05 to 0.15 s into the silence), else a hold. A backchannel is announced by 0.1 s
    or more in which its speaker is silent and ``p_bc`` at or above its threshold; breaks of less than 0.2 s
    do not count.

    Args:
        va: (frames, 2) voice activity.
        p: (frames, 2) probability that A, B speaks next.
        p_bc: (frames, 2) probability that A, B is about to give a backchannel; None if the model has none.
        threshold: of ``p_bc``, such as the checkpoint's.
        settings: where the region of S/H lies.
    """
    events = [*_turns(va, p, settings)]
    if p_bc is not None:
        events += [event for x in (0, 1) for event in _backchannels(va[:, x], p_bc[:, x], x, threshold)]
    return sorted(events, key=lambda event: (event.start_s, event.name, event.speaker))


def _turns(va: np.ndarray, p: np.ndarray, settings: EventSettings) -> list[Event]:
    frames = lengths(settings)
    runs = find_runs(torch.from_numpy(va)[None])
    before, after = runs.before(runs.state), runs.after(runs.state)
    chosen = (runs.state == SILENCE) & is_single(before) & (runs.length >= frames.pad + frames.region)
    events = []
    for start, end, last, following in zip(
        *(values[chosen].tolist() for values in (runs.start, runs.end, before, after)), strict=True
    ):
        x = last - ONLY_A
        p_shift = float(p[start + frames.pad : start + frames.pad + frames.region, 1 - x].mean())
        name, speaker = ("shift", 1 - x) if p_shift >= 0.5 else ("hold", x)
        truth = None
        if is_single(torch.tensor(following)):
            truth = "hold" if following == last else "shift"
        events.append(
            Event(
                name,
                speaker,
                start / FRAME_RATE_HZ,
                end / FRAME_RATE_HZ,
                max(p_shift, 1 - p_shift),
                truth,
                abs((truth == "shift") - p_shift) if truth else None,
            )
        )
    return events


def _backchannels(va: np.ndarray, p_bc: np.ndarray, speaker: int, threshold: float) -> list[Event]:
    edges = np.diff(np.pad(((p_bc >= threshold) & (va == 0)).astype(np.int8), 1))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    apart = starts[1:] - ends[:-1] >= GAP_FRAMES
    return (
        [
            Event(
                "backchannel",
                speaker,
                start / FRAME_RATE_HZ,
                end / FRAME_RATE_HZ,
                float(p_bc[start:end].mean()),
            )
            for start, end in zip(starts[np.r_[True, apart]], ends[np.r_[apart, True]], strict=True)
            if end - start >= SHORTEST_FRAMES
        ]
        if len(starts)
        else []
    )

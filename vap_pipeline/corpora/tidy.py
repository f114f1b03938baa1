"""From the rows of label files to the speech of one conversation: what differs in form only is put right."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from vap_pipeline.audio.rates import LONGEST_S
from vap_pipeline.corpora.build import GAP_S, OVERRUN_S, Speech
from vap_pipeline.corpora.formats.row import Row
from vap_pipeline.io.errors import InputError

LATEST_S = 1000 * LONGEST_S  # a day in milliseconds, which check_unit has to see
MS_FACTOR = 10  # speech that ends this many times later than the audio is suspected to be in milliseconds


def speech_of(rows: Iterable[tuple[Row, int]], unit: str, counts: Counter[str]) -> Speech:
    """Return who speaks when in one conversation.

    The segments of a channel that overlap, touch or repeat become one, and so do words less than 0.05 s
    apart. Times up to a second before the start are cut.

    Args:
        rows: each with its channel, 0 or 1.
        unit: ``s`` or ``ms``, of rows whose format leaves it open.
        counts: what was changed is added to it.

    Raises:
        InputError: a row lacks a time, has an impossible one, or ends before it starts.
    """
    spoken: dict[tuple[int, bool], list[tuple[float, float]]] = {}
    for row, channel in rows:
        start_s, end_s = times(row, unit)
        if start_s < 0:
            counts["times before the start cut"] += 1
            start_s = 0.0
            if end_s < 0:
                continue
        spoken.setdefault((channel, row.word), []).append((start_s, end_s))
    columns = []
    for channel in (0, 1):
        segments = list(spoken.get((channel, False), []))
        if words := spoken.get((channel, True)):
            segments += union(words, GAP_S).tolist()
        joined = union(segments)
        counts["overlapping, touching or repeated segments joined"] += len(segments) - len(joined)
        columns += [(channel, *segment) for segment in joined.tolist()]
    spans = np.array(columns, float).reshape(-1, 3)
    last_s = float(spans[:, 2].max(initial=0))
    return Speech(spans[:, 0].astype(np.int8), spans[:, 1], spans[:, 2], last_s)


def union(segments: Iterable[tuple[float, float]], gap_s: float = 0.0) -> np.ndarray:
    """Return the union of one speaker's segments, (segments, 2) seconds, sorted.

    Args:
        segments: pairs of start and end in any order; they may overlap.
        gap_s: segments this far apart or further stay apart. At 0, those that touch are joined.
    """
    start_s, end_s = np.array(sorted(segments), float).reshape(-1, 2).T
    end_s = np.maximum.accumulate(end_s)
    first = np.ones(len(start_s), bool)
    gaps_s = start_s[1:] - end_s[:-1]
    first[1:] = gaps_s >= gap_s if gap_s else gaps_s > 0
    return np.stack([start_s[first], end_s[np.roll(first, -1)]], 1)


def times(row: Row, unit: str) -> tuple[float, float]:
    """Return the start and the end of a row in seconds.

    Raises:
        InputError: one is missing or impossible, or the end comes first.
    """
    if row.fault:
        raise InputError(f"{row.place}: {row.fault}; correct the row")
    per_s = 1000 if (row.unit or unit) == "ms" else 1
    start = _number(row, "start", row.start)
    if row.end in (None, "") and row.duration not in (None, ""):
        end = start + _number(row, "duration", row.duration)
    else:
        end = _number(row, "end", row.end)
    start_s, end_s = start / per_s, end / per_s
    if not (start_s >= -OVERRUN_S and end_s <= LATEST_S):
        raise InputError(
            f"{row.place}: from {start_s:g} to {end_s:g} s; times must be seconds from the conversation's "
            "start, or milliseconds with --unit ms"
        )
    if end_s < start_s:
        raise InputError(
            f"{row.place}: ends at {end_s:g} s, before it starts at {start_s:g} s; correct the row"
        )
    return start_s, end_s


def check_unit(name: str, speech: Speech, duration_s: float) -> None:
    """Raise InputError if the times of a conversation look like milliseconds read as seconds."""
    last_s = speech.end_s.max(initial=0)
    if last_s > MS_FACTOR * duration_s and last_s <= 1000 * (duration_s + OVERRUN_S):
        raise InputError(
            f"conversation {name}: its speech ends at {last_s:g} s, its audio at {duration_s:g} s; "
            "the times look like milliseconds: give --unit ms"
        )


def _number(row: Row, what: str, value: object) -> float:
    if value is None or value == "":
        raise InputError(f"{row.place}: no {what}; it needs a channel or speaker, a start and an end")
    try:
        if isinstance(value, bool):
            raise ValueError
        if isinstance(value, str):
            if "_" in value:  # which Python takes
                raise ValueError
            value = value.replace(",", ".")  # a decimal comma
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = np.nan
    if not np.isfinite(number):
        shown = f"{value!r}"[:40]  # an integer may have any number of digits
        raise InputError(f"{row.place}: {what} is {shown}; it must be seconds from the conversation's start")
    return number

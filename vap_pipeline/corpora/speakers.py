"""Which channel a row of labels belongs to."""

import logging
from collections import Counter
from collections.abc import Sequence

from vap_pipeline.corpora import sides
from vap_pipeline.corpora.formats.row import Row
from vap_pipeline.corpora.layout import Recording
from vap_pipeline.io.errors import InputError

log = logging.getLogger(__name__)

Sided = tuple[Row, str | None]  # a row, and the side that the name of its conversation or file says


class Speakers:
    """The channels of all rows of a corpus, decided together: 1 is the second of 0 and 1, the first of 1 and 2.

    A row's side is the one that the name of its file says; else the one that ``--channels`` gives its label;
    else the one of two files that its label names; else what its label says by itself (A and B, left and
    right, numbers), by the column of channels if that names both sides, or by that of speakers.
    """

    def __init__(self, rows: Sequence[Sided], given: Sequence[str]) -> None:
        self.given = list(given)
        self.left_out: Counter[str] = Counter()
        self.by_channel, self.by_speaker, self.by_file = (
            {} if given else sides.numbering({label for label in labels if label})
            for labels in (
                {row.channel for row, side in rows if side is None},
                {row.speaker for row, side in rows if side is None},
                {side for _, side in rows if side and side.isdecimal()},
            )
        )
        self.channels_tell = len(set(self.by_channel.values())) == 2 or not self.by_speaker

    def assign(self, name: str, rows: Sequence[Sided], recording: Recording | None) -> list[tuple[Row, int]]:
        """Return the rows of a conversation with their channels, 0 or 1; those of nobody else.

        Raises:
            InputError: a label is not understood, or no row is left.
        """
        found = []
        for row, side in rows:
            number = self._side(name, row, side, recording)
            if number is not None:
                found.append((row, number))
        if not found:
            raise InputError(
                f"conversation {name}: no rows of {' or '.join(self.given)}; check --channels, or leave it out"
            )
        return found

    def report(self) -> None:
        """Say which labels were left out, and which need a look."""
        if self.left_out:
            listed = ", ".join(f"{label} ({count:,})" for label, count in self.left_out.most_common(5))
            log.info(f"rows of other channels left out: {listed}")
        diarised = [label for label in self.by_speaker if label.upper().startswith("SPEAKER_")]
        if diarised and not self.channels_tell:
            log.warning(
                f"{' and '.join(sorted(diarised))}: a diariser numbers speakers in any order; check that the "
                "first one is on the first channel, or give --channels"
            )

    def _side(self, name: str, row: Row, side: str | None, recording: Recording | None) -> int | None:
        """The channel of a row, or None if ``--channels`` leaves it out."""
        pair = recording.sides if recording else None
        if side is not None:
            if pair and side in pair:
                return pair.index(side)
            known = sides.LETTERS | self.by_file | {label: i for i, label in enumerate(self.given)}
            if side in known:
                return known[side]
            raise self._unknown(name, row.place, side)
        labels = [sides.token(_own(label, name)) for label in (row.channel, row.speaker) if label]
        if not labels:
            raise InputError(
                f"{row.place}: no channel nor speaker; add one, or call the file of each speaker "
                f"{name}_A and {name}_B"
            )
        if self.given:
            number = next((self.given.index(label) for label in labels if label in self.given), None)
            if number is None:
                self.left_out[row.channel or row.speaker or ""] += 1
            return number
        for label in labels:
            if pair and label in pair and not label.isdecimal():
                return pair.index(label)
        order = [(self.by_channel, row.channel), (self.by_speaker, row.speaker)]
        for known, text in order if self.channels_tell else reversed(order):
            if text in known:
                return known[text]
            if text and (number := sides.LETTERS.get(sides.token(_own(text, name)))) is not None:
                return number
        raise self._unknown(name, row.place, row.channel or row.speaker or "")

    def _unknown(self, name: str, place: str, label: str) -> InputError:
        return InputError(
            f"{place}: conversation {name}: channel is {label!r}, which is neither 0 or 1, A or B, nor left or "
            "right; name the first and the second, for example with --channels agent,customer"
        )


def _own(label: str, name: str) -> str:
    """A label without the name of its conversation: A of ``sw02001-A``."""
    return label[len(name) :].lstrip("-_. ") or label if label.startswith(name) else label

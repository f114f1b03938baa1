"""Which channel a row of labels belongs to."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

from vap_pipeline.corpora import sides
from vap_pipeline.corpora.formats.row import Row
from vap_pipeline.corpora.layout import Recording
from vap_pipeline.io.errors import InputError

log = logging.getLogger(__name__)

Sided = tuple[Row, str | None]  # a row, and the side that the name of its conversation or file says


class Speakers:
    """The channels of all rows of a corpus, decided together: a 1 follows a 0, or comes before a 2.

    A row's side is the one that the name of its file says; else the one that ``--channels`` gives its label;
    else the one of two files that its label names; else what its label says by itself (A and B, left and
    right, numbers), by the column of channels if that names both sides, or by that of speakers.
    """

    def __init__(self, rows: Mapping[str, Sequence[Sided]], given: Sequence[str]) -> None:
        by_row = [(*_labels(name, row), side) for name, mine in rows.items() for row, side in mine]
        channels = {channel for channel, _, side in by_row if channel and not side}
        speakers = {speaker for _, speaker, side in by_row if speaker and not side}
        # Where no row has these names, they are those of folders or files.
        self.given = list(given) if {*map(sides.token, channels | speakers)} & {*given} else []
        self.by_name = sides.LETTERS | {name: number for number, name in enumerate(given)}
        self.by_name |= sides.numbering({side for *_, side in by_row if side and side not in self.by_name})
        self.by_channel = {} if self.given else sides.numbering(channels)
        # A column of channels that names one side only, as in RTTM of a mix, says nothing of two speakers.
        both = {*self.by_channel.values()} == {0, 1}
        self.channels_tell = both or len(speakers) < 2
        self.by_speaker = {} if self.given or both else sides.numbering(speakers)
        self.left_out: Counter[str] = Counter()
        self.roles: set[tuple[str, str]] = set()

    def assign(self, name: str, rows: Sequence[Sided], recording: Recording | None) -> list[tuple[Row, int]]:
        """Return the rows of a conversation with their channels, 0 or 1; those of nobody else.

        Raises:
            InputError: a label is not understood, or no row is left.
        """
        found = []
        self._check_files(name, rows)
        for row, side in rows:
            number = self._side(name, row, side, recording)
            if number is not None:
                found.append((row, number))
        if not found:
            raise InputError(f"conversation {name}: no rows of {' or '.join(self.given)}; check --channels")
        return found

    def _check_files(self, name: str, rows: Sequence[Sided]) -> None:
        """Raise InputError if the rows of one speaker's file name two."""
        for own in {side for _, side in rows if side}:
            labels = [_labels(name, row) for row, side in rows if side == own]
            for column in zip(*labels, strict=True):
                named = {label for label in column if label}
                if len(named) == 2 and {*sides.numbering(named).values()} == {0, 1}:
                    both = " and ".join(sorted(named))
                    raise InputError(
                        f"conversation {name}: the file of {own!r} has rows of {both}; rename the file, or "
                        "correct the rows"
                    )

    def report(self) -> None:
        """Say which labels were left out, and which need a look."""
        if self.left_out:
            listed = ", ".join(f"{label} ({count:,})" for label, count in self.left_out.most_common(5))
            log.info(f"rows of other channels left out: {listed}")
        for first, second in sorted(self.roles):
            log.info(f"channel 0 is {first}, channel 1 {second}; --channels {second},{first} swaps the two")
        diarised = sorted(label for label in self.by_speaker if label.upper().startswith("SPEAKER_"))
        if diarised and not self.channels_tell:
            log.warning(
                f"{' and '.join(diarised)}: a diariser numbers speakers in any order; check that the first "
                "one is on the first channel, or give --channels"
            )

    def _side(self, name: str, row: Row, side: str | None, recording: Recording | None) -> int | None:
        """The channel of a row, or None if ``--channels`` leaves it out."""
        pair = recording.sides if recording else None
        if pair and pair[0] not in sides.LETTERS and not pair[0].isdecimal():
            self.roles.add(pair)
        channel, speaker = _labels(name, row)
        names = [sides.token(label) for label in (channel, speaker) if label]
        if side:
            number = pair.index(side) if pair and side in pair else self.by_name.get(side)
        elif not names:
            raise InputError(
                f"{row.place}: no channel nor speaker; add one, or call the file of each speaker "
                f"{name}_A and {name}_B"
            )
        elif self.given:
            number = next((self.given.index(label) for label in names if label in self.given), None)
            if number is None:
                self.left_out[channel or speaker or ""] += 1
            return number
        elif mine := [label for label in names if pair and label in pair and not label.isdecimal()]:
            return pair.index(mine[0]) if pair else None
        else:
            number = self.by_channel.get(channel or "") if self.channels_tell or not speaker else None
            if number is None:
                number = self.by_speaker.get(speaker or "")
        if number is None:
            label = side or (channel if self.channels_tell else speaker) or channel or speaker
            raise InputError(
                f"{row.place}: channel is {label!r}; it must be 0 or 1, A or B, or left "
                "or right; for other names say which is first, as in --channels agent,customer"
            )
        return number


def _labels(name: str, row: Row) -> tuple[str | None, str | None]:
    """The channel and the speaker of a row without the name of its conversation: A of ``sw02001-A``."""

    def own(label: str | None) -> str | None:
        if label and label.startswith(name):
            return label[len(name) :].lstrip("-_. ") or label
        return label

    return own(row.channel), own(row.speaker)

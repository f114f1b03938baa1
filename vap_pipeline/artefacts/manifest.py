"""The manifest of a corpus: its conversations, how they are split, and who speaks when.

``conversations.csv``: ``conversation,audio,duration_s,split,fold``. ``audio`` is a path below the audio
folder, two such paths joined by ``|``, one for each speaker, or empty; ``split`` is train, test, or empty for
a conversation that is not used; ``fold`` is given for train. ``voice_activity.parquet``: ``conversation,
channel, start_s, end_s``, a row per segment of speech [start_s, end_s), sorted by conversation, channel and
start; the segments of one channel do not overlap.
"""

import csv
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vap_pipeline.audio.rates import LONGEST_S
from vap_pipeline.io import files, parquet
from vap_pipeline.io.errors import InputError

SPLITS = ("train", "test", "all")
COLUMNS = ["conversation", "audio", "duration_s", "split", "fold"]
SCHEMA = pa.schema(
    [("conversation", pa.string()), ("channel", pa.int8())]
    + [(name, pa.float64()) for name in ("start_s", "end_s")]
)
SHORTEST_S = 10.0  # one window
LONGEST_NAME_BYTES = 200

Segments = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Conversation:
    """A line of ``conversations.csv``."""

    conversation: str
    audio: str
    duration_s: float
    split: str
    fold: int | None = None


@dataclass
class Manifest:
    """The conversations of a corpus in order, and their voice activity, a table of ``SCHEMA``."""

    conversations: list[Conversation]
    voice_activity: pa.Table
    name: str = ""

    @property
    def folds(self) -> int:
        """The number of folds."""
        return 1 + max((c.fold for c in self.conversations if c.fold is not None), default=-1)

    def select(self, split: str = "all") -> list[str]:
        """Return the names of the conversations of ``split``: train, test, or all, unused ones too."""
        if split not in SPLITS:
            raise InputError(f"split {split!r} is unknown; give one of {', '.join(SPLITS)}")
        return [c.conversation for c in self.conversations if split in ("all", c.split)]

    def training_set(self, fold: int) -> list[str]:
        """Return the names of the conversations of every fold but ``fold``."""
        self._check_fold(fold)
        return [c.conversation for c in self.conversations if c.fold is not None and c.fold != fold]

    def validation_set(self, fold: int) -> list[str]:
        """Return the names of the conversations of fold ``fold``."""
        self._check_fold(fold)
        return [c.conversation for c in self.conversations if c.fold == fold]

    def test_set(self) -> list[str]:
        """Return the names of the conversations of the test set."""
        return self.select("test")

    def segments(self) -> dict[str, Segments]:
        """Return the ``channel``, ``start_s`` and ``end_s`` of each conversation, arrays (segments,)."""
        table = self.voice_activity.combine_chunks()
        channel, start, end = (table[name].to_numpy() for name in SCHEMA.names[1:])
        segments = {c.conversation: (channel[:0], start[:0], end[:0]) for c in self.conversations}
        begin = 0
        for name, stop in _runs(table):
            segments[name] = channel[begin:stop], start[begin:stop], end[begin:stop]
            begin = stop
        return segments

    def activity(self, names: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the voice activity of conversations: their names, and (frames, 2) uint8."""
        from vap_pipeline.turn_taking.voice_activity import frames, voice_activity  # which loads torch

        segments = self.segments()
        duration_s = {c.conversation: c.duration_s for c in self.conversations}
        for name in names:
            yield name, voice_activity(*segments[name], frames(duration_s[name]))

    def _check_fold(self, fold: int) -> None:
        if not 0 <= fold < self.folds:
            have = f"has folds 0 to {self.folds - 1}" if self.folds else "has no folds"
            raise InputError(f"fold {fold}: the manifest {self.name} {have}")
        if self.folds < 2:
            raise InputError(
                f"fold {fold}: it is the only fold of {self.name}, which leaves nothing to train on"
            )


def check_name(name: str) -> None:
    """Raise InputError unless ``name`` can be the name of a file and of a group in a Zarr store."""
    odd = not name.isprintable() or name != name.strip() or "/" in name or "\\" in name
    reserved = name.startswith((".", "__")) or name in ("", "zarr.json")
    if odd or reserved or len(name.encode()) > LONGEST_NAME_BYTES:
        raise InputError(
            f"conversation {name!r}: a name must have 1 to {LONGEST_NAME_BYTES} bytes, no slash nor odd "
            "characters, no '.' or '__' at the start, and must not be zarr.json; rename it"
        )


def check(manifest: Manifest) -> None:
    """Raise InputError, which names the conversation, if the manifest breaks a rule of this module."""
    if not manifest.conversations:
        raise InputError("the manifest has no conversations; check the folders that it is made from")
    durations: dict[str, float] = {}
    for c in manifest.conversations:
        check_name(c.conversation)
        where = f"conversation {c.conversation}"
        if c.conversation in durations:
            raise InputError(f"{where}: listed twice; remove one of the two")
        durations[c.conversation] = c.duration_s
        _check_audio(where, c.audio)
        check_duration(where, c.duration_s)
        if c.split not in ("train", "test", "") or (c.split == "train") != (c.fold is not None):
            raise InputError(
                f"{where}: split {c.split!r} with fold {c.fold}; train needs a fold, test and '' have none"
            )
    folds = {c.fold for c in manifest.conversations if c.fold is not None}
    if missing := set(range(len(folds))) - folds:
        raise InputError(
            f"fold {min(missing)} has no conversations; make the manifest with fewer --folds, "
            "or number them 0, 1, 2, …"
        )
    _check_voice_activity(manifest.voice_activity, durations)


def check_duration(where: str, duration_s: float) -> None:
    """Raise InputError, starting with ``where``, if a conversation is too short or too long."""
    if not duration_s >= SHORTEST_S:
        raise InputError(f"{where}: {duration_s:g} s long, shorter than a window of 10 s; leave it out")
    if duration_s > LONGEST_S:
        raise InputError(
            f"{where}: {duration_s:g} s long, more than a day; its header or its times are wrong"
        )


def name_of(folder: Path) -> str:
    """Return the name of the corpus whose manifest is in ``folder``: the folder's name, links followed."""
    return os.path.basename(os.path.realpath(folder))  # noqa: PTH119 (Path.resolve raises where links go round)


def read(folder: Path) -> Manifest:
    """Read and check the manifest in ``folder``, which has the corpus's name.

    Raises:
        InputError: a file is missing or damaged, or breaks a rule of :func:`check`.
    """
    folder = Path(folder)
    table, activity = folder / "conversations.csv", folder / "voice_activity.parquet"
    for path in (table, activity):
        if not path.is_file():
            raise InputError(f"{path}: no such file; write the manifest with vap-manifest")
    content = files.read(table)
    while True:
        conversations = _parse(table, content)
        rows = parquet.read(activity, SCHEMA, "make the manifest again with vap-manifest")
        if (again := files.read(table)) == content:
            break
        content = again  # another process has replaced both files meanwhile
    manifest = Manifest(conversations, rows, name_of(folder))
    try:
        check(manifest)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error
    return manifest


def write(manifest: Manifest, folder: Path) -> None:
    """Check the manifest and write it to ``folder``: the same manifest gives the same bytes.

    Raises:
        InputError: it breaks a rule of :func:`check`, or a file cannot be written.
    """
    check(manifest)
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(COLUMNS)
    for c in manifest.conversations:
        fold = "" if c.fold is None else c.fold
        lines.writerow([c.conversation, c.audio, repr(float(c.duration_s)), c.split, fold])
    table = manifest.voice_activity.cast(SCHEMA).replace_schema_metadata()
    files.write_together(
        {
            folder / "voice_activity.parquet": parquet.encode(table),
            folder / "conversations.csv": text.getvalue().encode(),
        }
    )


def _parse(path: Path, content: bytes) -> list[Conversation]:
    try:
        rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a table in UTF-8 ({error}); make the manifest again") from error
    if not rows or rows[0] != COLUMNS:
        raise InputError(f"{path}: the first line must be {','.join(COLUMNS)}")
    conversations = []
    for number, row in enumerate(rows[1:], 2):
        if not row:
            continue  # spreadsheets leave empty lines
        try:
            name, audio, duration_s, split, fold = row
            conversations.append(
                Conversation(name, audio, float(duration_s), split, int(fold) if fold else None)
            )
        except ValueError as error:
            raise InputError(
                f"{path}: line {number}: {','.join(row)!r} does not fit the columns; correct the line"
            ) from error
    return conversations


def _check_audio(where: str, audio: str) -> None:
    entries = audio.split("|")
    paths = [PurePosixPath(entry) for entry in entries]
    outside = any(path.is_absolute() or ".." in path.parts for path in paths)
    odd = "\\" in audio or not audio.isprintable()
    if outside or odd or (len(entries) > 1 and (len(entries) > 2 or "" in entries)):
        raise InputError(
            f"{where}: audio {audio!r} must be a path below the audio folder, or two joined by '|', "
            "one for each speaker; correct it"
        )


def _runs(table: pa.Table) -> list[tuple[str, int]]:
    """Return the name of each conversation in the table, and the row after its last."""
    column = table["conversation"]
    if len(column) == 0:
        return []
    encoded = pc.run_end_encode(column.combine_chunks())
    return list(zip(encoded.values.to_pylist(), encoded.run_ends.to_pylist(), strict=True))


def _check_voice_activity(table: pa.Table, durations: dict[str, float]) -> None:
    if any(column.null_count for column in table.columns):
        raise InputError("voice activity: empty cells; make the manifest again")
    runs = _runs(table)
    previous = ""
    for name, _ in runs:
        if name not in durations:
            raise InputError(
                f"conversation {name}: has voice activity and is not listed; list it or remove the rows"
            )
        if name <= previous:
            raise InputError(f"conversation {name}: its voice activity is not sorted; sort by conversation")
        previous = name
    channel, start, end = (table[name].to_numpy() for name in SCHEMA.names[1:])
    lengths = np.diff([0, *(stop for _, stop in runs)])
    run = np.repeat(np.arange(len(runs)), lengths)
    duration = np.repeat([durations[name] for name, _ in runs], lengths)

    def refuse(wrong: np.ndarray, what: str) -> None:
        if wrong.any():
            i = int(wrong.argmax())
            raise InputError(
                f"conversation {runs[run[i]][0]}: channel {channel[i]} speaks "
                f"from {start[i]:.6f} to {end[i]:.6f} s: {what}"
            )

    same = np.zeros(len(start), bool)
    same[1:] = run[1:] == run[:-1]
    refuse((channel != 0) & (channel != 1), "there are only channels 0 and 1")
    refuse(~(np.isfinite(start) & np.isfinite(end) & (start >= 0)), "times must be numbers from 0 on")
    refuse(end < start, "it ends before it starts")
    refuse(end > duration, "it ends after the conversation")
    refuse(same & np.r_[False, channel[1:] < channel[:-1]], "channel 0 comes first")
    same[1:] &= channel[1:] == channel[:-1]
    refuse(same & np.r_[False, start[1:] < end[:-1]], "it starts before the segment above it has ended")

"""Any corpus of two-channel audio with a table of who speaks when.

A table is a CSV or JSON file with a row per segment, ``conversation, channel, start_s, end_s`` (channel 0 or
1, or A or B), or a JSON file with the words of the conversation that it is named after: a list of
``{"speaker": "A", "start": 2.15, "end": 2.83}``. Segments are kept as they are, words are merged into
segments. The audio of a conversation is the file with its name (``.sph``, ``.wav``, ``.flac``), anywhere
below the audio folder.
"""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vap_pipeline.artefacts.manifest import Manifest, check_name
from vap_pipeline.audio.rates import LONGEST_S
from vap_pipeline.corpora import build, recordings
from vap_pipeline.corpora.build import Faults, Speech
from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError

CHANNELS = {"0": 0, "1": 1, "A": 0, "B": 1}
SEGMENT = ("conversation", "channel", "start_s", "end_s")
WORD = ("speaker", "start", "end")

Row = tuple[int, float, float]
Cells = list[tuple[str, dict[str, Any]]]  # rows of tables, with their places for messages


def read(
    audio: Path, tables: Sequence[Path], test: int | None, folds: int, seed: int = 0, on_error: str = "stop"
) -> Manifest:
    """Return the manifest of the conversations in ``tables``, sorted by name.

    They are shuffled with ``seed``; ``test`` of them (by default a tenth, at least one) are for testing, the
    others make ``folds`` folds. ``on_error="skip"`` leaves out conversations that cannot be used.

    Raises:
        InputError: a table or a conversation cannot be used (see :func:`load`, :func:`speech_of`).
    """
    faults = Faults(on_error)
    cells = load(tables, faults)
    found = recordings.find(audio, lambda stem: None if stem.startswith(".") else stem)
    names = build.paired(cells, found, audio, faults)
    speech: dict[str, Speech] = {}
    for name in tqdm(names, "conversations", unit="", disable=None):
        with faults.handled():
            speech[name] = build.fit(name, speech_of(name, cells[name]), found[name])
    faults.report()
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    splits = build.split(order, max(1, len(names) // 10) if test is None else test, folds)
    return build.assemble(speech, found, audio, splits)


def load(tables: Sequence[Path], faults: Faults) -> dict[str, Cells]:
    """Return the rows of each conversation in ``tables``, files or folders of files (``.csv``, ``.json``).

    Raises:
        InputError: a file is missing, empty, or not a table as this module describes.
    """
    found: dict[str, Cells] = defaultdict(list)
    for path in _files(tables):
        with faults.handled():
            rows = _csv(path) if path.suffix.lower() == ".csv" else _json(path)
            if not rows:
                raise InputError(f"{path}: no rows; give a table of {', '.join(SEGMENT)}")
            for number, row in enumerate(rows, 1):
                if not isinstance(row, dict):
                    raise InputError(f"{path}: row {number}: needs {', '.join(SEGMENT)}; correct the row")
                found[str(row.get("conversation", path.stem))].append((f"{path}: row {number}", row))
    return found


def speech_of(name: str, cells: Cells) -> Speech:
    """Return who speaks when in the conversation ``name``.

    Raises:
        InputError: the name cannot be a file's, a row lacks a value or has an impossible channel or time, or
            segments of one channel overlap (words may).
    """
    check_name(name)
    rows = sorted(_row(where, row) for where, row in cells)
    channel, start, end = (np.array(column) for column in zip(*rows, strict=True))
    if any("conversation" not in row for _, row in cells):  # words
        merged = [build.merge(start[channel == c], end[channel == c]) for c in (0, 1)]
        channel = np.repeat((0, 1), [len(start_s) for start_s, _ in merged])
        start, end = np.concatenate(merged, axis=1)
    overlap = (channel[1:] == channel[:-1]) & (start[1:] < end[:-1])
    if overlap.any():
        i = int(overlap.argmax())
        raise InputError(
            f"conversation {name}: channel {channel[i]}: segments from {start[i]:g} and {start[i + 1]:g} s "
            "overlap; join the two"
        )
    return Speech(channel.astype(np.int8), start, end, float(end.max()))


def _files(tables: Sequence[Path]) -> Iterator[Path]:
    for table in tables:
        inside = sorted(table.iterdir()) if table.is_dir() else [table]
        chosen = [p for p in inside if p.suffix.lower() in (".csv", ".json") and not p.name.startswith(".")]
        if not chosen:
            raise InputError(f"{table}: not a table, nor a folder of tables (.csv, .json); check the path")
        yield from chosen


def _csv(path: Path) -> list[Any]:
    try:
        lines = csv.DictReader(io.StringIO(files.read(path).decode("utf-8-sig"), newline=""), strict=True)
        missing = set(SEGMENT) - set(lines.fieldnames or ())
        if missing:
            raise InputError(
                f"{path}: no column {sorted(missing)[0]}; the first line must name {', '.join(SEGMENT)}"
            )
        return list(lines)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV table in UTF-8 ({error}); save it in that form") from error


def _json(path: Path) -> list[Any]:
    content = files.read(path)
    try:
        cells = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON in UTF-8 ({error}); save it in that form") from error
    if not isinstance(cells, list):
        raise InputError(f"{path}: expected a list of rows; see vap-manifest segments --help")
    return cells


def _row(where: str, row: dict[str, Any]) -> Row:
    columns = SEGMENT[1:] if "conversation" in row else WORD
    if any(row.get(column) is None for column in columns) or None in row:  # a CSV row too short or too long
        raise InputError(f"{where}: needs {', '.join(columns)}; correct the row")
    channel = CHANNELS.get(str(row[columns[0]]))
    if channel is None:
        raise InputError(f"{where}: {columns[0]} is {row[columns[0]]!r}; it must be 0 or 1, or A or B")
    start_s, end_s = (_seconds(where, column, row[column]) for column in columns[1:])
    if end_s < start_s:
        raise InputError(f"{where}: ends at {end_s:g} s, before it starts at {start_s:g} s; correct the row")
    return channel, start_s, end_s


def _seconds(where: str, column: str, value: object) -> float:
    try:
        if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
            raise ValueError
        seconds = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        seconds = -1
    if not 0 <= seconds <= LONGEST_S:
        raise InputError(f"{where}: {column} is {value!r}; it must be seconds from the conversation's start")
    return seconds

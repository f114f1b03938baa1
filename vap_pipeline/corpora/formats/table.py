"""Tables with a row per segment or word: CSV with any separator, and rows of JSON."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vap_pipeline.corpora.formats.row import Row
from vap_pipeline.io.errors import InputError

SEPARATORS = (",", ";", "\t", "|")
UNIT = r"(?:_?(?P<unit>s|secs?|seconds?|ms|msecs?|millis|milliseconds?))?"
NAMES = {
    "conversation": r"(conversation|call|recording|rec|file|audio_?file|session|dialog(ue)?|uri|sid)"
    r"(_?(id|name))?",
    "channel": r"(channel|chan|side)(_?(id|index|no|number))?",
    "speaker": r"(speaker|spkr?|participant|role|speaker_?role)(_?(id|name|label))?",
    "start": rf"(t_?)?(start|begin|onset|from|xmin|tmin)(_?times?)?{UNIT}",
    "end": rf"(t_?)?(end|stop|to|xmax|tmax)(_?times?)?{UNIT}",
    "duration": rf"(duration|dur|length){UNIT}",
    "audio": r"audio(_?path)?",
    "word": r"(word|token)",
}
TOO_LONG = "too long"  # a row with more cells than columns, and its fault
EXAMPLE = "conversation,channel,start_s,end_s"


def read(path: Path, text: str) -> list[Row]:
    """Return the rows of a CSV or TSV file; its first line names the columns.

    Raises:
        InputError: not such a table, or a column is missing.
    """
    if re.match(r"sep=.\r?\n", text):  # a note of spreadsheets
        text = text.partition("\n")[2]
    header = next(iter(text.splitlines()), "")
    separator = max(SEPARATORS, key=lambda s: len(_columns(_strip(header.split(s)))))
    try:
        file = io.StringIO(text, newline="")
        cells_of = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
        lines = [_strip(line) for line in cells_of]
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV table ({error}); save it in that form") from error
    names = lines[0] if lines else []
    dicts = []
    for number, line in enumerate(lines[1:], 1):
        if not any(line):
            continue
        # A line that is too short or too long keeps its place, and fails with its conversation.
        cells: dict[str, Any] = dict(zip(names, line, strict=False))
        if len(line) > len(names) and any(line[len(names) :]):
            cells[TOO_LONG] = f"{len(line)} cells, but {len(names)} columns; quote decimal commas"
        dicts.append((f"{path}: row {number}", cells))
    return rows(path, names, dicts)


def rows(path: Path, names: Iterable[str], cells: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Row]:
    """Return the rows of a table.

    Args:
        names: the names of its columns, in any common spelling.
        cells: the place and the cells of every row.

    Raises:
        InputError: there is no column with the start, or with the end or duration, or they have two units.
    """
    columns = _columns(list(names))
    for wanted, other, example in (("start", "start", "start_s"), ("end", "duration", "end_s")):
        if wanted not in columns and other not in columns:
            listed = ", ".join(map(repr, names)) or "none"
            raise InputError(
                f"{path}: no column {example}; the first line must name {EXAMPLE}, but names {listed}"
            )
    times = [columns[name] for name in ("start", "end", "duration") if name in columns]
    in_ms = {(_match(column)[1] or "").startswith("m") for column in times}
    if len(in_ms) > 1:
        raise InputError(f"{path}: {' and '.join(times)} are in two units; give all times in one")
    found = []
    for place, row in cells:
        cell = {name: row.get(column) for name, column in columns.items()}
        found.append(
            Row(
                cell["start"],
                cell.get("end"),
                cell.get("duration"),
                _label(cell.get("channel")),
                _label(cell.get("speaker")),
                _label(cell.get("conversation")),
                _label(cell.get("audio")),
                "word" in columns,
                "ms" if in_ms == {True} else None,
                place,
                row.get(TOO_LONG),
            )
        )
    return found


def _columns(names: Sequence[str]) -> dict[str, str]:
    """The column of each kind, the first one where there are several."""
    columns: dict[str, str] = {}
    for name in names:
        kind, _ = _match(name)
        if kind:
            columns.setdefault(kind, name)
    return columns


def _match(name: str) -> tuple[str | None, str | None]:
    """The kind of a column and its unit: "Start (ms)" is a start in ms."""
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z0-9]+", "_", name).strip("_").lower()
    for kind, pattern in NAMES.items():
        if match := re.fullmatch(pattern, plain):
            return kind, match.groupdict().get("unit")
    return None, None


def _strip(cells: Sequence[str]) -> list[str]:
    return [cell.strip() for cell in cells]


def _label(value: object) -> str | None:
    return None if value is None or value == "" else str(value)

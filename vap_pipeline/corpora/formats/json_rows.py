"""JSON and JSON lines: rows, lhotse's manifests, Whisper's and WhisperX's, and Seamless Interaction's."""

import json
from pathlib import Path
from typing import Any

from vap_pipeline.corpora.formats import lhotse, table
from vap_pipeline.corpora.formats.row import Row
from vap_pipeline.io.errors import InputError

LISTS = ("rows", "segments", "utterances", "words")  # keys under which a file may hold its list of rows


def read(path: Path, text: str) -> list[Row]:
    """Return the rows of a JSON file.

    Raises:
        InputError: not JSON, or of no form that is known.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); save it in that form") from error
    if isinstance(content, dict):
        if "metadata:transcript" in content or "metadata:vad" in content:
            return _seamless(path, content)
        if isinstance(content.get("segments"), list):
            return _whisper(path, content["segments"])
        content = next((content[key] for key in LISTS if isinstance(content.get(key), list)), content)
    if not isinstance(content, list):
        raise InputError(f"{path}: expected a list of rows; see vap-manifest segments --help")
    return _rows(path, content, "row")


def lines(path: Path, text: str) -> list[Row]:
    """Return the rows of a file of JSON lines.

    Raises:
        InputError: a line is not JSON.
    """
    content = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                content.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}: line {number}: not JSON ({error}); correct the line") from error
    return _rows(path, content, "line")


def _rows(path: Path, content: list[Any], unit: str) -> list[Row]:
    for number, row in enumerate(content, 1):
        if not isinstance(row, dict):
            raise InputError(f"{path}: {unit} {number}: needs {table.EXAMPLE}; correct the row")
    if content and lhotse.is_manifest(content[0]):
        return lhotse.read(path, content)
    names = list(dict.fromkeys(name for row in content for name in row))
    cells = [(f"{path}: {unit} {number}", row) for number, row in enumerate(content, 1)]
    if not cells:
        return []
    found = table.rows(path, names, cells)
    # A list of rows in a file of the conversation's name holds its words.
    return [row if row.conversation or row.audio else row._replace(word=True) for row in found]


def _whisper(path: Path, segments: list[Any]) -> list[Row]:
    """The words, or the segments of those without times of words."""
    found = []
    for number, segment in enumerate(segments, 1):
        if not isinstance(segment, dict):
            raise InputError(f"{path}: segment {number}: not an object with start and end; correct it")
        place = f"{path}: segment {number}"
        speaker = segment.get("speaker")
        words = [w for w in segment.get("words") or () if w.get("start") is not None]
        found += [
            Row(w["start"], w.get("end"), speaker=_text(w.get("speaker", speaker)), word=True, place=place)
            for w in words
        ] or [Row(segment.get("start"), segment.get("end"), speaker=_text(speaker), place=place)]
    return found


def _seamless(path: Path, content: dict[str, Any]) -> list[Row]:
    """The words of one speaker, or where there are none, what a VAD heard."""
    spoken = content.get("metadata:transcript") or []
    words = [w for part in spoken for w in part.get("words") or () if w.get("start") is not None]
    found = words or spoken or content.get("metadata:vad") or []
    return [
        Row(w.get("start"), w.get("end"), word=bool(words), place=f"{path}: row {number}")
        for number, w in enumerate(found, 1)
    ]


def _text(value: object) -> str | None:
    return None if value is None else str(value)

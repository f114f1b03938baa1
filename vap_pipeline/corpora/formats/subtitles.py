"""Subtitles, SRT and WebVTT: a file per speaker, or the speaker in the text."""

import re
from pathlib import Path

from vap_pipeline.corpora.formats.row import Row

TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2}[.,]\d{1,3})"
CUE = re.compile(rf"\s*{TIME}\s*-->\s*{TIME}")
VOICE = re.compile(r"<v(?:\.[^ >]*)?\s+([^>]+)>|\[?([^\s:\]\[<>]+(?: \w+)?)\]?:\s")


def read(path: Path, text: str) -> list[Row]:
    """Return the cues; their speaker is a ``<v NAME>``, ``NAME:`` or ``[NAME]:`` before the text."""
    found = []
    lines = [*text.splitlines(), ""]
    for number, line in enumerate(lines[:-1], 1):
        if match := CUE.match(line):
            start, end = _seconds(match.groups()[:3]), _seconds(match.groups()[3:])
            voice = VOICE.match(lines[number] + " ")
            speaker = (voice[1] or voice[2]).strip() if voice else None
            found.append(Row(start, end, speaker=speaker, unit="s", place=f"{path}: line {number}"))
    return found


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds = parts
    # In whole milliseconds: 61 + 0.1 and 61.1 s differ in floating point.
    thousandths = round(float((seconds or "0").replace(",", ".")) * 1000)
    return ((int(hours or 0) * 60 + int(minutes or 0)) * 60_000 + thousandths) / 1000

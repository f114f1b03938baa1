"""Formats of lines with fixed columns: RTTM, CTM, STM, Kaldi's ``segments``, labels of Audacity."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from vap_pipeline.corpora.formats.row import Row, text_of
from vap_pipeline.io.errors import InputError

AUDACITY = re.compile(r"\d+([.,]\d+)?\t\d+([.,]\d+)?(\t.*)?")
GAPS = ("inter_segment_gap", "ignore_time_segment_in_scoring", "excluded_region")  # of STM: nobody's speech


def rttm(path: Path, text: str) -> list[Row]:
    """Return the lines ``SPEAKER conversation channel start_s duration_s <NA> <NA> speaker …``."""
    return _numbered(
        Row(f[3], duration=f[4], channel=f[2], speaker=f[7], conversation=f[1], place=place)
        for place, f in _fields(path, text, 8, lambda f: f[0] == "SPEAKER")
    )


def ctm(path: Path, text: str) -> list[Row]:
    """Return the words of lines ``conversation channel start_s duration_s word …``."""
    return _numbered(
        Row(f[2], duration=f[3], channel=f[1], conversation=f[0], word=True, place=place)
        for place, f in _fields(path, text, 5)
    )


def stm(path: Path, text: str) -> list[Row]:
    """Return the lines ``conversation channel speaker start_s end_s <label> text``."""
    return _numbered(
        Row(f[3], f[4], channel=f[1], speaker=f[2], conversation=f[0], place=place)
        for place, f in _fields(path, text, 5)
        if not any(gap in " ".join(f).lower() for gap in GAPS)
    )


def kaldi(path: Path, text: str) -> list[Row]:
    """Return the lines ``utterance recording start_s end_s``; ``utt2spk`` beside them has the speakers."""
    beside = path.with_name("utt2spk")
    speakers = {}
    if beside.exists():
        speakers = {f[0]: f[1] for _, f in _fields(beside, text_of(beside), 2)}
    return [
        Row(f[2], f[3], speaker=speakers.get(f[0]), conversation=f[1], place=place)
        for place, f in _fields(path, text, 4)
    ]


def audacity(path: Path, text: str) -> list[Row]:
    """Return labels ``start_s<tab>end_s<tab>label``, the speaker unless the file is one speaker's."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("\\"):  # which bounds the label in frequency
            start, end, label = ([*line.split("\t"), "", ""])[:3]
            found.append(Row(start, end, speaker=label.strip() or None, place=f"{path}: line {number}"))
    return found


def is_audacity(text: str) -> bool:
    """Whether the first line of ``text`` has the form of Audacity's labels."""
    return bool(AUDACITY.fullmatch(text.lstrip().partition("\n")[0].rstrip("\r ")))


def _fields(
    path: Path, text: str, least: int, chosen: Callable[[list[str]], bool] = lambda f: True
) -> Iterator[tuple[str, list[str]]]:
    """The place and the fields of every line but comments (``;;``) and those that are not chosen."""
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields or fields[0].startswith(";;") or not chosen(fields):
            continue
        if len(fields) < least:
            raise InputError(f"{path}: line {number}: {len(fields)} columns, expected {least}; correct it")
        yield f"{path}: line {number}", fields


def _numbered(rows: Iterator[Row]) -> list[Row]:
    """Call channels 1 and 2, as NIST numbers them, A and B; a file with a channel 0 numbers from 0."""
    found = list(rows)
    if any(row.channel == "0" for row in found):
        return found
    return [row._replace(channel={"1": "A", "2": "B"}.get(row.channel or "", row.channel)) for row in found]

"""Praat's TextGrids, long and short: a tier per speaker, or a file per speaker."""

import re
from pathlib import Path

from vap_pipeline.corpora.formats.row import Row
from vap_pipeline.io.errors import InputError

SILENCE = ("", "sil", "<sil>", "sp", "<p:>", "silent", "silence", "[silence]", "#", "_")
LEVEL = re.compile(r"(?:(?P<speaker>.*?)[ _]*[-_/ ][ _]*)?(?P<level>words?|phones?|phonemes?)", re.IGNORECASE)


def read(path: Path, text: str) -> list[Row]:
    """Return the intervals with a label; the tier ``A - words`` has the words of A, and phones are not read.

    Raises:
        InputError: not a TextGrid, or praatio is not installed.
    """
    try:
        from praatio.utilities.textgrid_io import parseTextgridStr
    except ImportError as error:
        raise InputError(
            f"{path}: TextGrids are read by praatio; install it with `pip install 'vap-pipeline[formats]'`"
        ) from error
    try:
        tiers = parseTextgridStr(text, includeEmptyIntervals=False)["tiers"]
    except Exception as error:  # praatio raises IndexError, ValueError, … for text of another form
        raise InputError(f"{path}: not a TextGrid ({error!r}); save it again with Praat") from error
    found = []
    for tier in tiers:
        level = LEVEL.fullmatch(tier["name"].strip())
        if tier["class"] != "IntervalTier" or (level and level["level"].lower().startswith("phon")):
            continue
        speaker = level["speaker"] if level else tier["name"]
        found += [
            Row(start, end, speaker=speaker, word=bool(level), unit="s", place=f"{path}: tier {tier['name']}")
            for start, end, label in tier["entries"]
            if label.strip().lower() not in SILENCE
        ]
    return found

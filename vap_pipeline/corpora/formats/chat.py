"""CHAT transcripts (``.cha``) of TalkBank, linked to the audio by times in milliseconds."""

import re
from pathlib import Path

from vap_pipeline.corpora.formats.row import Row

TIMES = re.compile(r'\x15(?:%\w+:"[^"]*"_)?(\d+)_(\d+)\x15')


def read(path: Path, text: str) -> list[Row]:
    """Return the utterances of the speaker tiers, or their words where a ``%wor`` tier has them."""
    found: list[Row] = []
    speaker, utterance = None, 0  # and the number of rows before the utterance
    for number, line in enumerate(re.sub(r"\r?\n\t", " ", text).splitlines(), 1):
        name, _, content = line.partition(":")
        rows = [
            Row(int(start), int(end), word=name == "%wor", unit="ms", place=f"{path}: tier {number}")
            for start, end in TIMES.findall(content)
        ]
        if name.startswith("*"):
            speaker, utterance = name[1:].strip(), len(found)
        elif name == "%wor" and rows:
            del found[utterance:]
        else:
            continue
        found += [row._replace(speaker=speaker) for row in rows]
    return found

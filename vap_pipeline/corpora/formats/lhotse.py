"""lhotse's manifests: supervisions, with the recordings beside them. Both are read as plain JSON lines."""

import json
from pathlib import Path
from typing import Any

from vap_pipeline.corpora.formats.row import Row, text_of
from vap_pipeline.io.errors import InputError


def is_manifest(row: dict[str, Any]) -> bool:
    """Whether ``row`` is a supervision or a recording of lhotse."""
    return {"recording_id", "start", "duration"} <= row.keys() or {"id", "sources"} <= row.keys()


def read(path: Path, content: list[dict[str, Any]]) -> list[Row]:
    """Return the supervisions in ``content``: their aligned words, or where there are none, themselves.

    The recordings are read from the file of the same name with ``recordings`` in place of ``supervisions``,
    if it exists. A file of recordings has no rows.

    Raises:
        InputError: a recording's audio is neither in one file nor in a file for each speaker.
    """
    if "sources" in content[0]:
        return []
    audio: dict[str, str] = {}
    beside = path.with_name(path.name.replace("supervisions", "recordings"))
    if beside != path and beside.exists():
        text = text_of(beside)
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        audio = {row["id"]: _source(beside, row) for row in rows}
    found = []
    for number, row in enumerate(content, 1):
        channel = row.get("channel")
        common = Row(
            row["start"],
            duration=row["duration"],
            channel=str(channel) if isinstance(channel, int) else None,
            speaker=row.get("speaker"),
            conversation=row["recording_id"],
            audio=audio.get(row["recording_id"]),
            unit="s",
            place=f"{path}: line {number}",
        )
        words = (row.get("alignment") or {}).get("word") or []
        found += [common._replace(start=word[1], duration=word[2], word=True) for word in words] or [common]
    return found


def _source(path: Path, recording: dict[str, Any]) -> str:
    sources = sorted(recording["sources"], key=lambda source: min(source["channels"], default=0))
    if len(sources) > 2 or any(source["type"] != "file" for source in sources):
        raise InputError(
            f"{path}: recording {recording['id']}: needs one file, or one for each of two speakers; "
            "write a manifest with two of its channels"
        )
    return "|".join(source["source"] for source in sources)

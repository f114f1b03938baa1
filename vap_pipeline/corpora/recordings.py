"""Finding the audio files of a corpus, and their durations."""

import logging
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from vap_pipeline.audio.headers import SUFFIXES, read_header
from vap_pipeline.corpora.faults import Faults
from vap_pipeline.io.errors import InputError

log = logging.getLogger(__name__)


def walk(root: Path) -> Iterator[Path]:
    """Yield every file below ``root``, in a fixed order. Links to folders are followed, each folder once.

    Raises:
        InputError: there is no such folder, or a folder below it cannot be read.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; check the path")

    def refuse(error: OSError) -> None:
        raise InputError(
            f"{error.filename}: cannot be read ({error.strerror}); check its permissions"
        ) from error

    visited = set()
    for folder, inner, files in os.walk(root, onerror=refuse, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in visited:
            inner.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        inner.sort()
        for file in sorted(files):
            yield Path(folder, file)


def find(root: Path, name: Callable[[str], str | None], faults: Faults) -> dict[str, Path]:
    """Return the audio file of each conversation, anywhere below ``root``.

    Args:
        root: folder of audio.
        name: returns the conversation of a file's stem, or None if it is not of this corpus.
        faults: takes the fault of a conversation with two files, which is still returned.

    Raises:
        InputError: there is no such folder, no audio in it, or two files of one conversation.
    """
    found: dict[str, Path] = {}
    for path in walk(root):
        conversation = name(path.stem) if path.suffix.lower() in SUFFIXES else None
        if conversation is None:
            continue
        if conversation in found:
            with faults.handled(conversation):
                raise InputError(
                    f"{path}: {found[conversation]} has the same conversation; remove one of the two"
                )
        found.setdefault(conversation, path)
    if not found:
        raise InputError(f"{root}: no audio of this corpus below it ({', '.join(SUFFIXES)}); check the path")
    return found


def duration_s(*paths: Path) -> float:
    """Return the duration of a recording in seconds, from the header of its file or of its two files.

    Args:
        paths: one file with two channels, or a file with one channel for each speaker; the recording is as
            long as the longer one.

    Raises:
        InputError: not audio, truncated (as far as a header shows), or of another number of channels.
    """
    from vap_pipeline.audio.recording import check  # which loads torch

    seconds, warnings = check(paths)
    for warning in warnings:
        _warn(warning)
    return seconds


@cache
def _warn(warning: str) -> None:
    """Say once what is odd about a file."""
    log.warning("%s", warning)


def may_be_mono(path: Path) -> bool:
    """Whether a file has one channel; also where its header cannot be read, which is said when it is used."""
    try:
        return read_header(path).channels == 1
    except InputError:
        return True

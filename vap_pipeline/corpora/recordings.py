"""Finding the audio files of a corpus, and their durations."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from vap_pipeline.audio.headers import check_two_channels, read_header
from vap_pipeline.io.errors import InputError

SUFFIXES = (".sph", ".wav", ".flac")


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


def find(root: Path, name: Callable[[str], str | None]) -> dict[str, Path]:
    """Return the audio file of each conversation, anywhere below ``root``.

    Args:
        root: folder of audio.
        name: returns the conversation of a file's stem, or None if it is not of this corpus.

    Raises:
        InputError: there is no such folder, no audio in it, or two files of one conversation.
    """
    found: dict[str, Path] = {}
    for path in walk(root):
        conversation = name(path.stem) if path.suffix.lower() in SUFFIXES else None
        if conversation is None:
            continue
        if conversation in found:
            raise InputError(
                f"{path}: {found[conversation]} has the same conversation; remove one of the two"
            )
        found[conversation] = path
    if not found:
        raise InputError(f"{root}: no audio of this corpus below it ({', '.join(SUFFIXES)}); check the path")
    return found


def duration_s(path: Path) -> float:
    """Return the duration of a two-channel audio file in seconds, from its header.

    Raises:
        InputError: not audio, truncated (as far as its header shows), or not of two channels.
    """
    header = read_header(path)
    check_two_channels(path, header.channels)
    return header.samples / header.rate

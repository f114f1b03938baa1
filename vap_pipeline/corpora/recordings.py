"""The audio files of a corpus: where they lie, and how long they are."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from vap_pipeline.audio.headers import read_header
from vap_pipeline.io.errors import InputError

SUFFIXES = (".sph", ".wav", ".flac")


def walk(root: Path) -> Iterator[Path]:
    """Yield every file below ``root``, in a fixed order, and below the folders that links there lead to.

    A folder to which several ways lead is looked through once.

    Raises:
        InputError: there is no such folder, or one below it cannot be read.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; mend the path")

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror}); mend that") from error

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
        name: gives the conversation of a file's stem, or None where it is not one of the corpus.

    Raises:
        InputError: there is no such folder, no audio in it, or two files of one conversation.
    """
    found: dict[str, Path] = {}
    for path in walk(root):
        conversation = name(path.stem) if path.suffix.lower() in SUFFIXES else None
        if conversation is None:
            continue
        if conversation in found:
            raise InputError(f"{path}: {found[conversation]} is of the same conversation; remove one")
        found[conversation] = path
    if not found:
        raise InputError(f"{root}: no audio of this corpus below it ({', '.join(SUFFIXES)}); mend the path")
    return found


def duration_s(path: Path) -> float:
    """Return the duration of a two-channel audio file in seconds, from its header.

    Raises:
        InputError: not audio, truncated (as far as a header tells), or not two channels.
    """
    header = read_header(path)
    if (channels := header.channels) != 2:
        raise InputError(
            f"{path}: {channels} channel{'s' * (channels != 1)} where each of two speakers needs one; "
            "join the two sides into one file, for example with `sox -M A.wav B.wav AB.wav`"
        )
    return header.samples / header.rate

"""Whole files, read and replaced in one piece, on this machine or any fsspec path."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import fsspec

from vap_pipeline.errors import InputError


def read(path: str | Path) -> bytes:
    """Return the content of ``path``.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    try:
        with fsspec.open(str(path), "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; make it with the stage before, or mend the path") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def exists(path: str | Path) -> bool:
    """Whether there is a file or folder ``path``."""
    fs, inner = fsspec.core.url_to_fs(str(path))
    return fs.exists(inner)


def write(path: str | Path, content: bytes) -> None:
    """Replace ``path`` by ``content``, making its folder: kills and full disks leave no half of a file.

    Raises:
        InputError: it cannot be written; what was there before is still there.
    """
    fs, inner = fsspec.core.url_to_fs(str(path))
    try:
        if "file" not in fs.protocol:  # an object store puts an object whole or not at all
            fs.makedirs(fs._parent(inner), exist_ok=True)
            fs.pipe_file(inner, content)
            return
        target = Path(inner)
        target.parent.mkdir(parents=True, exist_ok=True)
        # One name for all who write this file, so that what a kill leaves is used again by the next; the lock
        # keeps two of them apart.
        partial = target.with_name(f".{target.name}.partial")
        with _alone(partial) as file:
            try:
                file.truncate(0)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                partial.replace(target)
            except OSError:
                partial.unlink(missing_ok=True)
                raise
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"{path}: cannot be written ({reason}); mend that and start the command again"
        ) from error


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[IO[bytes]]:
    """Open ``path`` to write, as no other process does meanwhile."""
    while True:
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _lies_at(path, file):
                yield file
                return


def _lies_at(path: Path, file: IO[bytes]) -> bool:
    """False where the process we waited for has moved ``file`` to its place: then a new one is needed."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False

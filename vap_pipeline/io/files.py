"""Whole files, read and replaced in one piece, on this machine or at any fsspec address."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
from filelock import FileLock, Timeout

from vap_pipeline.io.errors import InputError, MissingFile

HOST = os.uname().nodename
LOCK = ".lock"  # the lock file of a folder
PARTIAL = re.compile(r"\.(.+)-(\d+)-[0-9a-f]{8}\.partial")  # host and process of an unfinished file
ALONE_TIMEOUT_S = 10.0  # until a folder that another process writes in is given up
ABANDONED_S = 24 * 3600  # after this time, what another host left unfinished counts as abandoned
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def filesystem(path: str | Path) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of an fsspec address or local path, and the path in it.

    Raises:
        InputError: the protocol is unknown, or its package is not installed.
    """
    try:
        return fsspec.core.url_to_fs(str(path))
    except (ValueError, ImportError) as error:
        raise InputError(f"{path}: {error}; check the address") from error


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn an error of reading into one that names the file; remote file systems have errors of their own.

    Raises:
        MissingFile: there is no such file.
        InputError: it cannot be read.
    """
    try:
        yield
    except InputError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFile(f"{path}: no such file; check the path, or run the stage before") from error
    except Exception as error:
        raise InputError(
            f"{path}: cannot be read ({reason(error)}); check the disk and its permissions"
        ) from error


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn an error of writing into one that names the file; remote file systems have errors of their own.

    Raises:
        InputError: it cannot be written.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{path}: cannot be written ({reason(error)}); make room or check its permissions, and start the "
            "command again"
        ) from error


def read(path: str | Path) -> bytes:
    """Return the content of ``path``.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    with reading(path):
        fs, inner = filesystem(path)
        if "file" in fs.protocol:
            check_regular(inner)
        return fs.cat_file(inner)


def sha256(path: Path, check_stop: Callable[[], None] = lambda: None) -> str:
    """Return the SHA-256 of a local file.

    Args:
        check_stop: called for each block; it may raise, to stop.

    Raises:
        InputError: it cannot be read.
    """
    digest = hashlib.sha256()
    with reading(path):
        check_regular(path)
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                check_stop()
                digest.update(block)
    return digest.hexdigest()


def exists(path: str | Path) -> bool:
    """Whether there is a file or folder ``path``."""
    fs, inner = filesystem(path)
    with reading(path):
        return fs.exists(inner)


def check_regular(path: str | Path, descriptor: int | None = None) -> None:
    """Raise unless ``path`` is a regular file or folder, or does not exist: opening a pipe would block.

    Args:
        descriptor: the file, if it is open already.

    Raises:
        InputError: a pipe, a device or a socket.
        OSError: its folder cannot be read.
    """
    try:
        mode = os.stat(path if descriptor is None else descriptor).st_mode  # noqa: PTH116 (also a descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InputError(f"{path}: a pipe or a device; give the path of a file")


def write(path: str | Path, content: bytes) -> None:
    """Replace ``path`` by ``content``, making its folder: a kill or a full disk leaves no half of a file.

    Raises:
        InputError: it cannot be written; the file before it is still there.
    """
    with writing(path), _staged(path, content) as put:
        put()


def write_together(contents: dict[str | Path, bytes]) -> None:
    """Replace files that belong together; readers look for the last of them.

    All are written out before the first is replaced, so a full disk changes nothing. A kill while they are
    replaced leaves the last one missing, rather than files of two runs. Two writers take turns.

    Raises:
        InputError: one cannot be written.
    """
    *_, last = contents
    puts: dict[str | Path, Callable[[], object]] = {}
    with contextlib.ExitStack() as stack:
        for path, content in contents.items():
            with writing(path):
                puts[path] = stack.enter_context(_staged(path, content))
        with writing(last):
            fs, inner = filesystem(last)
            if "file" in fs.protocol:
                stack.enter_context(locked(Path(inner).parent / LOCK))
            if fs.exists(inner):
                fs.rm_file(inner)
        for path, put in puts.items():
            with writing(path):
                put()


@contextlib.contextmanager
def _staged(path: str | Path, content: bytes) -> Iterator[Callable[[], object]]:
    """Write ``content`` to a hidden file beside ``path``; yield the function that puts it in its place.

    Nothing is staged on a remote file system: an object store puts an object whole or not at all.
    """
    fs, inner = filesystem(path)
    if "file" not in fs.protocol:
        yield lambda: (fs.makedirs(fs._parent(inner), exist_ok=True), fs.pipe_file(inner, content))
        return
    target = Path(inner)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent)
    partial = target.parent / partial_name()
    try:
        write_durably(partial, content)
        yield lambda: partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def write_durably(path: Path, content: bytes | memoryview) -> None:
    """Write a file down to the disk, so that a power cut after a rename leaves a whole file."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def reason(error: Exception) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


def partial_name() -> str:
    """Return a hidden name that no other writer has, for :func:`sweep` to find if this process is killed."""
    return f".{HOST}-{os.getpid()}-{secrets.token_hex(4)}.partial"


def sweep(folder: Path) -> None:
    """Remove the hidden files and folders that killed processes have left in ``folder``."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        if (match := PARTIAL.fullmatch(name)) and _is_abandoned(folder / name, *match.groups()):
            if (folder / name).is_dir():
                shutil.rmtree(folder / name, ignore_errors=True)
            else:
                (folder / name).unlink(missing_ok=True)


def _is_abandoned(path: Path, host: str, process: str) -> bool:
    if host == HOST and Path("/proc/self").exists() and not Path("/proc", process).exists():
        return True
    try:
        return time.time() - path.lstat().st_mtime > ABANDONED_S
    except OSError:
        return False


@contextlib.contextmanager
def locked(path: Path, timeout_s: float = -1) -> Iterator[bool]:
    """Hold the lock file ``path``, which is removed at the end; a killed process holds no lock.

    Yields:
        False if another process holds it for longer than ``timeout_s`` (−1: wait). True if it is held, and on
        file systems without locks, where two processes may do the same work, with the same result.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=timeout_s)
    except Timeout:
        yield False
        return
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def alone(folder: str) -> Iterator[None]:
    """Keep other processes out of a local folder, which is made; remote folders have no locks.

    Raises:
        InputError: another process has held it for ten seconds (the readers of a killed process need a
            moment to end), or the folder cannot be written.
    """
    fs, inner = filesystem(folder)
    if "file" not in fs.protocol:
        yield
        return
    with contextlib.ExitStack() as stack:
        with writing(folder):
            held = stack.enter_context(locked(Path(inner, LOCK), ALONE_TIMEOUT_S))
        if not held:
            raise InputError(
                f"{folder}: another process is writing there; wait for it, or give another --out"
            )
        yield

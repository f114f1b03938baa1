"""Whole files, read and replaced in one piece, on this machine or at any fsspec address."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
from filelock import FileLock, Timeout

from vap_pipeline.io.errors import InputError

HOST = os.uname().nodename
LOCK = ".lock"  # the lock file of a folder
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


def read(path: str | Path) -> bytes:
    """Return the content of ``path``.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    try:
        fs, inner = filesystem(path)
        if "file" in fs.protocol:
            check_regular(Path(inner))
        return fs.cat_file(inner)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; make it with the stage before, or check the path") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason(error)}); check its permissions") from error


def sha256(path: Path, check_stop: Callable[[], None] = lambda: None) -> str:
    """Return the SHA-256 of a local file.

    Args:
        check_stop: called again and again meanwhile; it may raise, to stop.

    Raises:
        InputError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        check_regular(path)
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                check_stop()
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    return digest.hexdigest()


def exists(path: str | Path) -> bool:
    """Whether there is a file or folder ``path``."""
    fs, inner = filesystem(path)
    return fs.exists(inner)


def check_regular(path: Path) -> None:
    """Raise unless ``path`` is a regular file or folder, or does not exist: opening a pipe would block.

    Raises:
        InputError: a pipe, a device or a socket.
        OSError: its folder cannot be read.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InputError(f"{path}: a pipe or a device; give the path of a file")


def write(path: str | Path, content: bytes, replace: bool = True) -> None:
    """Replace ``path`` by ``content``, making its folder: a kill or a full disk leaves no half of a file.

    Args:
        replace: False keeps a file that exists already, also one that is written at the same time.

    Raises:
        InputError: it cannot be written; the file before it is still there.
    """
    fs, inner = filesystem(path)
    with _writing(path, fs):
        if "file" not in fs.protocol:
            _put(fs, inner, content)
            return
        with _staged(Path(inner), content) as partial:
            if replace or not _linked(partial, Path(inner)):
                partial.replace(inner)


def write_together(contents: dict[str | Path, bytes]) -> None:
    """Replace files that belong together; readers look for the last of them.

    All are written out before the first is replaced, so a full disk changes nothing. A kill while they are
    replaced leaves the last one missing, rather than files of two runs. Two writers take turns.

    Raises:
        InputError: one cannot be written.
    """
    places = {path: filesystem(path) for path in contents}
    with contextlib.ExitStack() as stack:
        partials = {}
        for path, (fs, inner) in places.items():
            with _writing(path, fs):
                if "file" in fs.protocol:
                    partials[path] = stack.enter_context(_staged(Path(inner), contents[path]))
        last, (fs, inner) = list(places.items())[-1]
        with _writing(last, fs):
            if last in partials:
                stack.enter_context(locked(partials[last].parent / LOCK))
        for path, (fs, inner) in places.items():
            with _writing(path, fs):
                if fs.isdir(inner):
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        fs, inner = places[last]
        with _writing(last, fs):
            if fs.exists(inner):
                fs.rm_file(inner)
        for path, (fs, inner) in places.items():
            with _writing(path, fs):
                if path in partials:
                    partials[path].replace(inner)
                else:
                    _put(fs, inner, contents[path])


@contextlib.contextmanager
def _writing(path: str | Path, fs: fsspec.AbstractFileSystem) -> Iterator[None]:
    """Turn an error of writing into one that names the file; remote file systems have errors of their own."""
    try:
        yield
    except Exception as error:
        if "file" in fs.protocol and not isinstance(error, OSError):
            raise
        raise InputError(
            f"{path}: cannot be written ({reason(error)}); make room or check its permissions, and start the "
            "command again"
        ) from error


def _put(fs: fsspec.AbstractFileSystem, inner: str, content: bytes) -> None:
    """Write to a remote file system; an object store puts an object whole or not at all."""
    fs.makedirs(fs._parent(inner), exist_ok=True)
    fs.pipe_file(inner, content)


@contextlib.contextmanager
def _staged(target: Path, content: bytes) -> Iterator[Path]:
    """Write ``content`` to a hidden file beside ``target``, and remove it if it is still there at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent)
    partial = target.parent / f".{own_name()}.partial"
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def _linked(partial: Path, target: Path) -> bool:
    """Put a file in its place unless one is there; return False on file systems without links."""
    try:
        os.link(partial, target)
    except FileExistsError:
        return True
    except OSError:
        return False
    return True


def reason(error: Exception) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


def own_name() -> str:
    """Return a name that no other writer has."""
    return f"{HOST}-{os.getpid()}-{secrets.token_hex(4)}"


def is_abandoned(name: str, path: Path) -> bool:
    """Whether a killed process left ``path``, which it wrote under a ``name`` from :func:`own_name`."""
    host, pid, _ = name.rsplit("-", 2)
    try:
        if host == HOST and not Path("/proc", pid).exists() and Path("/proc/self").exists():
            return True
        return time.time() - path.lstat().st_mtime > ABANDONED_S
    except OSError:
        return False


def sweep(folder: Path) -> None:
    """Remove the hidden files that killed processes have left in ``folder``."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    for name in names:
        partial = re.fullmatch(r"\.(.+-\d+-[0-9a-f]{8})\.partial", name)
        if partial and is_abandoned(partial[1], folder / name):
            (folder / name).unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, timeout_s: float = -1) -> Iterator[bool]:
    """Hold the lock file ``path``, which is removed at the end; a killed process holds no lock.

    Yields:
        False if another process holds it for longer than ``timeout_s`` (−1: wait). True if it is held, and on
        file systems without locks, where two processes may do the same work, with the same result.
    """
    lock = FileLock(path)
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=timeout_s)
            break
        except FileNotFoundError:  # another process has removed the empty folder
            continue
        except Timeout:
            yield False
            return
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            break
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
        try:
            held = stack.enter_context(locked(Path(inner, LOCK), ALONE_TIMEOUT_S))
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be written ({error.strerror}); check its permissions, or give another "
                "--out"
            ) from error
        if not held:
            raise InputError(
                f"{folder}: another process is writing there; wait for it, or give another --out"
            )
        yield

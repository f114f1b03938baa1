"""Whole files, read and replaced in one piece, on this machine or any fsspec path."""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import fsspec

from vap_pipeline.io.errors import InputError

HOST = os.uname().nodename
ABANDONED_S = 24 * 3600  # after this long, what another host left unfinished is taken for a killed process's
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)  # EBADF: folders on NFS
NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)


def read(path: str | Path) -> bytes:
    """Return the content of ``path``.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    try:
        fs, inner = fsspec.core.url_to_fs(str(path))
        if "file" in fs.protocol:
            check_regular(Path(inner))
        with fsspec.open(str(path), "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; make it with the stage before, or mend the path") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def sha256(path: Path, ask: Callable[[], None] = lambda: None) -> str:
    """Return the SHA-256 of a file of this machine.

    Args:
        ask: called again and again meanwhile; it may raise, to stop.

    Raises:
        InputError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        check_regular(path)
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                ask()
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); mend that") from error
    return digest.hexdigest()


def exists(path: str | Path) -> bool:
    """Whether there is a file or folder ``path``."""
    fs, inner = fsspec.core.url_to_fs(str(path))
    return fs.exists(inner)


def check_regular(path: Path) -> None:
    """Refuse what may never end or never begin, before it is opened; a folder is left to who opens it.

    Raises:
        InputError: a pipe, a device or a socket.
        OSError: it cannot be looked at.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InputError(f"{path}: a pipe or a device, not a file; put a file there, or mend the path")


def write(path: str | Path, content: bytes, replace: bool = True) -> None:
    """Replace ``path`` by ``content``, making its folder: kills and full disks leave no half of a file.

    Args:
        replace: False leaves a file that is there as it is, also one that comes at the same time; on file
            systems that have no way to do that, and remote ones, the last one stays.

    Raises:
        InputError: it cannot be written; what was there before is still there.
    """
    fs, inner = fsspec.core.url_to_fs(str(path))
    with _told(path, fs):
        if "file" not in fs.protocol:
            _put(fs, inner, content)
            return
        with _staged(Path(inner), content) as partial:
            if replace or not _linked(partial, Path(inner)):
                partial.replace(inner)


def write_together(contents: dict[str | Path, bytes]) -> None:
    """Replace files that belong together, the last of which is the one that readers look for.

    All are written out before any is replaced, so a full disk changes nothing; a kill while they are replaced
    leaves the last absent, rather than files of two makings. Two writers on one host take turns.

    Raises:
        InputError: one cannot be written.
    """
    places = {path: fsspec.core.url_to_fs(str(path)) for path in contents}
    with contextlib.ExitStack() as stack:
        partials = {}
        for path, (fs, inner) in places.items():
            with _told(path, fs):
                if "file" in fs.protocol:
                    partials[path] = stack.enter_context(_staged(Path(inner), contents[path]))
        last, (fs, inner) = list(places.items())[-1]
        with _told(last, fs):
            if last in partials:
                handle = os.open(partials[last].parent, os.O_RDONLY | os.O_DIRECTORY)
                stack.callback(os.close, handle)
                lock(handle, wait=True)
        for path, (fs, inner) in places.items():
            with _told(path, fs):
                if fs.isdir(inner):
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with _told(last, fs):
            if fs.exists(inner):
                fs.rm_file(inner)
        for path, (fs, inner) in places.items():
            with _told(path, fs):
                if path in partials:
                    partials[path].replace(inner)
                else:
                    _put(fs, inner, contents[path])


@contextlib.contextmanager
def _told(path: str | Path, fs: fsspec.AbstractFileSystem) -> Iterator[None]:
    """Name a file that cannot be written; remote file systems have errors of their own."""
    try:
        yield
    except Exception as error:
        if "file" in fs.protocol and not isinstance(error, OSError):
            raise
        raise InputError(
            f"{path}: cannot be written ({reason(error)}); mend that and start the command again"
        ) from error


def _put(fs: fsspec.AbstractFileSystem, inner: str, content: bytes) -> None:
    """An object store puts an object whole or not at all."""
    fs.makedirs(fs._parent(inner), exist_ok=True)
    fs.pipe_file(inner, content)


@contextlib.contextmanager
def _staged(target: Path, content: bytes) -> Iterator[Path]:
    """Write ``content`` to a hidden file beside ``target``."""
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent)
    with _own(target.parent) as (partial, file):
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        yield partial


def reason(error: Exception) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


def own_name() -> str:
    """Return a name that no other writer has: without locks two writers do double work, and no harm."""
    return f"{HOST}-{os.getpid()}-{secrets.token_hex(4)}"


def is_abandoned(name: str, path: Path, locked: bool) -> bool:
    """Whether what was written at ``path``, under a name from :func:`own_name`, is a killed process's.

    Args:
        locked: whether we hold the lock that its writer would hold. Locks hold within a host, but on network
            file systems not always between hosts.
    """
    if locked and name.rsplit("-", 2)[0] == HOST:
        return True
    try:
        return time.time() - path.lstat().st_mtime > ABANDONED_S
    except OSError:
        return False


def lock(handle: int, wait: bool) -> bool:
    """Lock an open file; False where its file system knows no locks.

    Raises:
        BlockingIOError: another process has it, and we are not to wait.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


@contextlib.contextmanager
def alone(folder: str) -> Iterator[None]:
    """Keep other processes of this host from a folder, which is made. Remote folders have no locks.

    Raises:
        InputError: another process has it, and does not end within ten seconds (as the readers of a killed
            one do), or the folder cannot be made.
    """
    fs, inner = fsspec.core.url_to_fs(folder)
    if "file" not in fs.protocol:
        yield
        return
    try:
        Path(inner).mkdir(parents=True, exist_ok=True)
        handle = os.open(inner, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); mend that") from error
    try:
        for left in reversed(range(101)):
            try:
                lock(handle, wait=False)
                break
            except BlockingIOError as error:
                if not left:
                    raise InputError(
                        f"{folder}: another process is writing there; wait for it, or give another --out"
                    ) from error
                time.sleep(0.1)
        yield
    finally:
        os.close(handle)


def lies_at(path: Path, handle: int) -> bool:
    """False where an open file has been removed or moved from ``path``."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(handle))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _own(folder: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """Open a hidden file of our own, locked so that it is seen to be in use; removed where it still lies."""
    while True:
        partial = folder / f".{own_name()}.partial"
        with partial.open("xb") as file:
            lock(file.fileno(), wait=True)
            if not lies_at(partial, file.fileno()):
                continue  # swept before it was locked
            try:
                yield partial, file
            finally:
                partial.unlink(missing_ok=True)
            return


def sweep(folder: Path) -> None:
    """Remove the hidden files that killed processes have left."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    for name in names:
        if found := re.fullmatch(r"\.(.+-\d+-[0-9a-f]{8})\.partial", name):
            path = folder / name
            with contextlib.suppress(OSError):  # in use, or gone meanwhile
                handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    if is_abandoned(found[1], path, lock(handle, wait=False)):
                        path.unlink()
                finally:
                    os.close(handle)


def _linked(partial: Path, target: Path) -> bool:
    """Put a file in its place unless there is one; False where the file system cannot do that."""
    try:
        os.link(partial, target)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return False
    return True

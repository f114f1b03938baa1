"""A folder whose subfolders are there complete or not at all, on this machine or at any fsspec path.

A subfolder counts when it holds a file of a certain name, its mark.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError

PARTIAL = ".partial"
LOCK = "lock"


def open_folder(path: str, mark: str) -> "LocalFolder | RemoteFolder":
    """Return the folder at ``path``, which need not exist: by system calls here, through fsspec elsewhere."""
    path = path.removeprefix("file://")
    return RemoteFolder(path, mark) if "://" in path else LocalFolder(path, mark)


class LocalFolder:
    """A folder of this machine."""

    def __init__(self, root: str, mark: str) -> None:
        self.root, self.mark = root, mark

    def names(self) -> list[str]:
        """Return the subfolders that count, sorted; hidden ones are left out."""
        with os.scandir(self.root) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".")]
        return sorted(name for name in names if self.exists(f"{name}/{self.mark}"))

    def exists(self, name: str) -> bool:
        """Whether there is a file ``name``."""
        return os.path.isfile(f"{self.root}/{name}")  # noqa: PTH113 (thousands of times as a store is opened)

    def size(self, name: str) -> int:
        """Return the bytes in a file, -1 where there is none."""
        try:
            return Path(self.root, name).stat().st_size
        except OSError:
            return -1

    def head(self, name: str, limit: int) -> bytes | None:
        """Return at most ``limit`` bytes of a file from its start, None where there is none."""
        try:
            file = self._open(name)
            try:
                return os.pread(file, limit, 0)
            finally:
                os.close(file)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unreadable(name, error) from error

    def read_into(self, name: str, offset: int, array: np.ndarray) -> bool:
        """Fill a contiguous array from ``offset`` on; False if the file ends before.

        A read rather than a memory map: as fast, no file kept open, and a file that shrinks is an error where
        a map would end the process with SIGBUS.
        """
        buffer = array.data.cast("B")
        try:
            file = self._open(name)
            try:
                while buffer:
                    count = os.preadv(file, [buffer], offset)
                    if not count:
                        return False
                    buffer, offset = buffer[count:], offset + count
            finally:
                os.close(file)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._unreadable(name, error) from error
        return True

    def _open(self, name: str) -> int:
        file = os.open(f"{self.root}/{name}", os.O_RDONLY | os.O_NONBLOCK)  # a pipe would be waited for
        mode = os.fstat(file).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            os.close(file)
            raise InputError(f"{self.root}/{name}: a pipe or a device, not a file; make the store again")
        return file

    def _unreadable(self, name: str, error: OSError) -> InputError:
        return InputError(f"{self.root}/{name}: cannot be read ({error.strerror})")

    @contextmanager
    def lock(self, name: str, wait: bool) -> Iterator[bool]:
        """Hold subfolder ``name`` against other processes; yields False where another holds it.

        With ``wait``, waits for the other instead. A lock is one on a hidden file, made for it and removed
        after it, so that a killed process holds none; what such a one left of the subfolder is removed. Where
        the file system knows no locks, or they do not hold between hosts, work is done twice.

        Raises:
            InputError: a link leads elsewhere, where we would write or remove files.
            OSError: the place cannot be written.
        """
        folder = Path(self.root, PARTIAL, name)
        for link in (folder.parent, folder, folder / LOCK):
            if link.is_symlink():
                raise InputError(f"{link}: a link, which nothing is written through; remove it")
        while True:
            with suppress(FileNotFoundError):  # removed by its holder in between
                folder.mkdir(parents=True, exist_ok=True)
                handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
                try:
                    locked = files.lock(handle, wait)
                except BlockingIOError:
                    os.close(handle)
                    yield False
                    return
                if files.lies_at(folder / LOCK, handle):
                    break
                os.close(handle)
        try:
            self._sweep(folder, locked)
            yield True
        finally:
            (folder / LOCK).unlink(missing_ok=True)
            os.close(handle)
            with suppress(OSError):  # another process works below it
                folder.rmdir()
                folder.parent.rmdir()

    def _sweep(self, folder: Path, locked: bool) -> None:
        """Remove what killed processes have left of a subfolder."""
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            for path in [Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False)]:
                if files.is_abandoned(path.name, path, locked):
                    shutil.rmtree(path, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what killed processes have left of any subfolder, and of the mark."""
        files.sweep(Path(self.root))
        with suppress(FileNotFoundError), os.scandir(Path(self.root, PARTIAL)) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
            for name in names:
                with self.lock(name, wait=False):
                    pass

    def publish(self, name: str, contents: Iterable[tuple[str, memoryview]]) -> None:
        """Write a subfolder, given as names and contents of its files, in place of what is there.

        It is written beside its place and renamed when whole, so that it is there complete or not at all.
        Needs the lock on it.

        Raises:
            OSError: it cannot be written.
        """
        partial, target = Path(self.root, PARTIAL, name, files.own_name()), Path(self.root, name)
        partial.mkdir(parents=True)
        try:
            for file, content in contents:
                path = partial / "new" / file
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as opened:
                    opened.write(content)
                    opened.flush()
                    os.fsync(opened.fileno())  # before the folder is renamed: a power cut must not halve it
            while True:
                with suppress(FileNotFoundError):  # nothing there
                    target.rename(partial / "old")
                try:
                    (partial / "new").rename(target)
                    return
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                shutil.rmtree(partial / "old", ignore_errors=True)  # one without a lock was faster: once more
        finally:
            shutil.rmtree(partial, ignore_errors=True)


class RemoteFolder:
    """A folder at an fsspec address. The file system is looked up each time: fsspec keeps one a process."""

    def __init__(self, root: str, mark: str) -> None:
        self.root, self.mark = root.rstrip("/"), mark

    def _at(self, name: str = "") -> tuple[Any, str]:
        import fsspec

        try:
            return fsspec.core.url_to_fs(f"{self.root}/{name}" if name else self.root)
        except (ValueError, ImportError) as error:
            raise InputError(f"{self.root}: {error}") from error

    @contextmanager
    def _told(self, name: str = "") -> Iterator[None]:
        """Name what cannot be read: every file system has errors of its own."""
        try:
            yield
        except (FileNotFoundError, InputError):
            raise
        except Exception as error:
            place = f"{self.root}/{name}" if name else self.root
            raise InputError(f"{place}: cannot be read ({files.reason(error)})") from error

    def names(self) -> list[str]:
        """Return the subfolders that count, sorted; hidden ones are left out."""
        fs, root = self._at()
        with self._told():
            fs.invalidate_cache()
            names = {path.rstrip("/").rpartition("/")[2] for path in fs.ls(root, detail=False)}
            marks = {f"{root}/{name}/{self.mark}": name for name in names if name and name[0] != "."}
            found = fs.cat(list(marks), on_error="omit") if marks else {}
        return sorted(marks[path] for path in found)

    def exists(self, name: str) -> bool:
        """Whether there is a file ``name``."""
        fs, path = self._at(name)
        with self._told(name):
            return fs.exists(path)

    def size(self, name: str) -> int:
        """Return the bytes in a file, -1 where there is none or nobody tells."""
        fs, path = self._at(name)
        try:
            with self._told(name):
                size = fs.info(path)["size"]
        except FileNotFoundError:
            return -1
        return -1 if size is None else size

    def head(self, name: str, limit: int) -> bytes | None:
        """Return at most ``limit`` bytes of a file from its start, None where there is none."""
        fs, path = self._at(name)
        try:
            with self._told(name):
                return fs.cat_file(path, start=0, end=limit)
        except FileNotFoundError:
            return None

    def read_into(self, name: str, offset: int, array: np.ndarray) -> bool:
        """Fill a contiguous array from ``offset`` on; False if the file ends before."""
        fs, path = self._at(name)
        try:
            with self._told(name):
                content = fs.cat_file(path, start=offset, end=offset + array.nbytes)
        except FileNotFoundError:
            return False
        if len(content) > array.nbytes:  # a web server that knows no ranges sends the whole file
            content = content[offset : offset + array.nbytes]
        if len(content) < array.nbytes:
            return False
        array.data.cast("B")[:] = content
        return True

    @contextmanager
    def lock(self, name: str, wait: bool) -> Iterator[bool]:
        """There are no locks: two writers do the same work twice, and the result is right."""
        yield True

    def sweep(self) -> None:
        """A killed process leaves files in place, which do not count and are overwritten."""

    def publish(self, name: str, contents: Iterable[tuple[str, memoryview]]) -> None:
        """Write a subfolder, given as names and contents of its files, in place of what is there.

        Its mark is taken away first and, being last of the contents, comes back last.
        """
        fs, mark = self._at(f"{name}/{self.mark}")
        if fs.exists(mark):
            fs.rm_file(mark)
        for file, content in contents:
            files.write(f"{self.root}/{name}/{file}", bytes(content))

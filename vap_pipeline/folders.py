"""A folder whose subfolders are there complete or not at all, on this machine or at any fsspec path.

A subfolder counts when it holds a file of a certain name, its mark.
"""

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from vap_pipeline import files
from vap_pipeline.errors import InputError

PARTIAL = ".partial"


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
            with Path(self.root, name).open("rb") as file:
                return file.read(limit)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise InputError(f"{self.root}/{name}: cannot be read ({error.strerror})") from error

    def read_into(self, name: str, offset: int, array: np.ndarray) -> bool:
        """Fill a contiguous array from ``offset`` on; False if the file ends before.

        A read rather than a memory map: as fast, no file kept open, and a file that shrinks is an error where
        a map would end the process with SIGBUS.
        """
        buffer = array.data.cast("B")
        try:
            file = os.open(f"{self.root}/{name}", os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            while buffer:
                count = os.preadv(file, [buffer], offset)
                if not count:
                    return False
                buffer, offset = buffer[count:], offset + count
        finally:
            os.close(file)
        return True

    @contextmanager
    def lock(self, name: str, wait: bool) -> Iterator[bool]:
        """Hold subfolder ``name`` against other processes; yields False where another holds it.

        With ``wait``, waits for the other instead. A lock is one on a hidden folder, made for it and removed
        after it, so that a killed process holds none.
        """
        folder = Path(self.root, PARTIAL, name)
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # removed by its holder in between
                handle = os.open(folder, os.O_RDONLY)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                    if os.path.samestat(os.fstat(handle), folder.stat()):
                        break
                except BlockingIOError:
                    os.close(handle)
                    yield False
                    return
                os.close(handle)
        try:
            yield True
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)
            with suppress(OSError):  # another process works below it
                folder.parent.rmdir()

    def publish(self, name: str, contents: Iterable[tuple[str, memoryview]]) -> None:
        """Write a subfolder, given as names and contents of its files, in place of what is there.

        It is written beside its place and renamed when whole, so that it is there complete or not at all.
        Needs the lock on it.

        Raises:
            OSError: it cannot be written.
        """
        partial, target = Path(self.root, PARTIAL, name), Path(self.root, name)
        for leftover in ("new", "old"):  # of a process that was killed
            shutil.rmtree(partial / leftover, ignore_errors=True)
        for file, content in contents:
            path = partial / "new" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as opened:
                opened.write(content)
                opened.flush()
                os.fsync(opened.fileno())  # before the folder is renamed: a power cut must not halve it
        if target.exists():
            target.rename(partial / "old")
        (partial / "new").rename(target)


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

    def names(self) -> list[str]:
        """Return the subfolders that count, sorted; hidden ones are left out."""
        fs, root = self._at()
        fs.invalidate_cache()
        names = {path.rstrip("/").rpartition("/")[2] for path in fs.ls(root, detail=False)}
        marks = {f"{root}/{name}/{self.mark}": name for name in names if name and name[0] != "."}
        found = fs.cat(list(marks), on_error="omit") if marks else {}
        return sorted(marks[path] for path in found)

    def exists(self, name: str) -> bool:
        """Whether there is a file ``name``."""
        fs, path = self._at(name)
        return fs.exists(path)

    def size(self, name: str) -> int:
        """Return the bytes in a file, -1 where there is none or nobody tells."""
        fs, path = self._at(name)
        try:
            size = fs.info(path)["size"]
        except FileNotFoundError:
            return -1
        return -1 if size is None else size

    def head(self, name: str, limit: int) -> bytes | None:
        """Return at most ``limit`` bytes of a file from its start, None where there is none."""
        fs, path = self._at(name)
        try:
            return fs.cat_file(path, start=0, end=limit)
        except FileNotFoundError:
            return None
        except Exception as error:  # every file system has errors of its own
            raise InputError(f"{self.root}/{name}: cannot be read ({error})") from error

    def read_into(self, name: str, offset: int, array: np.ndarray) -> bool:
        """Fill a contiguous array from ``offset`` on; False if the file ends before."""
        fs, path = self._at(name)
        content = fs.cat_file(path, start=offset, end=offset + array.nbytes)
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

    def publish(self, name: str, contents: Iterable[tuple[str, memoryview]]) -> None:
        """Write a subfolder, given as names and contents of its files, in place of what is there.

        Its mark is taken away first and, being last of the contents, comes back last.
        """
        fs, mark = self._at(f"{name}/{self.mark}")
        if fs.exists(mark):
            fs.rm_file(mark)
        for file, content in contents:
            files.write(f"{self.root}/{name}/{file}", bytes(content))

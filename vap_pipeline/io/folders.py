"""A folder whose subfolders are complete or absent, on this machine or at any fsspec address.

A subfolder counts if it holds a file with a certain name, its mark.
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

PARTIAL = ".partial"  # subfolder with locks, and with what is being written


def open_folder(path: str, mark: str) -> "LocalFolder | RemoteFolder":
    """Return the folder at ``path``, which need not exist; a local one works without fsspec, and faster."""
    path = path.removeprefix("file://")
    return RemoteFolder(path, mark) if "://" in path else LocalFolder(path, mark)


class LocalFolder:
    """A folder of this machine."""

    def __init__(self, root: str, mark: str) -> None:
        self.root, self.mark = root, mark

    def names(self) -> list[str]:
        """Return the names of the subfolders that count, sorted, without hidden ones."""
        with os.scandir(self.root) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".")]
        return sorted(name for name in names if self.exists(f"{name}/{self.mark}"))

    def exists(self, name: str) -> bool:
        """Whether there is a file ``name``."""
        return os.path.isfile(f"{self.root}/{name}")  # noqa: PTH113 (thousands of times as a store is opened)

    def size(self, name: str) -> int:
        """Return the size of a file in bytes, −1 if there is none."""
        try:
            return Path(self.root, name).stat().st_size
        except OSError:
            return -1

    def head(self, name: str, limit: int) -> bytes | None:
        """Return at most ``limit`` bytes from the start of a file, None if there is none."""
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

        It is a read rather than a memory map: as fast, it keeps no file open, and a file that shrinks is an
        error, where a map would end the process with SIGBUS.
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
        file = os.open(f"{self.root}/{name}", os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe would block
        mode = os.fstat(file).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            os.close(file)
            raise InputError(f"{self.root}/{name}: a pipe or a device; make the store again")
        return file

    def _unreadable(self, name: str, error: OSError) -> InputError:
        return InputError(
            f"{self.root}/{name}: cannot be read ({error.strerror}); check the disk and its permissions"
        )

    @contextmanager
    def lock(self, name: str, wait: bool) -> Iterator[bool]:
        """Hold subfolder ``name`` against other processes; yields False if another holds it.

        With ``wait``, wait for the other instead.

        Raises:
            OSError: the folder cannot be written.
        """
        path = Path(self.root, PARTIAL, f"{name}.lock")
        try:
            with files.locked(path, -1 if wait else 0) as held:
                yield held
        finally:
            with suppress(OSError):  # another process works there
                path.parent.rmdir()

    def sweep(self) -> None:
        """Remove locks that are not held, and what killed processes have left unfinished."""
        files.sweep(Path(self.root))
        folder = Path(self.root, PARTIAL)
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in list(entries):
                if entry.is_dir(follow_symlinks=False) and files.is_abandoned(entry.name, Path(entry)):
                    shutil.rmtree(entry, ignore_errors=True)
                elif entry.name.endswith(".lock"):
                    with files.locked(Path(entry), 0):  # removes one that is free
                        pass
        with suppress(OSError):  # another process works there
            folder.rmdir()

    def publish(self, name: str, contents: Iterable[tuple[str, memoryview]]) -> None:
        """Write a subfolder, given as names and contents of its files, in place of the one that is there.

        It is written elsewhere and renamed when it is complete, so that it is complete or absent.

        Raises:
            OSError: it cannot be written.
        """
        partial, target = Path(self.root, PARTIAL, files.own_name()), Path(self.root, name)
        partial.mkdir(parents=True)
        try:
            for file, content in contents:
                path = partial / "new" / file
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as opened:
                    opened.write(content)
                    opened.flush()
                    os.fsync(opened.fileno())  # before the rename, in case of a power cut
            while True:
                with suppress(FileNotFoundError):  # there was none
                    target.rename(partial / "old")
                try:
                    (partial / "new").rename(target)
                    return
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                shutil.rmtree(partial / "old", ignore_errors=True)  # another writer was faster: once more
        finally:
            shutil.rmtree(partial, ignore_errors=True)


class RemoteFolder:
    """A folder at an fsspec address. The file system is looked up each time: fsspec caches it per process."""

    def __init__(self, root: str, mark: str) -> None:
        self.root, self.mark = root.rstrip("/"), mark

    def _at(self, name: str = "") -> tuple[Any, str]:
        return files.filesystem(f"{self.root}/{name}" if name else self.root)

    @contextmanager
    def _naming(self, name: str = "") -> Iterator[None]:
        """Turn an error of reading into one that names the file; every file system has errors of its own."""
        try:
            yield
        except (FileNotFoundError, InputError):
            raise
        except Exception as error:
            place = f"{self.root}/{name}" if name else self.root
            raise InputError(f"{place}: cannot be read ({files.reason(error)})") from error

    def names(self) -> list[str]:
        """Return the names of the subfolders that count, sorted, without hidden ones."""
        fs, root = self._at()
        with self._naming():
            fs.invalidate_cache()
            names = {path.rstrip("/").rpartition("/")[2] for path in fs.ls(root, detail=False)}
            marks = {f"{root}/{name}/{self.mark}": name for name in names if name and name[0] != "."}
            present = fs.cat(list(marks), on_error="omit") if marks else {}
        return sorted(marks[path] for path in present)

    def exists(self, name: str) -> bool:
        """Whether there is a file ``name``."""
        fs, path = self._at(name)
        with self._naming(name):
            return fs.exists(path)

    def size(self, name: str) -> int:
        """Return the size of a file in bytes, −1 if there is none or the size is unknown."""
        fs, path = self._at(name)
        try:
            with self._naming(name):
                size = fs.info(path)["size"]
        except FileNotFoundError:
            return -1
        return -1 if size is None else size

    def head(self, name: str, limit: int) -> bytes | None:
        """Return at most ``limit`` bytes from the start of a file, None if there is none."""
        fs, path = self._at(name)
        try:
            with self._naming(name):
                return fs.cat_file(path, start=0, end=limit)
        except FileNotFoundError:
            return None

    def read_into(self, name: str, offset: int, array: np.ndarray) -> bool:
        """Fill a contiguous array from ``offset`` on; False if the file ends before."""
        fs, path = self._at(name)
        try:
            with self._naming(name):
                content = fs.cat_file(path, start=offset, end=offset + array.nbytes)
        except FileNotFoundError:
            return False
        if len(content) > array.nbytes:  # a web server without ranges sends the whole file
            content = content[offset : offset + array.nbytes]
        if len(content) < array.nbytes:
            return False
        array.data.cast("B")[:] = content
        return True

    @contextmanager
    def lock(self, name: str, wait: bool) -> Iterator[bool]:
        """Yield True: there are no locks, so two writers do the same work twice, with the same result."""
        yield True

    def sweep(self) -> None:
        """Do nothing: the files of a killed process do not count, and are overwritten."""

    def publish(self, name: str, contents: Iterable[tuple[str, memoryview]]) -> None:
        """Write a subfolder, given as names and contents of its files, in place of the one that is there.

        The mark is removed first and, being the last of the contents, written last.
        """
        fs, mark = self._at(f"{name}/{self.mark}")
        if fs.exists(mark):
            fs.rm_file(mark)
        for file, content in contents:
            files.write(f"{self.root}/{name}/{file}", bytes(content))

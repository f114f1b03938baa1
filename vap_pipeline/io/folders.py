"""A folder whose subfolders are complete or absent, on this machine or at any fsspec address.

A subfolder counts if it holds a file with a certain name, its mark.
"""

import errno
import os
import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import numpy as np

from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError


def open_folder(path: str, mark: str) -> "LocalFolder | RemoteFolder":
    """Return the folder at ``path``, which need not exist; a local one works without fsspec, and faster."""
    path = path.removeprefix("file://")
    return RemoteFolder(path, mark) if "://" in path else LocalFolder(path, mark)


def _truncated(path: str) -> InputError:
    return InputError(f"{path}: truncated; run the command that made it again")


def _open(path: str) -> int:
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe would block
    try:
        files.check_regular(path, file)
    except InputError:
        os.close(file)
        raise
    return file


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

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            MissingFile: there is none.
        """
        path = f"{self.root}/{name}"
        with files.reading(path):
            file = _open(path)
            try:
                return os.read(file, os.fstat(file).st_size)
            finally:
                os.close(file)

    def read_into(self, name: str, offset: int, array: np.ndarray) -> None:
        """Fill a contiguous array from ``offset`` on.

        It is a read rather than a memory map: as fast, it keeps no file open, and a file that shrinks is an
        error, where a map would end the process with SIGBUS.

        Raises:
            InputError: the file is missing, cannot be read, or ends before.
        """
        path, buffer = f"{self.root}/{name}", array.data.cast("B")
        with files.reading(path):
            file = _open(path)
            try:
                while buffer:
                    count = os.preadv(file, [buffer], offset)
                    if not count:
                        raise _truncated(path)
                    buffer, offset = buffer[count:], offset + count
            finally:
                os.close(file)

    def lock(self, name: str) -> AbstractContextManager[bool]:
        """Hold subfolder ``name`` against other processes; yields False if another holds it.

        Raises:
            OSError: the folder cannot be written.
        """
        return files.locked(Path(self.root, f".{name}.lock"), timeout_s=0)

    def sweep(self) -> None:
        """Remove locks that are not held, and what killed processes have left unfinished."""
        files.sweep(Path(self.root))
        for lock in Path(self.root).glob(".*.lock"):
            with files.locked(lock, 0):  # removes one that is free
                pass

    def publish(self, name: str, contents: Iterable[tuple[str, memoryview]]) -> None:
        """Write a subfolder, given as names and contents of its files, in place of the one that is there.

        It is written elsewhere and renamed when it is complete, so that it is complete or absent.

        Raises:
            OSError: it cannot be written.
        """
        partial, target = Path(self.root, files.partial_name()), Path(self.root, name)
        partial.mkdir()
        try:
            for file, content in contents:
                path = partial / "new" / file
                path.parent.mkdir(parents=True, exist_ok=True)
                files.write_durably(path, content)
            while True:
                with suppress(FileNotFoundError):  # the name is new
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

    def names(self) -> list[str]:
        """Return the names of the subfolders that count, sorted, without hidden ones."""
        fs, root = files.filesystem(self.root)
        with files.reading(self.root):
            fs.invalidate_cache()
            names = {path.rstrip("/").rpartition("/")[2] for path in fs.ls(root, detail=False)}
            marks = {f"{root}/{name}/{self.mark}": name for name in names if name and name[0] != "."}
            present = fs.cat(list(marks), on_error="omit") if marks else {}
        return sorted(marks[path] for path in present)

    def exists(self, name: str) -> bool:
        """Whether there is a file ``name``."""
        return files.exists(f"{self.root}/{name}")

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            MissingFile: there is none.
        """
        return files.read(f"{self.root}/{name}")

    def read_into(self, name: str, offset: int, array: np.ndarray) -> None:
        """Fill a contiguous array from ``offset`` on.

        Raises:
            InputError: the file is missing, cannot be read, or ends before.
        """
        fs, path = files.filesystem(f"{self.root}/{name}")
        with files.reading(f"{self.root}/{name}"):
            content = fs.cat_file(path, start=offset, end=offset + array.nbytes)
        if len(content) > array.nbytes:  # a web server without ranges sends the whole file
            content = content[offset : offset + array.nbytes]
        if len(content) < array.nbytes:
            raise _truncated(f"{self.root}/{name}")
        array.data.cast("B")[:] = content

    def lock(self, name: str) -> AbstractContextManager[bool]:
        """Yield True: there are no locks, so two writers do the same work twice, with the same result."""
        return nullcontext(True)

    def sweep(self) -> None:
        """Do nothing: the files of a killed process do not count, and are overwritten."""

    def publish(self, name: str, contents: Iterable[tuple[str, memoryview]]) -> None:
        """Write a subfolder, given as names and contents of its files, in place of the one that is there.

        The mark is removed first and, being the last of the contents, written last.
        """
        fs, mark = files.filesystem(f"{self.root}/{name}/{self.mark}")
        if fs.exists(mark):
            fs.rm_file(mark)
        for file, content in contents:
            files.write(f"{self.root}/{name}/{file}", bytes(content))

"""A part of a file as a file of its own, behind a header that we write: what libsndfile is given to read."""

import io
import os
from pathlib import Path
from typing import Any


class Window(io.RawIOBase):
    """Bytes ``start`` to ``stop`` of the file ``path``, read-only, after the bytes ``head``."""

    def __init__(self, path: Path, head: bytes, start: int, stop: int) -> None:
        self.file = path.open("rb")
        self.head, self.start, self.length = head, start, len(head) + stop - start
        self.position = 0

    def close(self) -> None:
        self.file.close()
        super().close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.position = offset + (0, self.position, self.length)[whence]
        return self.position

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        if self.position < len(self.head):
            content = self.head[self.position :][: len(target)]
        else:
            self.file.seek(self.start + self.position - len(self.head))
            content = self.file.read(max(min(len(target), self.length - self.position), 0))
        target[: len(content)] = content
        self.position += len(content)
        return len(content)

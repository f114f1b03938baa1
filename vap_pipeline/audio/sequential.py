"""Reading by sample number from a decoder that is exact only from one place on."""

import threading
from collections.abc import Callable, Iterator

import numpy as np

Read = Callable[[int, int], np.ndarray]
Decode = Callable[[int], Iterator[tuple[int, np.ndarray]]]


class Sequential:
    """The samples of a decoder by number, in any order; to read on is fast, to go back may not be.

    Args:
        decode: yields blocks (n, channels) with the number of their first sample, from one number or from
            earlier on.
        near: the decoder is started afresh for samples further ahead than this many.
    """

    def __init__(self, decode: Decode, near: float) -> None:
        self.decode, self.near, self.lock = decode, near, threading.Lock()
        self.blocks: Iterator[tuple[int, np.ndarray]] = iter(())
        self.rest, self.position = np.zeros((0, 0), np.float32), -1  # decoded already, and its first number

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return samples ``start`` to ``stop``, (stop - start, channels) float32; fewer at the end."""
        with self.lock:
            if self.position < 0 or not 0 <= start - self.position <= self.near:
                self.blocks, self.rest, self.position = self.decode(start), self.rest[:0], start
            self.rest = self.rest[start - self.position :]
            parts = [self.rest] if len(self.rest) else []
            held = len(self.rest)
            while held < stop - start and (following := next(self.blocks, None)):
                number, block = following
                parts.append(block[max(start - number, 0) :])
                held += len(parts[-1])
            whole = np.concatenate(parts) if parts else self.rest
            self.position, self.rest = stop, whole[stop - start :]
            return whole[: stop - start]

"""Audio that libsndfile does not read (M4A, AAC), through PyAV, an optional library."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vap_pipeline.io.errors import InputError

SUFFIXES = (".m4a", ".mp4", ".aac")
LEAD_IN_S = 1  # decoded before the samples that are wanted: a frame depends on those before it


def measure(path: Path) -> tuple[int, int, int]:
    """Return channels, rate and samples of a file, which is decoded for it.

    Raises:
        InputError: PyAV is missing, or cannot read the file.
    """
    reader = Reader(path)
    samples = sum(len(block) for _, block in reader.decode(0))
    return reader.channels, reader.rate, samples


class Reader:
    """The samples of a file by number, in any order; reading on from where the last part ended is fastest."""

    def __init__(self, path: Path) -> None:
        try:
            import av
        except ImportError as error:
            raise InputError(
                f"{path}: reading {path.suffix} files needs PyAV; run `pip install 'vap-pipeline[formats]'`"
            ) from error
        first: Any
        self.path, self.error, self.lock = path, av.FFmpegError, threading.Lock()
        try:
            self.container = av.open(str(path))
            self.stream = self.container.streams.audio[0]
            first = next(self.container.decode(self.stream))
        except (av.FFmpegError, IndexError, StopIteration) as error:
            raise self._refusal(error) from error
        self.origin, self.channels, self.rate = first.pts, first.layout.nb_channels, first.sample_rate
        self.blocks: Iterator[tuple[int, np.ndarray]] = iter(())
        self.rest, self.position = np.zeros((0, self.channels), np.float32), -1

    def decode(self, start: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield blocks (n, channels) from ``start`` or earlier on, with the number of their first sample."""
        import av

        base = self.stream.time_base
        planes = av.AudioResampler("fltp")
        try:
            lead_in = int(max(start / self.rate - LEAD_IN_S, 0) / base)
            self.container.seek(self.origin + lead_in, stream=self.stream)
            frame: Any
            for frame in self.container.decode(self.stream):
                number = round((frame.pts - self.origin) * base * self.rate)
                for part in planes.resample(frame):
                    yield number, part.to_ndarray().T
        except self.error as error:
            raise self._refusal(error) from error

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return samples ``start`` to ``stop``, (stop - start, channels) float32; fewer at the end."""
        with self.lock:
            if start != self.position:
                self.blocks, self.rest = self.decode(start), self.rest[:0]
            parts, missing = [self.rest], stop - start - len(self.rest)
            while missing > 0 and (following := next(self.blocks, None)):
                number, block = following
                parts.append(block[max(start - number, 0) :])
                missing -= len(parts[-1])
            whole = np.concatenate(parts)
            self.position, self.rest = stop, whole[stop - start :]
            return whole[: stop - start]

    def _refusal(self, error: Exception) -> InputError:
        return InputError(f"{self.path}: cannot be decoded ({error}); copy or convert it again")

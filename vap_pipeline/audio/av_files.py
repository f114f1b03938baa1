"""Audio that libsndfile does not read (M4A, AAC), through PyAV, an optional library."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vap_pipeline.audio.sequential import Read, Sequential
from vap_pipeline.io.errors import InputError

SUFFIXES = (".m4a", ".mp4", ".aac")
NEAR_S = 30  # ahead: decoding up to there is faster than to seek
LEAD_IN_S = 1  # decoded before the samples that are wanted: a frame depends on those before it


def measure(path: Path) -> tuple[int, int, int]:
    """Return channels, rate and samples of a file, which is decoded for it.

    Raises:
        InputError: PyAV is missing, or cannot read the file.
    """
    decoder = Decoder(path)
    samples = sum(len(block) for _, block in decoder.decode(0))
    return decoder.channels, decoder.rate, samples


def open_av(path: Path) -> Read:
    """Return a function that reads the samples from one number to another, (count, channels) float32."""
    decoder = Decoder(path)
    return Sequential(decoder.decode, NEAR_S * decoder.rate).read


class Decoder:
    """A file as PyAV decodes it."""

    def __init__(self, path: Path) -> None:
        try:
            import av
        except ImportError as error:
            raise InputError(
                f"{path}: reading {path.suffix} files needs PyAV; run `pip install 'vap-pipeline[formats]'`"
            ) from error
        first: Any
        self.path, self.error = path, av.FFmpegError
        try:
            self.container = av.open(str(path))
            self.stream = self.container.streams.audio[0]
            first = next(self.container.decode(self.stream))
        except (av.FFmpegError, IndexError, StopIteration) as error:
            raise self._refusal(error) from error
        self.origin, self.channels, self.rate = first.pts, first.layout.nb_channels, first.sample_rate

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

    def _refusal(self, error: Exception) -> InputError:
        return InputError(f"{self.path}: cannot be decoded ({error}); copy or convert it again")

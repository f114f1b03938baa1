"""Two-channel recordings of any format, read in bounded memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import gcd
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vap_pipeline.audio.headers import Header, Pick, check_two_channels, read_header
from vap_pipeline.audio.level import SETTINGS, gains, pieces
from vap_pipeline.audio.rates import SAMPLE_RATE_HZ
from vap_pipeline.audio.resampling import resample, resampled
from vap_pipeline.audio.sequential import Read
from vap_pipeline.audio.sources import open_source
from vap_pipeline.io.errors import InputError

__all__ = ["SETTINGS", "Recording", "check", "gains", "open_recording", "paths", "pieces", "resample"]

BLOCK_S = 10  # read and resampled at a time
SEPARATOR = "|"  # between the files of the two speakers

Audio = Path | Sequence[Path]


def _never_stop() -> None:
    """Let a recording be read to its end."""


@dataclass(frozen=True)
class Recording:
    """Two channels of audio.

    Attributes:
        path: the file, or the files of both speakers, joined by ``|``, for messages.
        rate: samples a second.
        samples: number of samples of a channel.
        read: returns the samples from one number to another, (count, 2) float32, full scale 1.
        check_stop: called before each block; it may raise, to stop.
        warnings: what is odd about the files, a line each.
    """

    path: Path
    rate: int
    samples: int
    read: Read
    check_stop: Callable[[], None] = _never_stop
    warnings: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        return self.samples / self.rate

    def blocks(self) -> Iterator[Tensor]:
        """Yield the samples in order, (2, at most 10 s) float32.

        Raises:
            InputError: samples are missing, or NaN or infinite.
        """
        for start in range(0, self.samples, BLOCK_S * self.rate):
            self.check_stop()
            stop = min(start + BLOCK_S * self.rate, self.samples)
            yield torch.from_numpy(np.ascontiguousarray(self.read_checked(start, stop).T))

    def read_checked(self, start: int, stop: int) -> np.ndarray:
        """Return samples ``start`` to ``stop``, (stop - start, 2) float32.

        Raises:
            InputError: samples are missing, or NaN or infinite.
        """
        place = f"after {start / self.rate:.0f} s"
        try:
            block = self.read(start, stop)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror}); copy it again") from error
        if block.shape != (stop - start, 2):
            raise InputError(f"{self.path}: truncated or damaged {place}; copy it again")
        if not np.isfinite(block).all():
            raise InputError(f"{self.path}: NaN or infinite samples {place}; convert it again")
        return block


def whole(recording: Recording) -> Tensor:
    """Return all samples of a recording at 16 kHz, (2, samples) float32."""
    return torch.cat(list(resample(recording.blocks(), recording.rate)), dim=1)


def paths(root: Path, audio: str) -> tuple[Path, ...]:
    """Return the file, or the files of both speakers, that a manifest names in its column ``audio``."""
    return tuple(root / name for name in audio.split(SEPARATOR))


def check(audio: Audio, pick: Pick = None) -> tuple[float, tuple[str, ...]]:
    """Return the duration of a recording in seconds, and warnings, from the headers of its files.

    Raises:
        InputError: as :func:`open_recording`, as far as headers show.
    """
    files, headers = _headers(audio, pick)
    return max(header.samples / header.rate for header in headers), _warnings(files, headers)


def open_recording(
    audio: Audio, check_stop: Callable[[], None] = _never_stop, pick: Pick = None, mono: bool = False
) -> Recording:
    """Open a two-channel file, two channels of one that has more, or two files, one a speaker.

    Two files of different length are padded with silence, of different rates resampled to 16 kHz.

    Args:
        audio: a file, or the one-channel files of both speakers.
        check_stop: called again and again while the files are read, now and later; it may raise, to stop.
        pick: the channels of the two speakers, counted from 0; by default the file must have just two.
        mono: take a file of one channel too, as speaker A; B is silent.

    Raises:
        InputError: no such file, damaged as far as is known yet, or not of two channels.
    """
    files, headers = _headers(audio, pick, mono)
    try:
        reads = [open_source(*opened, check_stop) for opened in zip(files, headers, strict=True)]
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror}); check the path") from error
    path = Path(SEPARATOR.join(map(str, files)))
    rate, samples = headers[0].rate, max(header.samples for header in headers)
    if headers[0].channels > 1:
        read = reads[0] if pick is None else _picked(reads[0], pick)
    else:
        lengths = [header.samples for header in headers]
        if headers[0].rate != headers[-1].rate:
            rate = SAMPLE_RATE_HZ
            sides = [resampled(r, h.rate, h.samples) for r, h in zip(reads, headers, strict=True)]
            reads, lengths = [list(column) for column in zip(*sides, strict=True)]
        read, samples = _joined(reads, lengths), max(lengths)
    return Recording(path, rate, samples, read, check_stop, _warnings(files, headers))


def _headers(audio: Audio, pick: Pick, mono: bool = False) -> tuple[list[Path], list[Header]]:
    """Return the files of a recording and their headers, checked to hold two speakers together."""
    files = [audio] if isinstance(audio, Path) else list(audio)
    headers = [read_header(path) for path in files]
    for path, header in zip(files, headers, strict=True):
        if len(files) == 1:
            if not (mono and header.channels == 1):
                check_two_channels(path, header.channels, pick)
        elif len(files) != 2 or header.channels != 1:
            raise InputError(
                f"{path}: {header.channels} channels, one of {len(files)} files; a recording is one file "
                "with both speakers, or two files of one channel"
            )
        if header.rate // gcd(header.rate, SAMPLE_RATE_HZ) > 1_000:
            raise InputError(f"{path}: {header.rate} samples a second; resample it to 8,000 or 16,000")
    return files, headers


def _warnings(files: list[Path], headers: list[Header]) -> tuple[str, ...]:
    lines = [f"{path}: {note}" for path, header in zip(files, headers, strict=True) for note in header.notes]
    if len(files) == 2:
        first, second = headers
        lasts_s = [header.samples / header.rate for header in headers]
        name = SEPARATOR.join(map(str, files))
        if first.rate != second.rate:
            lines.append(f"{name}: {first.rate:,} and {second.rate:,} samples a second; both are resampled")
        if lasts_s[0] != lasts_s[1]:
            lasts = f"{lasts_s[0]:.2f} and {lasts_s[1]:.2f} s long"
            lines.append(f"{name}: {lasts}; silence follows the shorter one")
    return tuple(lines)


def _picked(read: Read, pick: Sequence[int]) -> Read:
    return lambda start, stop: read(start, stop)[:, list(pick)]


def _joined(reads: list[Read], lengths: list[int]) -> Read:
    """Return two one-channel signals as one of two channels, the shorter one followed by zeros."""

    def read(start: int, stop: int) -> np.ndarray:
        both = np.zeros((stop - start, 2), np.float32)
        for channel, (side, length) in enumerate(zip(reads, lengths, strict=True)):
            if (end := min(stop, length)) > start:
                samples = side(start, end)
                if len(samples) < end - start:
                    return samples  # the caller sees that some are missing
                both[: end - start, channel] = samples[:, 0]
        return both

    return read

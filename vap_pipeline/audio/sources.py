"""The samples of one audio file of any format and any number of channels."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from vap_pipeline.audio import av_files, shorten, sphere
from vap_pipeline.audio.headers import Header, Opener
from vap_pipeline.audio.sequential import Read, Sequential
from vap_pipeline.io.errors import InputError

DECODED_BLOCK = 1 << 16
SUM_BLOCK = 1 << 20  # samples that are summed at a time


def open_source(path: Path, header: Header, check_stop: Callable[[], None]) -> Read:
    """Return a function that reads the samples from one number to another, (count, channels) float32.

    Args:
        check_stop: called again and again while the file is checked; it may raise, to stop.

    Raises:
        InputError: the file is damaged, as far as its checksum or its decoder knows.
    """
    if header.sphere_header and header.sphere_header.shorten:
        return _shorten(path, header.sphere_header, check_stop)
    if header.sphere_header:
        _check_sum(path, header, header.sphere_header, check_stop)
    if header.open is None:
        return av_files.open_av(path)
    if not header.seekable:
        return Sequential(partial(_decode, path, header.open), math.inf).read
    return partial(_read, path, header.open)


def _read(path: Path, opener: Opener, start: int, stop: int) -> np.ndarray:
    import soundfile

    try:
        return soundfile.read(opener(), start=start, stop=stop, dtype="float32", always_2d=True)[0]
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be decoded ({error}); copy or convert it again") from error


def _decode(path: Path, opener: Opener, start: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the blocks of a file from its first sample on, whatever ``start`` is."""
    import soundfile

    number = 0
    try:
        with soundfile.SoundFile(opener()) as file:
            while len(block := file.read(DECODED_BLOCK, dtype="float32", always_2d=True)):
                yield number, block
                number += len(block)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be decoded ({error}); copy or convert it again") from error


def _shorten(path: Path, header: sphere.Header, check_stop: Callable[[], None]) -> Read:
    check_stop()
    samples = shorten.decode(path, header)

    def read(start: int, stop: int) -> np.ndarray:
        return samples[start:stop].astype(np.float32) / np.float32(2**15)

    return read


def _check_sum(
    path: Path, header: Header, sphere_header: sphere.Header, check_stop: Callable[[], None]
) -> None:
    """Check the sum of the stored samples of an uncompressed SPHERE file, if its header has it."""
    if sphere_header.checksum is None:
        return
    dtype = "u1" if sphere_header.coding != "pcm" else ">i2" if sphere_header.big_endian else "<i2"
    total, count = 0, header.samples * header.channels
    for start in range(0, count, SUM_BLOCK):
        check_stop()
        offset = sphere_header.size + start * sphere_header.sample_bytes
        stored = np.fromfile(path, dtype, min(SUM_BLOCK, count - start), offset=offset)
        total += int(stored.sum(dtype=np.int64))
    shorten.compare_sums(path, sphere_header, total, 1 << 16)

"""Where the samples of a WAV file (RIFF, RIFX, RF64, BW64) start and end, whatever its header says of them.

RIFF: a file is a chain of chunks, 4 bytes of name, 4 of size, and the content, padded to an even length.
RF64 (EBU Tech 3306) and BW64 (ITU-R BS.2088) keep sizes above 4 GiB in a chunk ``ds64``.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vap_pipeline.io.errors import InputError

MAGICS = (b"RIFF", b"RIFX", b"RF64", b"BW64")
# Sizes from this one on stand for an unknown length: sox writes 7FFFF000 or more to a pipe, ffmpeg FFFFFFFF.
UNKNOWN_BYTES = 0x7FFFF000
LARGEST_BYTES = 0xFFFFFFFF
LONGEST_FORMAT_BYTES = 1 << 16
PCM, A_LAW, MU_LAW = 1, 6, 7  # tags of formats
TRAILERS = (b"LIST", b"id3 ", b"ID3 ", b"bext", b"iXML", b"axml", b"_PMX")  # also where they are cut short


@dataclass(frozen=True)
class Samples:
    """The samples in a WAV file: bytes ``start`` to ``stop``, coded as the chunk ``format`` says.

    ``regular`` is False where libsndfile would miss some of them; ``note`` says what is odd, in plain words.
    """

    format: bytes
    big_endian: bool
    start: int
    stop: int
    regular: bool
    note: str = ""

    def head(self) -> bytes:
        """Return a header to put before the samples."""
        return header(self.format, self.stop - self.start, self.big_endian)


def locate(path: Path) -> Samples:
    """Find the samples of a WAV file; ``path`` starts with one of ``MAGICS``.

    They run to the smaller of what is declared and what is there. Where no chunk follows the declared end,
    the declared size is wrong (sizes above 4 GiB are written modulo 2³², and a recorder that crashes leaves
    an early one): the samples then run to the end of the file.

    Raises:
        InputError: the file has no samples, or none that its header describes.
    """
    with path.open("rb") as file:
        length, big_endian = file.seek(0, 2), _read(file, 0, 4) == b"RIFX"
        format_, long_bytes, at, is_padded = b"", 0, 12, True
        while chunk := _chunk(file, at, big_endian):
            name, size = chunk
            if name == b"ds64":
                long_bytes = struct.unpack("<8xQ", _read(file, at + 8, 16).ljust(16, b"\0"))[0]
            elif name == b"fmt ":
                format_ = _read(file, at + 8, min(size, LONGEST_FORMAT_BYTES))
            elif name == b"data":
                break
            end = at + 8 + size
            at = _after(file, end, big_endian)
            is_padded &= at == end + end % 2
        if not chunk or len(format_) < 16:
            raise InputError(f"{path}: cannot be read as audio (a WAV file without samples); copy it again")
        declared, start = chunk[1], at + 8
        is_known = 0 < declared < UNKNOWN_BYTES
        if declared == LARGEST_BYTES and 0 < long_bytes < 1 << 63:
            declared, is_known = long_bytes, True
        complete = start + declared <= length
        if complete and _chain(file, start + declared, length, big_endian):
            regular = is_padded and _read(file, 0, 4) != b"BW64"
            return Samples(format_, big_endian, start, start + declared, regular)
    rate = max(struct.unpack(">I" if big_endian else "<I", format_[8:12])[0], 1)
    note = ""
    if is_known:
        declares = (
            f"its header declares {declared / rate:.1f} s of audio, it holds {(length - start) / rate:.1f} s"
        )
        note = f"{declares}; all are read" if complete else f"truncated: {declares}; copy it again"
    return Samples(format_, big_endian, start, length, False, note)


def header(format_: bytes, size: int, big_endian: bool) -> bytes:
    """Return the header of a WAV file of ``size`` bytes of samples, of RF64 where RIFF cannot hold them."""
    order = ">" if big_endian else "<"
    start = b"WAVE", b"fmt " + struct.pack(f"{order}I", len(format_)) + format_ + bytes(len(format_) % 2)
    total = size + 20 + len(start[1])
    if total <= LARGEST_BYTES:
        magic = b"RIFX" if big_endian else b"RIFF"
        data = b"data" + struct.pack(f"{order}I", size)
        return magic + struct.pack(f"{order}I", total - 8) + start[0] + start[1] + data
    long = b"ds64" + struct.pack("<IQQQI", 28, total + 28, size, 0, 0)
    unknown = struct.pack("<I", LARGEST_BYTES)
    return b"RF64" + unknown + start[0] + long + start[1] + b"data" + unknown


def format_chunk(tag: int, channels: int, rate: int, sample_bytes: int, big_endian: bool) -> bytes:
    """Return the content of the chunk ``fmt `` of PCM, a-law or mu-law samples."""
    block = channels * sample_bytes
    order = ">" if big_endian else "<"
    return struct.pack(f"{order}HHIIHH", tag, channels, rate, rate * block, block, 8 * sample_bytes)


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


def _chunk(file: BinaryIO, at: int, big_endian: bool) -> tuple[bytes, int] | None:
    """Return the name and size of the chunk at a place, None if there is no chunk."""
    head = _read(file, at, 8)
    if len(head) < 8 or not all(32 <= byte < 127 for byte in head[:4]):
        return None
    return head[:4], int.from_bytes(head[4:], "big" if big_endian else "little")


def _after(file: BinaryIO, end: int, big_endian: bool) -> int:
    """Return where the next chunk starts: after the padding, which some programs leave out."""
    padded = end + end % 2
    is_unpadded = not _chunk(file, padded, big_endian) and _chunk(file, end, big_endian)
    return end if is_unpadded else padded


def _chain(file: BinaryIO, at: int, length: int, big_endian: bool) -> bool:
    """Return whether the file ends at ``at``, or in a chain of chunks from there."""
    while length - at >= 8:
        at = _after(file, at, big_endian)
        chunk = _chunk(file, at, big_endian)
        if not chunk or chunk[0] in TRAILERS:
            return bool(chunk)
        at += 8 + chunk[1]
    return at <= length + 1  # the last may lack its padding

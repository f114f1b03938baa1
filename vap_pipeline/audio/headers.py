"""What the header of an audio file says of its samples, before any of them is read."""

import struct
from dataclasses import dataclass
from pathlib import Path

from vap_pipeline.audio import sphere
from vap_pipeline.audio.rates import LONGEST_S
from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError

LOWEST, HIGHEST = 4_000, 400_000  # samples a second
FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3")  # libsndfile's names
UNKNOWN_LENGTH = 0x7FFFF000  # bytes; from here on, and 0, is what programs declare that write to a pipe


@dataclass(frozen=True)
class Header:
    """Of a file of any format; ``details`` are there where it is a SPHERE file."""

    channels: int
    rate: int
    samples: int  # of one channel
    details: sphere.Header | None = None


def read_header(path: Path) -> Header:
    """Return the header of a SPHERE, WAV or FLAC file.

    Raises:
        InputError: no such file, no audio, a rate or a length that no recording has, or truncated as far as a
            header tells.
    """
    found = _read(path)
    if not LOWEST <= found.rate <= HIGHEST:
        raise InputError(
            f"{path}: {found.rate} samples a second, an odd rate; resample it to 8,000 or 16,000"
        )
    if not 0 < found.samples <= LONGEST_S * found.rate:
        raise InputError(f"{path}: its header promises no audio, or more than a day of it; copy it again")
    return found


def _read(path: Path) -> Header:
    try:
        files.check_regular(path)
        with path.open("rb") as file:
            is_sphere = file.read(len(sphere.MAGIC)) == sphere.MAGIC
        if is_sphere or path.suffix.lower() == ".sph":
            found = sphere.read_header(path)
            return Header(found.channels, found.rate, found.frames, found)
        _check_length(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); mend the path or the manifest"
        ) from error

    import soundfile

    try:
        info = soundfile.info(path)
    except (
        soundfile.SoundFileError,
        RuntimeError,
        TypeError,
        UnicodeError,
    ) as error:  # TypeError: .raw, without a header
        raise InputError(f"{path}: cannot be read as audio ({error}); copy or convert it again") from error
    if info.format not in FORMATS:  # of which nobody can tell here whether they are whole
        raise InputError(f"{path}: audio in the format {info.format}; convert it to WAV or FLAC")
    return Header(info.channels, info.samplerate, info.frames)


def _check_length(path: Path) -> None:
    """Refuse a WAV file with less audio than it declares; libsndfile would take what is there."""
    long = 0
    with path.open("rb") as file:
        start, size, at = file.read(12), file.seek(0, 2), 12
        if start[:4] not in (b"RIFF", b"RIFX", b"RF64") or start[8:] != b"WAVE":
            return
        order = ">" if start[:4] == b"RIFX" else "<"
        for _ in range(1_000):  # chunks
            file.seek(at)
            chunk = file.read(8)
            if len(chunk) < 8:
                return
            name, length = struct.unpack(f"{order}4sI", chunk)
            at += 8
            if name == b"ds64":  # of RF64, whose files may be longer than 32 bits can say
                long = int.from_bytes(file.read(16)[8:], "little")
            if name == b"data":
                break
            at += length + length % 2
        else:
            return
    if start[:4] == b"RF64" and length == 0xFFFFFFFF:
        length = long
    there = size - at
    if (length == 0 < there) or (length >= UNKNOWN_LENGTH and there < length and not long):
        raise InputError(
            f"{path}: its header declares no length; rewrite it with sox, as in "
            "`sox --ignore-length A.wav B.wav`"
        )
    if there < length:
        raise InputError(
            f"{path}: truncated: its header promises {length:,} bytes of samples and {max(there, 0):,} are "
            "there; copy the file again"
        )

"""What the header of an audio file says of its samples, before any of them is read."""

import struct
from dataclasses import dataclass
from pathlib import Path

from vap_pipeline import files, sphere
from vap_pipeline.errors import InputError

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
        InputError: no such file, no audio, or truncated as far as a header tells.
    """
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
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:  # TypeError: .raw, without a header
        raise InputError(f"{path}: cannot be read as audio ({error}); copy or convert it again") from error
    return Header(info.channels, info.samplerate, info.frames)


def _check_length(path: Path) -> None:
    """Refuse a WAV file with less audio than it declares; libsndfile would take what is there."""
    with path.open("rb") as file:
        start, size, at = file.read(12), file.seek(0, 2), 12
        if start[:4] != b"RIFF" or start[8:] != b"WAVE":
            return
        for _ in range(1_000):  # chunks
            file.seek(at)
            chunk = file.read(8)
            if len(chunk) < 8:
                return
            name, length = struct.unpack("<4sI", chunk)
            at += 8
            if name == b"data":
                break
            at += length + length % 2
        else:
            return
    there = size - at
    if (length == 0 < there) or (length >= UNKNOWN_LENGTH and there < length):
        raise InputError(
            f"{path}: its header declares no length; rewrite it with sox, as in "
            "`sox --ignore-length A.wav B.wav`"
        )
    if there < length:
        raise InputError(
            f"{path}: truncated: its header promises {length:,} bytes of samples and {max(there, 0):,} are "
            "there; copy the file again"
        )

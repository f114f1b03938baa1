"""The header of an audio file: channels, rate and length, before any sample is read."""

import re
from dataclasses import dataclass
from pathlib import Path

from vap_pipeline.audio import sphere
from vap_pipeline.audio.rates import LONGEST_S
from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError

LOWEST_HZ, HIGHEST_HZ = 4_000, 400_000
FORMATS = ("WAV", "WAVEX", "RF64", "NIST", "FLAC", "OGG", "MP3")  # libsndfile's names
UNKNOWN_LENGTH_BYTES = (
    0x7FFFF000  # this length and more, and 0, are declared by programs that write to a pipe
)


@dataclass(frozen=True)
class Header:
    """The header of a file of any format; ``sphere_header`` is that of a SPHERE file."""

    channels: int
    rate: int
    samples: int  # of one channel
    sphere_header: sphere.Header | None = None


def read_header(path: Path) -> Header:
    """Return the header of a SPHERE, WAV, FLAC, OGG or MP3 file.

    Raises:
        InputError: no such file, not audio, a rate or a length that no recording has, or a file that is
            shorter than its header says.
    """
    try:
        files.check_regular(path)
        with path.open("rb") as file:
            is_sphere = file.read(len(sphere.MAGIC)) == sphere.MAGIC
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if is_sphere or path.suffix.lower() == ".sph":
        found = sphere.read_header(path)
        header = Header(found.channels, found.rate, found.frames, found)
    else:
        header = _read(path)
    if not LOWEST_HZ <= header.rate <= HIGHEST_HZ:
        raise InputError(f"{path}: {header.rate} samples a second; resample it to 8,000 or 16,000")
    if not 0 < header.samples <= LONGEST_S * header.rate:
        raise InputError(f"{path}: its header says no audio, or more than a day of it; copy it again")
    return header


def check_two_channels(path: Path, channels: int) -> None:
    """Raise InputError unless a recording has a channel for each of two speakers."""
    if channels != 2:
        raise InputError(
            f"{path}: {channels} channel{'s' * (channels != 1)}, expected one for each of two speakers; "
            "join the two sides into one file, for example with `sox -M A.wav B.wav AB.wav`"
        )


def _read(path: Path) -> Header:
    import soundfile

    try:
        info = soundfile.info(path, verbose=True)
    except (soundfile.SoundFileError, RuntimeError, TypeError, UnicodeError) as error:  # TypeError: .raw
        raise InputError(f"{path}: cannot be read as audio ({error}); copy or convert it again") from error
    if info.format not in FORMATS:
        raise InputError(f"{path}: audio in the format {info.format}; convert it to WAV or FLAC")
    _check_length(path, info.extra_info)
    return Header(info.channels, info.samplerate, info.frames)


def _check_length(path: Path, log: str) -> None:
    """Refuse a WAV file with less audio than it declares, which libsndfile only notes in its log."""
    length, present = 0, 0
    if chunk := re.search(r"^data : (\d+)(?: \(should be (\d+)\))?\s*$", log, re.MULTILINE):
        length, present = int(chunk[1]), int(chunk[2] or chunk[1])
        if length == 0 or length >= UNKNOWN_LENGTH_BYTES:
            raise InputError(
                f"{path}: its header declares no length; rewrite it with sox, as in "
                "`sox --ignore-length A.wav B.wav`"
            )
    elif frames := re.search(r"frame count (\d+) does not match .* of (\d+)\.", log):  # RF64
        present, length = int(frames[1]), int(frames[2])
    if present < length:
        raise InputError(
            f"{path}: truncated: its header declares {length:,}, but it holds {present:,} (bytes or frames); "
            "copy the file again"
        )

"""The header of an audio file: channels, rate and length, and where libsndfile finds its samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vap_pipeline.audio import av_files, shorten, sphere, wave_chunks
from vap_pipeline.audio.rates import LONGEST_S
from vap_pipeline.audio.window import Window
from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError

LOWEST_HZ, HIGHEST_HZ = 4_000, 400_000
SUFFIXES = (".sph", ".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au", *av_files.SUFFIXES)
SPHERE_TAGS = {"pcm": wave_chunks.PCM, "alaw": wave_chunks.A_LAW, "ulaw": wave_chunks.MU_LAW}
FLAC_MAGIC, FLAC_TOTAL = b"fLaC", slice(21, 26)  # the low 36 bits: the number of samples, 0 if unknown

Pick = Sequence[int] | None
Opener = Callable[[], Path | Window]


@dataclass(frozen=True)
class Header:
    """The header of a file of any format.

    Attributes:
        samples: of one channel; as many as can be read.
        notes: what is odd about the file, in plain words.
        open: returns what libsndfile is to open; None for formats that it does not read.
        sphere_header: of a SPHERE file.
    """

    channels: int
    rate: int
    samples: int
    notes: tuple[str, ...] = ()
    open: Opener | None = None
    sphere_header: sphere.Header | None = None


def read_header(path: Path) -> Header:
    """Return the header of a file: SPHERE, what libsndfile reads (WAV, FLAC, OGG, Opus, MP3, …), or M4A.

    The samples of most formats are counted without decoding. A FLAC or MP3 file that ends early or does not
    say its length, and every M4A file, is decoded for it.

    Raises:
        InputError: no such file, not audio, or a rate or a length that no recording has.
    """
    try:
        files.check_regular(path)
        with path.open("rb") as file:
            magic = file.read(8)
        header = _read(path, magic)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if not LOWEST_HZ <= header.rate <= HIGHEST_HZ:
        raise InputError(f"{path}: {header.rate} samples a second; resample it to 8,000 or 16,000")
    if not 0 < header.samples <= LONGEST_S * header.rate:
        raise InputError(f"{path}: no audio, or more than a day of it; check where it comes from")
    return header


def check_two_channels(path: Path, channels: int, pick: Pick = None) -> None:
    """Raise InputError unless a recording has a channel for each of two speakers, or ``pick`` names two."""
    if pick is not None:
        if len(pick) != 2 or not all(0 <= channel < channels for channel in pick) or pick[0] == pick[1]:
            chosen = ",".join(map(str, pick))
            raise InputError(
                f"{path}: {channels} channel{'s' * (channels != 1)}, of which {chosen} cannot be two "
                f"speakers; pick two of 0 to {channels - 1}"
            )
    elif channels > 2:
        raise InputError(
            f"{path}: {channels} channels; pick those of the two speakers, as in `--pick 0,{channels - 1}`"
        )
    elif channels != 2:
        raise InputError(
            f"{path}: 1 channel, expected one for each of two speakers; name the files of both speakers, or "
            "join the two sides into one file, for example with `sox -M A.wav B.wav AB.wav`"
        )


def _read(path: Path, magic: bytes) -> Header:
    if magic == sphere.MAGIC or path.suffix.lower() == ".sph":
        return _sphere(path)
    if magic[:4] in wave_chunks.MAGICS:
        samples = wave_chunks.locate(path)
        window = partial(Window, path, samples.head(), samples.start, samples.stop)
        return _sndfile(path, (lambda: path) if samples.regular else window, samples.note)
    if magic[4:] == b"ftyp" or path.suffix.lower() in av_files.SUFFIXES:
        return Header(*av_files.measure(path))
    header = _sndfile(path, lambda: path)
    return _ending(path, header, magic[:4] == FLAC_MAGIC)


def _sphere(path: Path) -> Header:
    found = sphere.read_header(path)
    notes = (found.note,) if found.note else ()
    if found.shorten:
        frames = found.frames or len(shorten.decode(path, found))
        return Header(found.channels, found.rate, frames, notes, None, found)
    block, endian = found.channels * found.sample_bytes, found.big_endian and found.coding == "pcm"
    format_ = wave_chunks.format_chunk(
        SPHERE_TAGS[found.coding], found.channels, found.rate, found.sample_bytes, endian
    )
    head = wave_chunks.header(format_, found.frames * block, endian)
    window = partial(Window, path, head, found.size, found.size + found.frames * block)
    return Header(found.channels, found.rate, found.frames, notes, window, found)


def _sndfile(path: Path, opener: Opener, note: str = "") -> Header:
    import soundfile

    try:
        info = soundfile.info(opener())
    except (soundfile.SoundFileError, RuntimeError, TypeError, UnicodeError) as error:  # TypeError: .raw
        raise InputError(f"{path}: cannot be read as audio ({error}); copy or convert it again") from error
    return Header(info.channels, info.samplerate, info.frames, (note,) if note else (), opener)


def _ending(path: Path, header: Header, is_flac: bool) -> Header:
    """Return the header of a compressed file with the number of samples that can be decoded."""
    longest = int(LONGEST_S * header.rate)
    is_known = 0 < header.samples <= longest
    if is_known and can_read(header.open, header.samples - 1, 1):
        return header
    whole = header.open if is_known or not is_flac else _flac(path, longest)
    present, step = 0, 1 << 20
    while step:
        if can_read(whole, present, step):
            present += step
        else:
            step //= 2
    note = (
        f"truncated: its header declares {header.samples / header.rate:.1f} s of audio, "
        f"{present / header.rate:.1f} s can be decoded; copy it again"
    )
    opener = _flac(path, present) if is_flac else header.open
    return Header(header.channels, header.rate, present, (note,) * is_known, opener)


def can_read(opener: Opener | None, start: int, count: int) -> bool:
    """Return whether ``count`` samples from ``start`` on can be decoded."""
    import soundfile

    try:
        return opener is not None and len(soundfile.read(opener(), count, start, dtype="float32")[0]) == count
    except (soundfile.SoundFileError, RuntimeError):
        return False


def _flac(path: Path, samples: int) -> Opener:
    """Return an opener of a FLAC file as if its header declared ``samples``."""
    with path.open("rb") as file:
        head = bytearray(file.read(FLAC_TOTAL.stop))
        length = file.seek(0, 2)
    rest = int.from_bytes(head[FLAC_TOTAL], "big") >> 36 << 36
    head[FLAC_TOTAL] = (rest | samples).to_bytes(5, "big")
    return partial(Window, path, bytes(head), FLAC_TOTAL.stop, length)

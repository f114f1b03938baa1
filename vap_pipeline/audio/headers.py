"""The header of an audio file: channels, rate and length, and where libsndfile finds its samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from vap_pipeline.audio import av_files, mp3, sphere, wave_chunks
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
        seekable: libsndfile finds any sample; in an MP3 file it goes to another place than was asked for.
    """

    channels: int
    rate: int
    samples: int
    notes: tuple[str, ...] = ()
    open: Opener | None = None
    sphere_header: sphere.Header | None = None
    seekable: bool = True


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
    if magic[:4] == FLAC_MAGIC:
        return _flac_ending(path, header)
    return header if header.seekable else _mp3_ending(path, header)


def _sphere(path: Path) -> Header:
    found = sphere.read_header(path)
    notes = (found.note,) if found.note else ()
    opener = None if found.shorten else partial(_sphere_window, path, found)
    return Header(found.channels, found.rate, found.frames, notes, opener, found)


def _sphere_window(path: Path, found: sphere.Header) -> Window:
    """Return the samples of an uncompressed SPHERE file as a WAV file."""
    block, big_endian = found.channels * found.sample_bytes, found.big_endian and found.coding == "pcm"
    tag, size = SPHERE_TAGS[found.coding], found.frames * block
    format_ = wave_chunks.format_chunk(tag, found.channels, found.rate, found.sample_bytes, big_endian)
    return Window(path, wave_chunks.header(format_, size, big_endian), found.size, found.size + size)


def _sndfile(path: Path, opener: Opener, note: str = "") -> Header:
    import soundfile

    try:
        info = soundfile.info(opener())
    except (soundfile.SoundFileError, RuntimeError, TypeError, UnicodeError) as error:  # TypeError: .raw
        raise InputError(f"{path}: cannot be read as audio ({error}); copy or convert it again") from error
    notes, seekable = (note,) if note else (), info.format != "MP3"
    return Header(info.channels, info.samplerate, info.frames, notes, opener, seekable=seekable)


def _flac_ending(path: Path, header: Header) -> Header:
    """Return the header of a FLAC file with the number of samples that can be decoded."""

    def can_read(start: int, count: int) -> bool:
        file = _flac(path, start + count)()
        try:
            return len(soundfile.read(file, count, start, dtype="float32")[0]) == count
        except (soundfile.SoundFileError, RuntimeError):
            return False

    import soundfile

    if header.samples <= LONGEST_S * header.rate and can_read(header.samples - 1, 1):
        return header
    present, step = 0, 1 << 20
    while step:
        if can_read(present, step):
            present += step
        else:
            step //= 2
    return _shortened(header, present, _flac(path, present))


def _mp3_ending(path: Path, header: Header) -> Header:
    """Return the header of an MP3 file with the number of samples that can be decoded."""
    import soundfile

    is_declared = mp3.endless(path) is None
    if is_declared:
        with soundfile.SoundFile(path) as file:
            file.seek(header.samples - 1)
            if len(file.read(1)):
                return header
    present = 0
    with soundfile.SoundFile(mp3.endless(path) or path) as file:
        while count := len(file.read(1 << 16)):
            present += count
    if is_declared:
        return _shortened(header, present, lambda: path)
    return replace(header, samples=present, open=lambda: mp3.endless(path) or path)


def _shortened(header: Header, samples: int, opener: Opener) -> Header:
    """Return a header with the samples that can be decoded, and a note if it declares another number."""
    note = (
        f"truncated: its header declares {header.samples / header.rate:.1f} s of audio, "
        f"{samples / header.rate:.1f} s can be decoded; copy it again"
    )
    declares = header.samples <= LONGEST_S * header.rate
    return replace(header, samples=samples, notes=(note,) * declares, open=opener)


def _flac(path: Path, samples: int) -> Opener:
    """Return an opener of a FLAC file as if its header declared ``samples``."""
    with path.open("rb") as file:
        head = bytearray(file.read(FLAC_TOTAL.stop))
        length = file.seek(0, 2)
    rest = int.from_bytes(head[FLAC_TOTAL], "big") >> 36 << 36
    head[FLAC_TOTAL] = (rest | samples).to_bytes(5, "big")
    return partial(Window, path, bytes(head), FLAC_TOTAL.stop, length)

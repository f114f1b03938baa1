"""The header of a NIST SPHERE file: what its samples are, before any of them is read."""

from dataclasses import dataclass
from pathlib import Path

from vap_pipeline.io.errors import InputError

MAGIC = b"NIST_1A\n"
LONGEST_HEADER = 1 << 20  # real ones have 1,024 bytes


@dataclass(frozen=True)
class Header:
    """What the header says of the samples, which start ``size`` bytes into the file."""

    size: int
    rate: int
    channels: int
    frames: int  # samples of one channel
    sample_bytes: int
    coding: str  # pcm, ulaw or alaw
    shorten: bool  # compressed with shorten
    big_endian: bool


def read_header(path: Path) -> Header:
    """Return the header of the SPHERE file ``path``, checked against the length of the file.

    Raises:
        InputError: not a SPHERE file, a broken header, a coding that nobody here can read, or fewer bytes
            than the header promises. (What a shorten-compressed file needs is known only once it is decoded.)
    """
    try:
        with path.open("rb") as file:
            start = file.read(16)
            length = start[len(MAGIC) :].strip()
            size = int(length) if length.isdigit() else 0
            header = start + file.read(max(0, min(size, LONGEST_HEADER) - 16))
            available = file.seek(0, 2) - size
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); mend that") from error
    if not start.startswith(MAGIC):
        raise InputError(f"{path}: not a NIST SPHERE file; copy it again from its source, or convert it")
    if not size or size % 1024:
        raise InputError(
            f"{path}: broken SPHERE header (its length is no multiple of 1,024); copy the file again"
        )

    fields: dict[str, str] = {}
    lines = iter(header.decode("latin-1").split("\n")[2:])
    for line in lines:
        if line.strip() == "end_head":
            break
        name, _, value = line.partition(" ")
        value = value.partition(" ")[2].strip()
        if not line.startswith(";") and fields.setdefault(name, value) != value:
            raise InputError(f"{path}: broken SPHERE header ({name} stands there twice); copy the file again")
    else:
        raise InputError(f"{path}: truncated inside its SPHERE header; copy the file again")

    def count(name: str, default: int | None = None) -> int:
        text = fields.get(name, default)
        try:
            number = int(text)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = 0
        if number < 1:
            raise InputError(f"{path}: broken SPHERE header ({name} is {text}); copy the file again")
        return number

    coding, *packing = fields.get("sample_coding", "pcm").lower().replace("mu-law", "ulaw").split(",")
    shorten = bool(packing) and packing[0].startswith("embedded-shorten")
    if coding not in ("pcm", "ulaw", "alaw") or (packing and not shorten):
        raise InputError(
            f"{path}: samples coded as {fields['sample_coding']!r}; convert the file to WAV with sph2pipe"
        )
    if fields.get("channels_interleaved", "TRUE").upper() != "TRUE":
        raise InputError(f"{path}: its channels are not interleaved; convert the file to WAV with sph2pipe")
    order = fields.get("sample_byte_format", "01")
    if coding == "pcm" and not shorten and order not in ("01", "0123", "10", "3210"):
        raise InputError(
            f"{path}: broken SPHERE header (sample_byte_format is {order!r:.20}); "
            "convert the file to WAV with sph2pipe"
        )
    found = Header(
        size=size,
        rate=count("sample_rate"),
        channels=count("channel_count", 1),
        frames=count("sample_count"),
        sample_bytes=count("sample_n_bytes", 2 if coding == "pcm" else 1),
        coding=coding,
        shorten=shorten,
        big_endian=order in ("10", "3210"),
    )
    promised = found.frames * found.channels * found.sample_bytes
    if not shorten and available < promised:
        raise InputError(
            f"{path}: truncated: its header promises {promised:,} bytes of samples and "
            f"{max(available, 0):,} are there; copy the file again"
        )
    return found

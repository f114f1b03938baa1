"""The header of a NIST SPHERE file."""

from dataclasses import dataclass
from pathlib import Path

from vap_pipeline.io.errors import InputError

MAGIC = b"NIST_1A\n"
LONGEST_HEADER_BYTES = 1 << 20  # real ones have 1,024
CONVERT = "convert the file to WAV with sph2pipe"


@dataclass(frozen=True)
class Header:
    """The fields of the header; the samples start ``size`` bytes into the file."""

    size: int
    rate: int
    channels: int
    frames: int  # samples of one channel
    sample_bytes: int
    coding: str  # pcm, ulaw or alaw
    shorten: bool  # compressed with shorten
    checksum: int | None  # the sum of the stored samples mod 2^16


def read_header(path: Path) -> Header:
    """Return the header of the SPHERE file ``path``, checked against the length of the file.

    Raises:
        InputError: not a SPHERE file, a broken header, an unknown coding, or fewer bytes than the header
            says. (The length of a shorten-compressed file is known only after decoding.)
    """
    try:
        with path.open("rb") as file:
            start = file.read(16)
            length = start[len(MAGIC) :].strip()
            size = int(length) if length.isdigit() else 0
            header = start + file.read(max(0, min(size, LONGEST_HEADER_BYTES) - 16))
            available = file.seek(0, 2) - size
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if not start.startswith(MAGIC):
        raise InputError(f"{path}: not a NIST SPHERE file; copy it again from its source, or convert it")
    if not size or size % 1024:
        raise _broken(path, "its length is not a multiple of 1,024")
    fields = _fields(path, header)
    coding, *packing = fields.get("sample_coding", "pcm").lower().replace("mu-law", "ulaw").split(",")
    shorten = bool(packing) and packing[0].startswith("embedded-shorten")
    if coding not in ("pcm", "ulaw", "alaw") or (packing and not shorten):
        raise InputError(f"{path}: its samples are coded as {fields['sample_coding']!r}; {CONVERT}")
    if fields.get("channels_interleaved", "TRUE").upper() != "TRUE":
        raise InputError(f"{path}: its channels are not interleaved; {CONVERT}")
    checksum = fields.get("sample_checksum", "")
    found = Header(
        size=size,
        rate=_count(path, fields, "sample_rate"),
        channels=_count(path, fields, "channel_count", 1),
        frames=_count(path, fields, "sample_count"),
        sample_bytes=_count(path, fields, "sample_n_bytes", 2 if coding == "pcm" else 1),
        coding=coding,
        shorten=shorten,
        checksum=int(checksum) if checksum.isdigit() else None,
    )
    if found.sample_bytes != (2 if coding == "pcm" else 1) and not shorten:
        raise InputError(f"{path}: {coding} samples of {found.sample_bytes} bytes; {CONVERT}")
    if coding == "pcm" and not shorten and fields.get("sample_byte_format", "01") not in ("01", "10"):
        raise _broken(path, f"sample_byte_format is {fields['sample_byte_format']!r:.20}")
    promised = found.frames * found.channels * found.sample_bytes
    if not shorten and available < promised:
        raise InputError(
            f"{path}: truncated: its header says {promised:,} bytes of samples, but it holds "
            f"{max(available, 0):,}; copy the file again"
        )
    return found


def _fields(path: Path, header: bytes) -> dict[str, str]:
    """Return the fields of a header, each a line of name, type and value, up to ``end_head``."""
    fields: dict[str, str] = {}
    for line in header.decode("latin-1").split("\n")[2:]:
        if line.strip() == "end_head":
            return fields
        name, _, value = line.partition(" ")
        if not line.startswith(";"):
            fields[name] = value.partition(" ")[2].strip()
    raise InputError(f"{path}: truncated inside its SPHERE header; copy the file again")


def _count(path: Path, fields: dict[str, str], name: str, default: int | None = None) -> int:
    text = fields.get(name, default)
    try:
        number = int(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = 0
    if number < 1:
        raise _broken(path, f"{name} is {text}")
    return number


def _broken(path: Path, fault: str) -> InputError:
    return InputError(f"{path}: broken SPHERE header ({fault}); copy the file again, or {CONVERT}")

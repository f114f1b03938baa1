"""The header of a NIST SPHERE file."""

from dataclasses import dataclass
from pathlib import Path

from vap_pipeline.io.errors import InputError

MAGIC = b"NIST_1A\n"
LONGEST_HEADER_BYTES = 1 << 20  # real ones have 1,024
LONGEST_NUMBER = 500  # digits
BLOCK_BYTES = 1024  # to which files are padded
CODINGS = {
    "pcm": "pcm",
    "ulaw": "ulaw",
    "mu-law": "ulaw",
    "mulaw": "ulaw",
    "pculaw": "ulaw",
    "alaw": "alaw",
    "a-law": "alaw",
}
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
    big_endian: bool = False
    note: str = ""  # what is odd, in plain words


def read_header(path: Path) -> Header:
    """Return the header of the SPHERE file ``path``.

    The samples run to the smaller of what the header declares and what is there; without a declared number to
    the end. (The length of a shorten-compressed file is known only after decoding.)

    Raises:
        InputError: not a SPHERE file, a broken header, or an unknown coding.
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
    coding, *packing = fields.get("sample_coding", "pcm").lower().split(",")
    coding = CODINGS.get(coding.strip(), "")
    shorten = bool(packing) and packing[0].strip().startswith("embedded-shorten")
    if not coding or (packing and not shorten):
        raise InputError(f"{path}: its samples are coded as {fields['sample_coding']!r}; {CONVERT}")
    if fields.get("channels_interleaved", "TRUE").upper() != "TRUE":
        raise InputError(f"{path}: its channels are not interleaved; {CONVERT}")
    rate = _count(path, fields, "sample_rate")
    channels = _count(path, fields, "channel_count", 1)
    sample_bytes = _count(path, fields, "sample_n_bytes", 2 if coding == "pcm" else 1)
    order = fields.get("sample_byte_format", "01")
    if not shorten and sample_bytes != (2 if coding == "pcm" else 1):
        raise InputError(f"{path}: {coding} samples of {sample_bytes} bytes; {CONVERT}")
    if coding == "pcm" and not shorten and order not in ("01", "10"):
        raise _broken(path, f"sample_byte_format is {order!r:.20}")
    checksum = fields.get("sample_checksum", "")
    known = int(checksum) if checksum.isdigit() else None
    frames, note = _count(path, fields, "sample_count", None if shorten else 0), ""
    if not shorten:
        present = max(available, 0) // (channels * sample_bytes)
        if not present:
            raise InputError(f"{path}: truncated: no samples follow its header; copy it again")
        if frames > present:
            known, note = (
                None,
                (f"truncated: its header declares {frames:,} samples, it holds {present:,}; copy it again"),
            )
        elif frames > 0 and (present - frames) * channels * sample_bytes >= BLOCK_BYTES:
            note = f"its header declares {frames:,} samples, it holds {present:,}; the rest is not read"
        frames = min(frames or present, present)
    return Header(size, rate, channels, frames, sample_bytes, coding, shorten, known, order == "10", note)


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
    """Return a number, 1 or more, or the default where the field is absent."""
    text = fields.get(name, "")
    if name not in fields and default is not None:
        return default
    if not text.isdecimal() or not text.strip("0") or len(text) > LONGEST_NUMBER:
        raise _broken(path, f"{name} is {text[:40] or 'missing'}")
    return int(text)


def _broken(path: Path, fault: str) -> InputError:
    return InputError(f"{path}: broken SPHERE header ({fault}); copy the file again, or {CONVERT}")

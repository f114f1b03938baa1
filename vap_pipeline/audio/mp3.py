"""MP3 files that do not say how long they are: libsndfile guesses from the first bit rate, and stops there.

An encoder puts a frame ``Xing`` (or ``Info``, ``VBRI``) with the number of frames at the start, if it can go
back there at the end, which it cannot in a pipe. The frame that is made here declares more than any file
holds, so that a decoder runs to the end.
"""

import struct
from pathlib import Path

from vap_pipeline.audio.window import Window

MOST_FRAMES = 10**7  # 72 hours at 44.1 kHz
BITS_PER_S = 64_000
VERSION_1, MONO = 3, 3
RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def endless(path: Path) -> Window | None:
    """Return an MP3 file behind a frame that declares its length; None where it has one of its own."""
    with path.open("rb") as file:
        tag = file.read(10)
        start = 0
        if tag[:3] == b"ID3":  # its length is given in 4 · 7 bits
            start = 10 + sum(byte << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
        file.seek(start)
        frame = file.read(256)
        length = file.seek(0, 2)
    if len(frame) < 256 or frame[0] != 0xFF or frame[1] >> 5 != 7:
        return None
    if any(name in frame for name in (b"Xing", b"Info", b"VBRI")):
        return None
    version, rate = frame[1] >> 3 & 3, frame[2] >> 2 & 3
    if version not in RATES_HZ or rate > 2:
        return None
    is_first, is_mono = version == VERSION_1, frame[3] >> 6 == MONO
    rate_hz = RATES_HZ[version][rate]
    size = (144 if is_first else 72) * BITS_PER_S // rate_hz
    side_bytes = (17 if is_mono else 32) if is_first else (9 if is_mono else 17)
    bit_rate = 5 if is_first else 8  # the index of 64 kbit/s
    head = bytes([0xFF, frame[1] | 1, bit_rate << 4 | rate << 2, frame[3] & 0xC0])
    head += bytes(side_bytes) + b"Xing" + struct.pack(">II", 1, MOST_FRAMES)
    return Window(path, head.ljust(size, b"\0"), start, length)

"""SPHERE files that are compressed with shorten, decoded as a whole (10 MB for five minutes)."""

import io
from pathlib import Path

import numpy as np

from vap_pipeline.audio import sphere
from vap_pipeline.io.errors import InputError


def decode(path: Path, header: sphere.Header) -> np.ndarray:
    """Return the samples (samples, channels) int16, checked against length and checksum of the header.

    Raises:
        InputError: damaged.
    """
    import desphere
    import soundfile

    try:
        wav = desphere.transcode_bytes(path.read_bytes())
        samples = soundfile.read(io.BytesIO(wav), dtype="int16", always_2d=True)[0]
    except (desphere.DesphereError, soundfile.SoundFileError) as error:
        raise InputError(f"{path}: cannot be decoded ({error}); copy it again") from error
    if samples.shape[1] != header.channels or header.frames != len(samples):
        raise InputError(f"{path}: decodes to another length than its header says; copy it again")
    if header.coding == "pcm":
        compare_sums(path, header, int(samples.sum(dtype=np.int64)), 1 << 16)
    elif header.coding == "ulaw":
        # It is expanded to 16 bits already, where mu-law's two zeros, codes 127 and 255, have become one.
        codes = np.zeros(1 << 16, np.int64)
        codes[np.array(desphere.g711.ULAW_TABLE, np.int16).view(np.uint16)] = np.arange(256)
        compare_sums(path, header, int(codes[samples.view(np.uint16)].sum()), 128)
    return samples


def compare_sums(path: Path, header: sphere.Header, total: int, modulus: int) -> None:
    """Raise InputError if a sum of samples is not the checksum of the header, where that has one."""
    if header.checksum is not None and (total - header.checksum) % modulus:
        raise InputError(
            f"{path}: damaged: its samples do not match the checksum in its header; copy it again"
        )

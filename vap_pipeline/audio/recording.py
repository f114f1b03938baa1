"""Two-channel recordings as one stream of 16 kHz samples, in bounded memory."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from math import gcd
from pathlib import Path

import numpy as np
import torch
import torchaudio
from torch import Tensor

from vap_pipeline.audio import sphere
from vap_pipeline.audio.headers import Header, check_two_channels, read_header
from vap_pipeline.audio.rates import HOP_SAMPLES, SAMPLE_RATE_HZ
from vap_pipeline.io.errors import InputError

# What a store records about the audio of its features.
SETTINGS = {
    "sample_rate": SAMPLE_RATE_HZ,
    "mix": "each channel, then their mean, divided by its peak over the conversation where that exceeds 0.05",
}
QUIET_PEAK = 0.05  # a peak up to this is left as it is
BLOCK_S = 10  # read and resampled at a time
WAV_HEADER_BYTES = 44  # before the samples that desphere returns


def _never_stop() -> None:
    """Let a recording be read to its end."""


@dataclass(frozen=True)
class Recording:
    """Two channels of audio in a file.

    Attributes:
        path: the file.
        rate: samples a second.
        samples: number of samples of a channel.
        read: returns the samples from one number to another, (count, 2) float32, full scale 1.
        check_stop: called before each block; it may raise, to stop.
    """

    path: Path
    rate: int
    samples: int
    read: Callable[[int, int], np.ndarray]
    check_stop: Callable[[], None] = _never_stop

    @property
    def duration_s(self) -> float:
        return self.samples / self.rate

    def blocks(self) -> Iterator[Tensor]:
        """Yield the samples in order, (2, at most 10 s) float32.

        Raises:
            InputError: samples are missing, or NaN or infinite.
        """
        for start in range(0, self.samples, BLOCK_S * self.rate):
            self.check_stop()
            stop = min(start + BLOCK_S * self.rate, self.samples)
            yield torch.from_numpy(np.ascontiguousarray(self.read_checked(start, stop).T))

    def read_checked(self, start: int, stop: int) -> np.ndarray:
        """Return samples ``start`` to ``stop``, (stop - start, 2) float32.

        Raises:
            InputError: samples are missing, or NaN or infinite.
        """
        place = f"after {start / self.rate:.0f} s"
        try:
            block = self.read(start, stop)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror}); copy it again") from error
        if block.shape != (stop - start, 2):
            raise InputError(f"{self.path}: truncated or damaged {place}; copy it again")
        if not np.isfinite(block).all():
            raise InputError(f"{self.path}: NaN or infinite samples {place}; convert it again")
        return block


def open_recording(path: Path, check_stop: Callable[[], None] = _never_stop, mono: bool = False) -> Recording:
    """Open a SPHERE (mu-law, a-law or 16-bit PCM, shorten-compressed or not), WAV or FLAC file.

    Args:
        check_stop: called again and again while the file is read, now and later; it may raise, to stop.
        mono: take a recording of one channel too, as speaker A; B is silent.

    Raises:
        InputError: no such file, damaged or truncated as far as is known yet, or not of two channels.
    """
    header = read_header(path)
    if not (mono and header.channels == 1 and not header.sphere_header):
        check_two_channels(path, header.channels)
    if header.rate // gcd(header.rate, SAMPLE_RATE_HZ) > 1_000:
        raise InputError(f"{path}: {header.rate} samples a second; resample it to 8,000 or 16,000")
    try:
        if header.sphere_header and header.sphere_header.shorten:
            return _open_shorten(path, header.sphere_header, check_stop)
        if header.sphere_header:
            _check_sum(path, header.sphere_header, check_stop)
        return _open(path, header, check_stop)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def whole(recording: Recording) -> Tensor:
    """Return all samples of a recording at 16 kHz, (2, samples) float32."""
    return torch.cat(list(resample(recording.blocks(), recording.rate)), dim=1)


def gains(recording: Recording) -> Tensor:
    """Return the factor of each channel in the mix of the two, (2,).

    Each channel is divided by its peak at 16 kHz if that exceeds 0.05, the two are averaged, and the mix is
    divided by its own peak likewise. Resampling is linear, so the mix can be made at the recording's rate.
    """
    channels = _gain(resample(recording.blocks(), recording.rate), 2) / 2
    return channels * _gain(resample(_mix(recording, channels), recording.rate), 1)


def pieces(recording: Recording, gains: Tensor, frames: int, seconds: int) -> Iterator[Tensor]:
    """Yield the mix at 16 kHz in pieces (samples,) of at most ``seconds``, ``frames`` * 160 samples in all.

    A shorter recording is followed by silence, a longer one is cut. The recording is read again, as it was
    for the gains, so that memory does not grow with its length.
    """
    missing = frames * HOP_SAMPLES
    for block in resample(_mix(recording, gains), recording.rate):
        yield from block[0, :missing].split(seconds * SAMPLE_RATE_HZ)
        missing -= min(block.shape[1], missing)
    yield from torch.zeros(missing).split(seconds * SAMPLE_RATE_HZ)


def resample(blocks: Iterable[Tensor], rate: int) -> Iterator[Tensor]:
    """Resample a signal in blocks (channels, samples) to 16 kHz, to the same samples as if it were whole."""
    if rate == SAMPLE_RATE_HZ:
        yield from blocks
        return
    step, new = rate // gcd(rate, SAMPLE_RATE_HZ), SAMPLE_RATE_HZ // gcd(rate, SAMPLE_RATE_HZ)
    context = 8 * step  # the filter reaches at most 6.06 · step samples to each side
    held, done = None, 0  # samples, and how many of them are resampled already
    for block in chain(blocks, [None]):
        if block is not None:
            held = block if held is None else torch.cat([held, block], dim=1)
        elif held is None:
            return
        end = held.shape[1] if block is None else max(held.shape[1] - context, 0) // step * step
        if end > done:
            resampled = torchaudio.functional.resample(held, step, new)
            yield resampled[:, done // step * new : None if block is None else end // step * new]
            kept = max(end - context, 0)
            held, done = held[:, kept:], end - kept


def _gain(blocks: Iterable[Tensor], channels: int) -> Tensor:
    peak = torch.zeros(channels)
    for block in blocks:
        peak = torch.maximum(peak, block.abs().amax(dim=1))
    return torch.where(peak > QUIET_PEAK, 1 / peak, 1.0)


def _mix(recording: Recording, gains: Tensor) -> Iterator[Tensor]:
    for block in recording.blocks():
        yield (gains @ block)[None]


def _open(path: Path, header: Header, check_stop: Callable[[], None]) -> Recording:
    import soundfile

    def read(start: int, stop: int) -> np.ndarray:
        try:
            samples = soundfile.read(path, start=start, stop=stop, dtype="float32", always_2d=True)[0]
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise InputError(f"{path}: cannot be decoded ({error}); copy or convert it again") from error
        return samples if header.channels == 2 else np.pad(samples, ((0, 0), (0, 1)))

    return Recording(path, header.rate, header.samples, read, check_stop)


def _open_shorten(path: Path, header: sphere.Header, check_stop: Callable[[], None]) -> Recording:
    """Open a shorten-compressed SPHERE file, which is decoded as a whole."""
    import desphere

    check_stop()
    try:
        wav = desphere.transcode_bytes(path.read_bytes())
    except desphere.DesphereError as error:
        raise InputError(f"{path}: cannot be decoded ({error}); copy it again") from error
    samples = np.frombuffer(wav, "<i2", offset=WAV_HEADER_BYTES)
    if samples.size != 2 * header.frames:
        raise InputError(f"{path}: decodes to another length than its header says; copy it again")
    samples = samples.reshape(-1, 2)
    if header.coding == "pcm":
        _compare_sums(path, header, int(samples.sum(dtype=np.int64)), 1 << 16)
    elif header.coding == "ulaw":
        # It is expanded to 16 bits already, where mu-law's two zeros, codes 127 and 255, have become one.
        codes = np.zeros(1 << 16, np.int64)
        codes[np.array(desphere.g711.ULAW_TABLE, np.int16).view(np.uint16)] = np.arange(256)
        _compare_sums(path, header, int(codes[samples.view(np.uint16)].sum()), 128)

    def read(start: int, stop: int) -> np.ndarray:
        return samples[start:stop].astype(np.float32) / np.float32(2**15)

    return Recording(path, header.rate, header.frames, read, check_stop)


def _check_sum(path: Path, header: sphere.Header, check_stop: Callable[[], None]) -> None:
    """Check the sum of the stored samples of an uncompressed SPHERE file, if its header has it."""
    import soundfile

    if header.checksum is None:
        return
    total, step = 0, 1 << 20
    for start in range(0, header.frames, step):
        check_stop()
        stop = min(start + step, header.frames)
        if header.coding == "pcm":
            stored = soundfile.read(path, start=start, stop=stop, dtype="int16", always_2d=True)[0]
        else:
            stored = np.fromfile(path, np.uint8, 2 * (stop - start), offset=header.size + 2 * start)
        total += int(stored.sum(dtype=np.int64))
    _compare_sums(path, header, total, 1 << 16)


def _compare_sums(path: Path, header: sphere.Header, total: int, modulus: int) -> None:
    if header.checksum is not None and (total - header.checksum) % modulus:
        raise InputError(
            f"{path}: damaged: its samples do not match the checksum in its header; copy it again"
        )

"""Two-channel recordings as one stream of 16 kHz samples, in bounded memory."""

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from itertools import chain
from math import gcd
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torchaudio
from torch import Tensor

from vap_pipeline.audio import sphere
from vap_pipeline.audio.headers import Header, read_header
from vap_pipeline.audio.rates import HOP_SAMPLES, SAMPLE_RATE_HZ
from vap_pipeline.io.errors import InputError

# What a store says of the audio its features are made from.
SETTINGS = {
    "sample_rate": SAMPLE_RATE_HZ,
    "mix": "each channel, then their mean, divided by its peak over the conversation where that exceeds 0.05",
}
QUIET = 0.05  # a peak up to this is left as it is
BLOCK_S = 10  # seconds read and resampled at a time
WAV_HEADER = 44  # bytes that desphere puts before the samples
LOUDEST = 1_000  # times full scale; divided by such a peak, speech would be silence

T = TypeVar("T")


def _go_on() -> None:
    """Nobody asks to stop."""


@dataclass(frozen=True)
class Recording:
    """Two channels of audio in a file.

    Attributes:
        path: the file.
        rate: samples a second.
        samples: length of a channel.
        read: returns the samples from one to another, (count, 2) float32, full scale 1.
        ask: called before each block; it may raise, to stop.
    """

    path: Path
    rate: int
    samples: int
    read: Callable[[int, int], np.ndarray]
    ask: Callable[[], None] = _go_on

    @property
    def duration_s(self) -> float:
        return self.samples / self.rate

    def blocks(self) -> Iterator[Tensor]:
        """Yield the samples in order, (2, at most 10 s) float32.

        Raises:
            InputError: samples are missing, are not finite or absurdly loud.
        """
        for start in range(0, self.samples, BLOCK_S * self.rate):
            self.ask()
            stop = min(start + BLOCK_S * self.rate, self.samples)
            try:
                block, at = self.read(start, stop), f"{start / self.rate:.0f} s"
            except OSError as error:
                raise InputError(f"{self.path}: cannot be read any more ({error.strerror})") from error
            if block.shape != (stop - start, 2):
                raise InputError(f"{self.path}: truncated or damaged after {at}; copy it again")
            peak = np.abs(block).max()
            if not np.isfinite(peak):
                raise InputError(
                    f"{self.path}: samples that are no finite numbers after {at}; convert it again"
                )
            if peak > LOUDEST:
                raise InputError(
                    f"{self.path}: a sample {peak:.3g} times full scale after {at}, where more than "
                    f"{LOUDEST:,} is no audio; convert it again"
                )
            yield torch.from_numpy(np.ascontiguousarray(block.T))


def open_recording(path: Path, ask: Callable[[], None] = _go_on) -> Recording:
    """Open a SPHERE (mu-law, a-law or PCM, shorten-compressed or not), WAV or FLAC file.

    Args:
        ask: called again and again while the file is read, now and later; it may raise, to stop.

    Raises:
        InputError: no such file, damaged or truncated as far as can be told yet, or not of two channels.
    """
    header = read_header(path)
    _check(path, header.channels, header.rate)
    try:
        if header.details:
            return _open_sphere(path, header.details, ask)
        return _open_other(path, header, ask)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); mend the path or the manifest"
        ) from error


def gains(recording: Recording) -> Tensor:
    """Return what each channel counts in the mix of the two, (2,).

    Each channel is divided by its peak at 16 kHz where that exceeds 0.05, the two are averaged, and the mix
    is treated likewise. Resampling is linear, so all of it can be done at the recording's own rate.
    """
    each = _gain(resample(recording.blocks(), recording.rate), 2) / 2
    return each * _gain(resample(_mix(recording, each), recording.rate), 1)


def pieces(recording: Recording, gains: Tensor, frames: int, seconds: int) -> Iterator[Tensor]:
    """Yield the mix at 16 kHz in pieces (samples,) of at most ``seconds``, ``frames`` * 160 samples in all.

    What the recording lacks for that is silence; what it has more is left out. The recording is read anew, as
    it was for the gains, so that memory does not grow with its length.
    """
    missing = frames * HOP_SAMPLES
    for block in resample(_mix(recording, gains), recording.rate):
        yield from block[0, :missing].split(seconds * SAMPLE_RATE_HZ)
        missing -= min(block.shape[1], missing)
    yield from torch.zeros(missing).split(seconds * SAMPLE_RATE_HZ)


def resample(blocks: Iterable[Tensor], rate: int) -> Iterator[Tensor]:
    """Resample a signal that comes in blocks (channels, samples) to 16 kHz, as if it came whole."""
    if rate == SAMPLE_RATE_HZ:
        yield from blocks
        return
    step, new = rate // gcd(rate, SAMPLE_RATE_HZ), SAMPLE_RATE_HZ // gcd(rate, SAMPLE_RATE_HZ)
    context = 8 * step  # the filter reaches 6.06 · step samples to each side at most
    held, done = None, 0  # samples, and how many at their start are resampled already
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
    return torch.where(peak > QUIET, 1 / peak, 1.0)


def _mix(recording: Recording, gains: Tensor) -> Iterator[Tensor]:
    for block in recording.blocks():
        yield (gains @ block)[None]


def _open_other(path: Path, header: Header, ask: Callable[[], None]) -> Recording:
    import soundfile

    def read(start: int, stop: int) -> np.ndarray:
        try:
            return soundfile.read(path, start=start, stop=stop, dtype="float32", always_2d=True)[0]
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise InputError(f"{path}: cannot be decoded ({error}); copy or convert it again") from error

    return Recording(path, header.rate, header.samples, read, ask)


def _open_sphere(path: Path, header: sphere.Header, ask: Callable[[], None]) -> Recording:
    if header.shorten:
        samples = _aside(lambda: _expand(path, header), ask)

        def take(start: int, stop: int) -> np.ndarray:
            return samples[start:stop]
    else:
        code = _code(path, header)

        def take(start: int, stop: int) -> np.ndarray:
            first = header.size + start * 2 * code.itemsize
            codes = np.fromfile(path, code, (stop - start) * 2, offset=first)
            return codes[: len(codes) // 2 * 2].reshape(-1, 2)

    _check_sum(path, header, take, ask)
    if header.coding != "pcm" and not header.shorten:
        levels = _levels(header.coding) / np.float32(2**15)
        return Recording(path, header.rate, header.frames, lambda a, b: levels[take(a, b)], ask)
    scale = np.float32(2.0 ** (1 - 8 * (2 if header.shorten else header.sample_bytes)))
    return Recording(
        path, header.rate, header.frames, lambda a, b: take(a, b).astype(np.float32) * scale, ask
    )


def _code(path: Path, header: sphere.Header) -> np.dtype:
    widths = (2, 4) if header.coding == "pcm" else (1,)
    if header.sample_bytes not in widths:
        raise InputError(
            f"{path}: {header.coding} samples of {header.sample_bytes} bytes; convert it to WAV with sph2pipe"
        )
    if header.coding != "pcm":
        return np.dtype("u1")
    return np.dtype(f"{'>' if header.big_endian else '<'}i{header.sample_bytes}")


def _levels(coding: str) -> np.ndarray:
    """The 256 levels of ITU-T G.711's mu-law or a-law, as 16-bit samples, (256,) float32."""
    from desphere import g711

    return np.array(g711.ULAW_TABLE if coding == "ulaw" else g711.ALAW_TABLE, np.float32)


def _expand(path: Path, header: sphere.Header) -> np.ndarray:
    """Decode a shorten-compressed file: (samples, 2) int16."""
    import desphere

    try:
        wav = desphere.transcode_bytes(path.read_bytes())
    except desphere.DesphereError as error:
        raise InputError(f"{path}: cannot be decoded ({error}); copy it again") from error
    samples = np.frombuffer(wav, "<i2", offset=WAV_HEADER)
    if samples.size != 2 * header.frames:
        raise InputError(f"{path}: decodes to another length than its header promises; copy it again")
    return samples.reshape(-1, 2)


def _aside(work: Callable[[], T], ask: Callable[[], None]) -> T:
    """Return what ``work`` does, asking meanwhile; where that raises, the work's thread is left behind."""
    done: Future[T] = Future()

    def body() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=body, daemon=True).start()
    while not wait([done], 0.2).done:
        ask()
    return done.result()


def _check_sum(
    path: Path,
    header: sphere.Header,
    take: Callable[[int, int], np.ndarray],
    ask: Callable[[], None],
) -> None:
    """Check the header's ``sample_checksum``, where there is one: the sum of the stored samples mod 2^16."""
    with path.open("rb") as file:
        stated = re.search(rb"^sample_checksum -i (\d+)\s*$", file.read(header.size), re.MULTILINE)
    if stated is None or header.sample_bytes > 2 or (header.shorten and header.coding == "alaw"):
        return
    modulus, code_of = 1 << 16, None
    if header.shorten and header.coding == "ulaw":
        # Expanded to 16 bits already, where mu-law's two zeros, codes 127 and 255, have become one.
        modulus, code_of = 128, np.zeros(1 << 16, np.int64)
        code_of[_levels("ulaw").astype(np.int16).view(np.uint16)] = np.arange(256)
    total = 0
    for start in range(0, header.frames, 1 << 20):
        ask()
        codes = take(start, min(start + (1 << 20), header.frames))
        total += int((codes if code_of is None else code_of[codes.view(np.uint16)]).sum(dtype=np.int64))
    if (total - int(stated[1])) % modulus:
        raise InputError(
            f"{path}: damaged: its samples do not add up to the checksum in its header; copy it again"
        )


def _check(path: Path, channels: int, rate: int) -> None:
    """Refuse what a header says before anything is allocated by it."""
    if channels != 2:
        raise InputError(
            f"{path}: {channels} channel{'s' * (channels != 1)}, expected one for each of two speakers; "
            "join the two sides into one file, for example with `sox -M A.wav B.wav AB.wav`"
        )
    if rate // gcd(rate, SAMPLE_RATE_HZ) > 1_000:
        raise InputError(f"{path}: {rate} samples a second, an odd rate; resample it to 8,000 or 16,000")

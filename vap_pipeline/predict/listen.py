"""Predict while audio comes: from standard input or an audio device, a line of JSON a frame."""

import argparse
import json
import struct
import sys
from collections.abc import Iterator
from typing import IO

import numpy as np

from vap_pipeline.io.errors import InputError
from vap_pipeline.predict.loading import load
from vap_pipeline.runtime import command

RATE_HZ = 16_000  # of raw PCM, if nothing else is said
PIECE_S = 0.02  # read at a time
DIGITS = 4


def listen(args: argparse.Namespace) -> None:
    """Print the predictions of a live signal until it ends.

    Raises:
        InputError: the model or the signal cannot be read, or the signal ends within a sample.
    """
    predictor = load(args.model, args.weights, args.frame_rate)
    if args.device:
        rate, pieces = args.rate or RATE_HZ, _microphone(args.device, args.rate or RATE_HZ)
    else:
        rate, pieces = _standard_input(sys.stdin.buffer, args.rate, args.channels, args.mono)
    stream = predictor.stream(rate, args.context)
    for samples in pieces:
        frames = stream.push(samples)
        lines = [
            json.dumps({name: round(value.item(), DIGITS) for name, value in zip(frames, row, strict=True)})
            for row in zip(*frames.values(), strict=True)
        ]
        if lines:
            command.show("\n".join(lines))


def _standard_input(
    source: IO[bytes], rate: int | None, channels: int | None, mono: bool
) -> tuple[int, Iterator[np.ndarray]]:
    """Return the rate and the samples (n, 2) int16 of a WAV file or raw PCM."""
    start = source.read(12)
    if start[:4] == b"RIFF" and start[8:] == b"WAVE":
        wav_rate, wav_channels = _wav(source)
        if rate not in (None, wav_rate) or channels not in (None, wav_channels):
            raise InputError(
                f"standard input: a WAV file of {wav_rate} Hz and {wav_channels} channels; leave out --rate "
                "and --channels"
            )
        rate, channels, start = wav_rate, wav_channels, b""
    channels = channels or (1 if mono else 2)
    if channels != (1 if mono else 2):
        raise InputError(
            f"standard input: {channels} channel(s); give one for each of two speakers, or --mono for one "
            "speaker, the other silent"
        )
    return rate or RATE_HZ, _pcm(source, start, channels, rate or RATE_HZ)


def _wav(source: IO[bytes]) -> tuple[int, int]:
    """Read a WAV header up to its samples; return rate and channels."""
    rate = channels = 0
    while True:
        name, size = struct.unpack("<4sI", _exactly(source, 8))
        if name == b"data":
            return rate, channels
        content = _exactly(source, size + size % 2)
        if name == b"fmt ":
            code, channels, rate, _, _, bits = struct.unpack("<HHIIHH", content[:16])
            if code not in (1, 0xFFFE) or bits != 16:
                raise InputError(
                    "standard input: not 16-bit PCM; convert it, as in `sox A.wav -b 16 -t wav -`"
                )


def _exactly(source: IO[bytes], size: int) -> bytes:
    content = source.read(size)
    if len(content) < size:
        raise InputError("standard input: ends within its WAV header; check the program before the pipe")
    return content


def _pcm(source: IO[bytes], start: bytes, channels: int, rate: int) -> Iterator[np.ndarray]:
    width = 2 * channels
    size = max(round(PIECE_S * rate), 1) * width
    held = start
    while block := source.read(max(size - len(held), 1)):
        held += block
        whole = len(held) // width * width
        yield _two(np.frombuffer(held[:whole], "<i2").reshape(-1, channels))
        held = held[whole:]
    if held:
        raise InputError(
            f"standard input: ends within a sample ({len(held)} of {width} bytes); check --channels and that "
            "the samples are 16-bit PCM"
        )


def _two(samples: np.ndarray) -> np.ndarray:
    """Give a single channel a silent other speaker."""
    return samples if samples.shape[1] == 2 else np.pad(samples, ((0, 0), (0, 1)))


def _microphone(device: str, rate: int) -> Iterator[np.ndarray]:
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        raise InputError(
            f"--device: sounddevice is not usable ({error}); pip install 'vap-pipeline[live]' and PortAudio"
        ) from error
    try:
        name = None if device == "default" else device
        with sounddevice.InputStream(rate, round(PIECE_S * rate), name, channels=2, dtype="int16") as stream:
            while True:
                yield stream.read(round(PIECE_S * rate))[0]
    except (sounddevice.PortAudioError, ValueError) as error:
        raise InputError(f"--device {device}: {error}; `python -m sounddevice` lists the devices") from error

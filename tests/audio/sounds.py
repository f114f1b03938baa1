"""Signals, and WAV files as programs of the field write them."""

import struct
from dataclasses import dataclass

import numpy as np
import torch

RATE = 8_000


def speech(seconds, rate=RATE, seed=0):
    """Two channels of noise that swells and fades, (samples, 2) float64."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    swell = 0.1 + 0.3 * np.sin(2 * np.pi * np.c_[0.2 * t, 0.3 * t + 0.5]) ** 2
    return np.clip(rng.standard_normal((len(t), 2)) * swell, -0.99, 0.99)


def tones(seconds, rate=RATE):
    """A tone of 300 Hz on channel 0 and of 500 Hz on channel 1, in turns of a second, which codecs keep."""
    t = np.arange(round(seconds * rate)) / rate
    turn = np.c_[t % 2 < 1, t % 2 >= 1]
    return 0.4 * np.sin(2 * np.pi * t[:, None] * [300, 500]) * turn


def samples_of(recording):
    """Every sample of a recording, (samples, 2)."""
    return torch.cat(list(recording.blocks()), dim=1).numpy().T


def chunk(name, content, size=None, pad=True, order="<"):
    """A chunk of a RIFF file that declares ``size`` bytes."""
    declared = struct.pack(f"{order}I", len(content) if size is None else size)
    return name + declared + content + bytes(len(content) % 2 * pad)


def pcm(samples):
    """Samples in −1 to 1 as 16-bit little-endian bytes."""
    return (samples * 2**15).astype("<i2").tobytes()


def wav(path, content, declared=None, magic=b"RIFF", before=b"", after=b"", rate=RATE, channels=2):
    """Write a WAV file of 16-bit samples whose header declares ``declared`` bytes of them."""
    format_ = struct.pack("<HHIIHH", 1, channels, rate, rate * 2 * channels, 2 * channels, 16)
    body = b"WAVE" + before + chunk(b"fmt ", format_) + chunk(b"data", content, declared) + after
    path.write_bytes(magic + struct.pack("<I", min(len(body), 0xFFFFFFFF)) + body)
    return path


@dataclass
class InMemory:
    """A recording of samples (samples, 2) in memory."""

    samples: np.ndarray
    rate: int = RATE

    @property
    def duration_s(self):
        return len(self.samples) / self.rate

    def blocks(self):
        yield from torch.from_numpy(np.ascontiguousarray(self.samples.T, np.float32)).split(10 * self.rate, 1)

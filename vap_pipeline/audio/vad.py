"""Voice activity from audio: Silero VAD on each channel, whole recordings or live.

The network (silero-vad, MIT licence, in its wheel) gives the probability of speech in chunks of 32 ms.
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vap_pipeline.audio.rates import HOP_SAMPLES, SAMPLE_RATE_HZ
from vap_pipeline.audio.recording import Recording
from vap_pipeline.audio.resampling import Resampler
from vap_pipeline.settings.events import FRAME_RATE_HZ

CHUNK_SAMPLES, CONTEXT_SAMPLES = 512, 64  # of the network's input; the context is the end of the chunk before
CHUNK_S = CHUNK_SAMPLES / SAMPLE_RATE_HZ
HYSTERESIS = 0.15  # speech goes on while the probability is at most this much below the threshold
BLOCK_S = 30  # given to the network at once


@dataclass(frozen=True)
class VadSettings:
    """When a channel counts as speech."""

    threshold: float = 0.5  # probability at which speech begins
    min_silence_s: float = 0.1  # shorter silences inside speech count as speech
    min_speech_s: float = 0.1  # shorter stretches of speech do not count
    pad_s: float = 0.03  # added to both ends of a stretch


class Probabilities:
    """The probability of speech in each chunk of a channel, as its samples come."""

    def __init__(self) -> None:
        self._held = np.zeros(CONTEXT_SAMPLES, np.float32)
        self._state = [np.zeros((1, 1, 128), np.float32) for _ in "hc"]

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Return the probabilities (chunks,) that samples (n,) at 16 kHz complete."""
        held = np.concatenate([self._held, samples.astype(np.float32, copy=False)])
        chunks = (len(held) - CONTEXT_SAMPLES) // CHUNK_SAMPLES
        self._held = held[chunks * CHUNK_SAMPLES :]
        if not chunks:
            return np.zeros(0, np.float32)
        rows = np.lib.stride_tricks.sliding_window_view(held, CONTEXT_SAMPLES + CHUNK_SAMPLES)
        rows = rows[::CHUNK_SAMPLES][:chunks]
        inputs = {"input": np.ascontiguousarray(rows), "h": self._state[0], "c": self._state[1]}
        probability, *self._state = _session().run(["speech_probs", "hn", "cn"], inputs)
        return probability


class LiveDetector:
    """Voice activity of two channels frame by frame, from the past alone.

    A channel becomes active at the threshold and inactive below the threshold less ``HYSTERESIS``. Silences
    and speech of any length count, because a live detector cannot know how long they will last.
    """

    def __init__(self, settings: VadSettings | None = None) -> None:
        self.threshold = (settings or VadSettings()).threshold
        self._channels = [Probabilities(), Probabilities()]
        self._active = np.zeros((1, 2), bool)  # in the last chunk
        self._chunk = self._frame = 0

    def push(self, samples: Tensor) -> np.ndarray:
        """Return the next frames (n, 2) uint8 after samples (2, any) at 16 kHz have come."""
        pairs = zip(self._channels, samples.numpy(), strict=True)
        probability = np.stack([channel.push(part) for channel, part in pairs], axis=1)
        active = np.concatenate([self._active, _hold(probability, self.threshold, self._active[0])])
        first, self._chunk = self._chunk - 1, self._chunk + len(probability)
        self._active = active[-1:]
        frame = np.arange(self._frame, _frames_of(self._chunk))
        self._frame += len(frame)
        return active[_chunk_of(frame) - first].astype(np.uint8)


def voice_activity_of(recording: Recording, frames: int, settings: VadSettings | None = None) -> np.ndarray:
    """Return the voice activity of a two-channel recording, (frames, 2) uint8, in bounded memory."""
    settings = settings or VadSettings()
    resampler, channels = Resampler(recording.rate), [Probabilities(), Probabilities()]
    parts: list[list[np.ndarray]] = [[], []]

    def hear(samples: Tensor) -> None:
        for channel, part, heard in zip(channels, parts, samples.numpy(), strict=True):
            part.append(channel.push(heard))

    for block in recording.blocks():
        hear(resampler.push(block))
    hear(resampler.push(torch.zeros(2, 0), last=True))
    hear(torch.zeros(2, CHUNK_SAMPLES))  # completes the last chunk
    probability = np.stack([np.concatenate(part) for part in parts], axis=1)
    active = np.stack([decide(column, settings) for column in probability.T], axis=1)
    frame = np.arange(frames)
    spoken = active[_chunk_of(frame).clip(max=len(active) - 1)]
    pad = round(settings.pad_s * FRAME_RATE_HZ)
    padded = np.lib.stride_tricks.sliding_window_view(
        np.pad(spoken, ((pad, pad), (0, 0))), 2 * pad + 1, axis=0
    )
    return np.asarray(padded.any(-1), np.uint8)


def live_voice_activity_of(recording: Recording, frames: int) -> np.ndarray:
    """Return the voice activity of a recording as :class:`LiveDetector` hears it, silent at the end."""
    resampler, detector = Resampler(recording.rate), LiveDetector()
    parts = [detector.push(resampler.push(block)) for block in recording.blocks()]
    parts.append(detector.push(resampler.push(torch.zeros(2, 0), last=True)))
    heard = np.concatenate(parts)[:frames]
    return np.pad(heard, ((0, frames - len(heard)), (0, 0)))


def decide(probability: np.ndarray, settings: VadSettings) -> np.ndarray:
    """Return in which chunks (chunks,) bool a channel with these probabilities of speech is active."""
    active = _hold(probability[:, None], settings.threshold, np.zeros(1, bool))[:, 0]
    active = ~_without_short(~active, settings.min_silence_s, at_ends=True)
    return _without_short(active, settings.min_speech_s)


def _hold(probability: np.ndarray, threshold: float, before: np.ndarray) -> np.ndarray:
    """Hysteresis over chunks (chunks, channels): between the two thresholds the state before holds."""
    change = np.where(probability >= threshold, 1, np.where(probability < threshold - HYSTERESIS, 0, -1))
    change = np.concatenate([before[None].astype(int), change])
    last = np.maximum.accumulate(np.where(change >= 0, np.arange(len(change))[:, None], 0), axis=0)
    return np.take_along_axis(change, last, axis=0)[1:] > 0


def _without_short(active: np.ndarray, shortest_s: float, at_ends: bool = False) -> np.ndarray:
    """Clear stretches shorter than ``shortest_s``; with ``at_ends``, keep those at both ends."""
    edges = np.diff(np.pad(active.astype(np.int8), 1))
    kept = np.zeros(len(active), bool)
    for start, end in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
        if (end - start) * CHUNK_S >= shortest_s or (at_ends and (start == 0 or end == len(active))):
            kept[start:end] = True
    return kept


def _chunk_of(frame: np.ndarray) -> np.ndarray:
    """Return the chunk in which the middle of a frame lies."""
    return (2 * frame + 1) * HOP_SAMPLES // (2 * CHUNK_SAMPLES)


def _frames_of(chunks: int) -> int:
    """Return how many frames have their middle in the first ``chunks`` chunks."""
    return -(-(2 * chunks * CHUNK_SAMPLES - HOP_SAMPLES) // (2 * HOP_SAMPLES)) if chunks else 0


@cache
def _session() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    package = find_spec("silero_vad")  # not imported: that would set torch to one thread
    assert package and package.origin
    model = Path(package.origin).parent / "data" / "silero_vad_16k_sequence.onnx"
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

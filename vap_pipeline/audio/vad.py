"""Voice activity from audio, by silero-vad: an optional library whose wheel carries its model.

A frame lasts 32 ms (512 samples at 16 kHz). Its probability of speech depends on it and on all before it, so
a recording in blocks, a live stream, and a recording as a whole give the same numbers.
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vap_pipeline.audio.rates import SAMPLE_RATE_HZ
from vap_pipeline.audio.recording import Recording
from vap_pipeline.audio.resampling import resample
from vap_pipeline.io.errors import InputError

FRAME_SAMPLES, CONTEXT_SAMPLES, STATE_SIZE = 512, 64, 128  # of the model
HYSTERESIS = 0.15  # speech ends where the probability falls this far below the threshold
CROSSTALK_FRAMES = 3  # over which levels are compared
SILENCE_ENERGY = 1e-12
MODEL = "silero_vad_16k_sequence.onnx"  # all frames of a block in one call


@dataclass(frozen=True)
class VadSettings:
    """How probabilities of speech become segments.

    Attributes:
        threshold: probability from which on a frame is speech.
        min_speech_s: shorter speech is left out.
        min_silence_s: shorter pauses are speech.
        pad_s: added to both ends of speech, which the model finds late and leaves early.
        crosstalk_db: a channel that is softer than the other by this much is not speech; None: it may be. A
            soft speaker loses speech by it, where both speak.
    """

    threshold: float = 0.5
    min_speech_s: float = 0.1
    min_silence_s: float = 0.1
    pad_s: float = 0.03
    crosstalk_db: float | None = None


class Stream:
    """Probabilities of speech of channels that arrive piece by piece.

    Example:
        >>> stream = Stream(channels=2)
        >>> for piece in pieces:  # (2, any number) float32 at 16 kHz
        ...     probabilities = stream(piece)  # (2, frames that are complete now)
    """

    def __init__(self, channels: int = 2, crosstalk_db: float | None = None) -> None:
        self.session, self.crosstalk_db = _session(), crosstalk_db
        self.states = [[np.zeros((1, 1, STATE_SIZE), np.float32)] * 2 for _ in range(channels)]
        self.rest = np.zeros((channels, CONTEXT_SAMPLES), np.float32)  # the context, and an incomplete frame
        self.energies = np.zeros((channels, CROSSTALK_FRAMES - 1))

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Return the probabilities (channels, frames) of the frames that samples (channels, n) complete."""
        held = np.concatenate([self.rest, samples], axis=1, dtype=np.float32)
        frames = (held.shape[1] - CONTEXT_SAMPLES) // FRAME_SAMPLES
        if not frames:
            self.rest = held
            return np.zeros((len(held), 0), np.float32)
        self.rest = held[:, frames * FRAME_SAMPLES :]
        windows = np.lib.stride_tricks.sliding_window_view(held, CONTEXT_SAMPLES + FRAME_SAMPLES, axis=1)
        inputs = windows[:, : frames * FRAME_SAMPLES : FRAME_SAMPLES]
        probabilities = np.empty((len(held), frames), np.float32)
        for channel, (windowed, (hidden, cell)) in enumerate(zip(inputs, self.states, strict=True)):
            values = {"input": np.ascontiguousarray(windowed), "h": hidden, "c": cell}
            probabilities[channel], *self.states[channel] = self.session.run(None, values)
        if self.crosstalk_db is not None:
            softer_db = self._softer_db(inputs[..., CONTEXT_SAMPLES:])
            probabilities[softer_db >= self.crosstalk_db] = 0
        return probabilities

    def finish(self) -> np.ndarray:
        """Return the probabilities (channels, 0 or 1) of the last, incomplete frame, followed by silence."""
        missing = CONTEXT_SAMPLES - self.rest.shape[1]
        return self(np.zeros((len(self.rest), FRAME_SAMPLES if missing else 0), np.float32))

    def _softer_db(self, frames: np.ndarray) -> np.ndarray:
        """Return by how much each channel is softer than the loudest, (channels, frames)."""
        energies = np.concatenate([self.energies, frames.var(axis=2)], axis=1)
        self.energies = energies[:, -(CROSSTALK_FRAMES - 1) :]
        level = np.lib.stride_tricks.sliding_window_view(energies, CROSSTALK_FRAMES, axis=1).sum(2)
        level = np.maximum(level, SILENCE_ENERGY)
        return 10 * np.log10(level.max(axis=0) / level)


class LiveActivity:
    """Who speaks now: voice activity of a live stream, frame by frame.

    Speech starts and ends with the frame that shows it. There is no minimum of speech and silence: both
    would need to look ahead.
    """

    def __init__(self, channels: int = 2, settings: VadSettings | None = None) -> None:
        self.settings = settings or VadSettings()
        self.stream = Stream(channels, self.settings.crosstalk_db)
        self.speaking = np.zeros(channels, bool)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Return the activity (frames, channels) uint8 of the frames of 32 ms that ``samples`` complete."""
        probabilities = self.stream(samples).T
        activity = np.zeros(probabilities.shape, np.uint8)
        for frame, probability in enumerate(probabilities):
            keeps_on = self.speaking & (probability >= self.settings.threshold - HYSTERESIS)
            self.speaking = keeps_on | (probability >= self.settings.threshold)
            activity[frame] = self.speaking
        return activity


def probabilities(recording: Recording, crosstalk_db: float | None = None) -> np.ndarray:
    """Return the probabilities of speech of a recording, (2, frames of 32 ms) float32.

    Raises:
        InputError: silero-vad is missing, or the recording cannot be read.
    """
    stream = Stream(2, crosstalk_db)
    content = bytearray()  # many small arrays, kept between large ones, would fragment the memory
    for block in resample(recording.blocks(), recording.rate):
        content += stream(block.numpy()).T.tobytes()
    content += stream.finish().T.tobytes()
    return np.frombuffer(content, np.float32).reshape(-1, 2).T


def voice_activity(
    recording: Recording, settings: VadSettings | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return who speaks when: channel (int8), start and end in seconds of each segment, in this order.

    Several recordings can be read at a time, one per thread.

    Raises:
        InputError: silero-vad is missing, or the recording cannot be read.
    """
    settings = settings or VadSettings()
    channels, starts, ends = [], [], []
    for channel, row in enumerate(probabilities(recording, settings.crosstalk_db)):
        for segment in segments(row, settings):
            channels.append(channel)
            starts.append(segment[0])
            ends.append(min(segment[1], recording.duration_s))
    return np.array(channels, np.int8), np.array(starts, float), np.array(ends, float)


def segments(probabilities: np.ndarray, settings: VadSettings) -> list[tuple[float, float]]:
    """Return the segments of speech [start, end) in seconds of one channel's probabilities (frames,)."""
    found = _silero().get_speech_timestamps_from_probs(
        probabilities.tolist(),
        sampling_rate=SAMPLE_RATE_HZ,
        threshold=settings.threshold,
        neg_threshold=max(settings.threshold - HYSTERESIS, 0.01),
        min_speech_duration_ms=1000 * settings.min_speech_s,
        min_silence_duration_ms=1000 * settings.min_silence_s,
        speech_pad_ms=1000 * settings.pad_s,
    )
    return [(segment["start"] / SAMPLE_RATE_HZ, segment["end"] / SAMPLE_RATE_HZ) for segment in found]


def _missing(error: Exception | None) -> InputError:
    return InputError("voice activity from audio needs silero-vad; run `pip install 'vap-pipeline[vad]'`")


@cache
def _silero() -> Any:
    threads = torch.get_num_threads()
    try:
        from silero_vad import utils_vad
    except ImportError as error:
        raise _missing(error) from error
    finally:
        torch.set_num_threads(threads)  # silero_vad sets it to one when it is imported
    return utils_vad


@cache
def _session() -> Any:
    """Return the model, which runs on one core: several threads may call it at once."""
    try:
        import onnxruntime
    except ImportError as error:
        raise _missing(error) from error
    if not (package := find_spec("silero_vad")) or not package.origin:
        raise _missing(None)
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    model = Path(package.origin).parent / "data" / MODEL
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

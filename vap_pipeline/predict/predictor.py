"""A trained model with its encoder: a recording in, predictions out, offline or live."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from vap_pipeline.audio.live import RunningLevel
from vap_pipeline.audio.rates import HOP_SAMPLES
from vap_pipeline.audio.recording import Recording, gains, open_recording, pieces
from vap_pipeline.audio.resampling import Resampler
from vap_pipeline.audio.vad import LiveDetector, live_voice_activity_of, voice_activity_of
from vap_pipeline.encoders.cpc import CPCEncoder
from vap_pipeline.encoders.cpc_live import LiveEncoder
from vap_pipeline.io.errors import InputError
from vap_pipeline.models.network import ProjectionModel
from vap_pipeline.models.stream import Stream, predict_blocks
from vap_pipeline.predict.history import RunningHistory
from vap_pipeline.settings.events import FRAME_RATE_HZ, EventSettings, in_frames, recorded
from vap_pipeline.turn_taking import near_future, projection
from vap_pipeline.turn_taking.voice_activity import activity_history, frames

PIECE_S = 4  # of audio, encoded at a time


class VoiceActivityDetector(Protocol):
    """Voice activity of two channels as they arrive; see vap_pipeline.audio.vad."""

    def push(self, samples: Tensor) -> np.ndarray:
        """Return the next frames (n, 2) uint8 after samples (2, any) at 16 kHz have come."""


class Predictor:
    """A trained model with its encoder.

    Attributes:
        name: the folder that it was loaded from.
        network: the projection model, on the CPU, in evaluation mode.
        encoder: the CPC encoder, and ``weights``, the name of its weights.
        events: what counted as an event in training; its ``window_s`` is the context of predictions.
        backchannel_threshold: of ``p_bc``, measured on the validation set; 0.5 if it was not.
        rate_hz: frames a second.
    """

    rate_hz = float(FRAME_RATE_HZ)

    def __init__(
        self,
        name: str,
        network: ProjectionModel,
        config: dict[str, Any],
        encoder: CPCEncoder,
        weights: str = "",
    ) -> None:
        self.name, self.network, self.encoder, self.weights = name, network, encoder, weights
        self.events: EventSettings = recorded(config.get("events"), name)
        thresholds = config.get("thresholds") or {}
        self.backchannel_threshold: float = thresholds.get("predict_backchannel", {}).get("frame", 0.5)

    def context(self, context_s: float | None = None) -> int:
        """Return the frames of a window: an even number, by default what the model was trained with.

        Raises:
            InputError: longer than in training, or shorter than 0.1 s.
        """
        longest_s = self.events.window_s
        context_s = longest_s if context_s is None else context_s
        if not 0.1 <= context_s <= longest_s:
            raise InputError(
                f"a context of {context_s:g} s: {self.name} was trained with {longest_s:g} s; give 0.1 to "
                f"{longest_s:g}"
            )
        return in_frames(context_s) // 2 * 2

    def predict(
        self,
        recording: str | Path | Recording,
        va: np.ndarray | None = None,
        level: str = "whole",
        context_s: float | None = None,
    ) -> pa.Table:
        """Predict turn-taking in a two-channel recording, in memory that does not grow with its audio.

        Args:
            recording: a file of two channels, or an open recording.
            va: (frames, 2) voice activity at 100 Hz; None to find it in each channel.
            level: ``whole`` divides each channel by its peak over the recording, as in training; ``running``
                by its peak so far, as :meth:`stream` has to.
            context_s: length of the model's window.

        Returns:
            A row per frame of 10 ms; see :func:`columns`.

        Raises:
            InputError: the recording cannot be read.
        """
        opened = recording if isinstance(recording, Recording) else open_recording(Path(recording))
        n = frames(opened.duration_s)
        if va is None:
            va = voice_activity_of(opened, n) if level == "whole" else live_voice_activity_of(opened, n)
        activity = torch.from_numpy(va)
        if len(va) != n:
            raise ValueError(f"voice activity of {len(va)} frames, expected {n}")
        audio = pieces(opened, gains(opened), n, PIECE_S) if level == "whole" else _running(opened, n)
        blocks = (block.half() for block in self.encoder.stream(audio))  # as the store keeps features
        with torch.inference_mode():
            history = activity_history(activity)
            parts = predict_blocks(self.network, blocks, activity.float(), history, self.context(context_s))
            tables, start = [], 0
            for logits in parts:
                tables.append(
                    columns(self.network.config.model, start, va[start : start + len(logits)], logits)
                )
                start += len(logits)
        return pa.concat_tables(map(pa.table, tables))

    def stream(
        self,
        rate: int = 16_000,
        context_s: float | None = None,
        detector: Callable[[], VoiceActivityDetector] = LiveDetector,
    ) -> "LiveStream":
        """Return a live stream of two channels; see :class:`LiveStream`."""
        return LiveStream(self, rate, context_s, detector)


class LiveStream:
    """Predictions while two channels arrive, with constant work and memory a frame.

    Args:
        predictor: the model.
        rate: samples a second.
        context_s: length of the model's window.
        detector: makes the detector of voice activity in the channels.
    """

    def __init__(
        self,
        predictor: Predictor,
        rate: int,
        context_s: float | None,
        detector: Callable[[], VoiceActivityDetector],
    ) -> None:
        self.predictor, self.rate, self._make_detector = predictor, rate, detector
        self._context = predictor.context(context_s)
        self.reset()

    def reset(self) -> None:
        """Forget the signal; the next samples start a new one."""
        self._resampler, self._level = Resampler(self.rate), RunningLevel()
        self._encoder = LiveEncoder(self.predictor.encoder)
        self._network = Stream(self.predictor.network, self._context)
        self._history, self._detector = RunningHistory(), self._make_detector()
        self._samples = torch.zeros(2, 0)
        self._features = torch.zeros(0, self.predictor.encoder.dim)
        self._va = np.zeros((0, 2), np.uint8)
        self.frame = 0  # the number of the next frame

    @torch.inference_mode()
    def push(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        """Take the next samples and return the frames that are complete by them.

        Args:
            samples: (n, 2) of any n; floats of full scale 1, or 16-bit integers.

        Returns:
            Columns as of :func:`columns`, an entry for each frame of 10 ms; often none or several. With
            pieces of 20 ms a frame comes 10 to 40 ms after its end.

        Raises:
            InputError: samples that are not (n, 2), or NaN or infinite.
        """
        heard = self._resampler.push(checked(samples))
        self._push_va(heard)
        joined = torch.cat([self._samples, heard], dim=1)
        whole = joined.shape[1] // HOP_SAMPLES * HOP_SAMPLES
        self._samples = joined[:, whole:]
        if whole:
            encoded = self._encoder.push(self._level.push(joined[:, :whole]))
            self._features = torch.cat([self._features, encoded.half().float()])
        return self._next(min(len(self._features), len(self._va)))

    def _push_va(self, heard: Tensor) -> None:
        self._va = np.concatenate([self._va, self._detector.push(heard)])

    def _next(self, n: int) -> dict[str, np.ndarray]:
        va, self._va = self._va[:n], self._va[n:]
        features, self._features = self._features[:n], self._features[n:]
        activity = torch.from_numpy(va)
        logits = self._network.step(features, activity.float(), self._history.push(activity))
        self.frame += n
        return columns(self.predictor.network.config.model, self.frame - n, va, logits)


def columns(
    model: str, start: int, va: np.ndarray, logits: Tensor, rate_hz: float = FRAME_RATE_HZ
) -> dict[str, np.ndarray]:
    """Return what is predicted in successive frames, an array of (n,) for each column.

    ``time_s``: the start of the frame; ``va_a``, ``va_b``: voice activity; ``p_a``, ``p_b``: the probability
    that A, B speaks next; ``p_bc_a``, ``p_bc_b``: that A, B is about to give a backchannel (not of the
    comparative model). Of models with four bins also ``p_now_a`` to ``p_future_b``, the shares of A and B in
    the expected activity up to 0.6 s ahead and after that, and ``entropy``, 0 to 8 bits.

    Args:
        model: one of ``projection.MODELS``.
        start: number of the first frame.
        va: (n, 2) uint8.
        logits: (n, outputs).
        rate_hz: frames a second.
    """
    time_s = (start + np.arange(len(va))) / rate_hz
    predicted = outputs(model, torch.from_numpy(va), logits)
    table = {"time_s": time_s, "va_a": va[:, 0], "va_b": va[:, 1]}
    return table | {name: values.numpy() for name, values in predicted.items()}


def outputs(model: str, va: Tensor, logits: Tensor) -> dict[str, Tensor]:
    """Return what is predicted in frames, a tensor (n,) for each of :func:`columns` from ``p_a`` on.

    Args:
        model, va, logits: as of :func:`columns`.
    """
    p, p_bc = projection.probabilities(logits, va, model)
    pairs = {"p": p}
    if p_bc is not None:
        pairs["p_bc"] = p_bc
    single = {}
    if model in near_future.FOUR_BIN_MODELS:
        pairs["p_now"], pairs["p_future"] = (
            near_future.p_now(logits, model),
            near_future.p_future(logits, model),
        )
        single["entropy"] = near_future.entropy(logits, model)
    return {
        f"{name}_{x}": values[:, i] for name, values in pairs.items() for i, x in enumerate("ab")
    } | single


def _running(recording: Recording, n: int) -> Iterator[Tensor]:
    """Yield the mix of a recording with its running level: n frames of 160 samples, silence at the end."""
    resampler, level = Resampler(recording.rate), RunningLevel()
    held, missing = torch.zeros(2, 0), n * HOP_SAMPLES
    for block in recording.blocks():
        held = torch.cat([held, resampler.push(block)], dim=1)
        whole = min(held.shape[1] // HOP_SAMPLES * HOP_SAMPLES, missing)
        yield level.push(held[:, :whole])
        held, missing = held[:, whole:], missing - whole
    held = torch.cat([held, resampler.push(torch.zeros(2, 0), last=True), torch.zeros(2, missing)], dim=1)
    yield level.push(held[:, :missing])


def checked(samples: np.ndarray) -> Tensor:
    """Return samples (n, 2), floats or 16-bit integers, as (2, n) float32.

    Raises:
        InputError: another shape, or NaN or infinite samples.
    """
    array = np.asarray(samples)
    if array.ndim != 2 or array.shape[1] != 2:
        raise InputError(f"samples of shape {array.shape}; give (n, 2), a column for each speaker")
    if array.dtype == np.int16:
        array = array.astype(np.float32) / 32768
    if not np.isfinite(array).all():
        raise InputError("samples that are NaN or infinite; check the source")
    return torch.from_numpy(np.ascontiguousarray(array.T, dtype=np.float32))

"""A trained model with its encoder: a recording in, predictions out, offline or live."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from vap_pipeline.audio.live import Resampler, RunningLevel
from vap_pipeline.audio.rates import HOP_SAMPLES
from vap_pipeline.audio.recording import Recording, gains, open_recording, pieces
from vap_pipeline.encoders import cpc_weights
from vap_pipeline.encoders.cpc import CPCEncoder
from vap_pipeline.encoders.cpc_live import LiveEncoder
from vap_pipeline.io.errors import InputError
from vap_pipeline.models import checkpoint
from vap_pipeline.models.network import ProjectionModel
from vap_pipeline.models.stream import Stream, predict_blocks
from vap_pipeline.predict.history import RunningHistory
from vap_pipeline.settings.events import FRAME_RATE_HZ, EventSettings, in_frames, recorded
from vap_pipeline.turn_taking import projection
from vap_pipeline.turn_taking.voice_activity import activity_history, frames

PIECE_S = 4  # of audio, encoded at a time
LEVELS = ("whole", "running")


class VoiceActivityDetector(Protocol):
    """Voice activity of two channels as they arrive; see vap_pipeline.audio.vad."""

    def push(self, samples: Tensor) -> np.ndarray:
        """Return the next frames (n, 2) uint8 after samples (2, any) at 16 kHz have come."""


def load(model: str | Path, weights: str | None = None) -> "Predictor":
    """Load a trained model and its encoder.

    Args:
        model: the folder of a checkpoint that vap-train wrote.
        weights: the encoder's weights; None for those that the checkpoint names, found in the package or in
            torch.hub's cache.

    Raises:
        InputError: no checkpoint, or a damaged one, or its encoder's weights are not on this machine.
    """
    folder = str(model)
    network, config = checkpoint.load(folder)
    wanted = config["store"]["encoder"]
    name = wanted["weights"]
    seed = 0
    if weights is None and name.startswith("random-seed"):
        weights, seed = "random", int(name.removeprefix("random-seed"))
    shipped = {path.name: key for key, path in cpc_weights.SHIPPED.items()}
    encoder, facts = cpc_weights.load(weights or shipped.get(name, name), seed)
    if facts["sha256"] != wanted["sha256"]:
        raise InputError(
            f"{folder}: trained on features of {name}, but {weights or name} has another SHA-256; give the "
            "same weights with --weights"
        )
    return Predictor(folder, network, config, encoder)


class Predictor:
    """A trained model with its encoder.

    Attributes:
        name: the folder that it was loaded from.
        network: the projection model, on the CPU, in evaluation mode.
        encoder: the CPC encoder.
        events: what counted as an event in training; its ``window_s`` is the context of predictions.
        backchannel_threshold: of ``p_bc``, measured on the validation set; 0.5 if it was not.
    """

    def __init__(
        self, name: str, network: ProjectionModel, config: dict[str, Any], encoder: CPCEncoder
    ) -> None:
        self.name, self.network, self.encoder = name, network, encoder
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
        va: np.ndarray,
        level: str = "whole",
        context_s: float | None = None,
    ) -> pa.Table:
        """Predict turn-taking in a two-channel recording, in memory that does not grow with its audio.

        Args:
            recording: a file of two channels, or an open recording.
            va: (frames, 2) voice activity at 100 Hz.
            level: ``whole`` divides each channel by its peak over the recording, as in training; ``running``
                by its peak so far, as :meth:`stream` has to.
            context_s: length of the model's window.

        Returns:
            A row per frame of 10 ms; see :func:`columns`.

        Raises:
            InputError: the recording cannot be read.
        """
        opened = recording if isinstance(recording, Recording) else open_recording(Path(recording))
        n, activity = frames(opened.duration_s), torch.from_numpy(va)
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
        self, detector: VoiceActivityDetector, rate: int = 16_000, context_s: float | None = None
    ) -> "LiveStream":
        """Return a live stream of two channels; see :class:`LiveStream`."""
        return LiveStream(self, detector, rate, context_s)


class LiveStream:
    """Predictions while two channels arrive, with constant work and memory a frame.

    Args:
        predictor: the model.
        detector: voice activity of the channels.
        rate: samples a second.
        context_s: length of the model's window.
    """

    def __init__(
        self, predictor: Predictor, detector: VoiceActivityDetector, rate: int, context_s: float | None
    ) -> None:
        self.predictor, self.detector, self.rate = predictor, detector, rate
        self._context = predictor.context(context_s)
        self.reset()

    def reset(self) -> None:
        """Forget the signal; the next samples start a new one."""
        self._resampler, self._level = Resampler(self.rate), RunningLevel()
        self._encoder = LiveEncoder(self.predictor.encoder)
        self._network = Stream(self.predictor.network, self._context)
        self._history = RunningHistory()
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
            Columns as of :func:`columns`, an entry for each frame of 10 ms; often none or several. A frame
            comes some 30 to 60 ms after its end, when encoder and voice activity have seen what they need.

        Raises:
            InputError: samples that are not (n, 2), or NaN or infinite.
        """
        heard = self._resampler.push(_checked(samples))
        self._push_va(heard)
        joined = torch.cat([self._samples, heard], dim=1)
        whole = joined.shape[1] // HOP_SAMPLES * HOP_SAMPLES
        self._samples = joined[:, whole:]
        if whole:
            encoded = self._encoder.push(self._level.push(joined[:, :whole]))
            self._features = torch.cat([self._features, encoded.half().float()])
        return self._next(min(len(self._features), len(self._va)))

    def _push_va(self, heard: Tensor) -> None:
        self._va = np.concatenate([self._va, self.detector.push(heard)])

    def _next(self, n: int) -> dict[str, np.ndarray]:
        va, self._va = self._va[:n], self._va[n:]
        features, self._features = self._features[:n], self._features[n:]
        activity = torch.from_numpy(va)
        logits = self._network.step(features, activity.float(), self._history.push(activity))
        self.frame += n
        return columns(self.predictor.network.config.model, self.frame - n, va, logits)


def columns(model: str, start: int, va: np.ndarray, logits: Tensor) -> dict[str, np.ndarray]:
    """Return what is predicted in successive frames, an array of (n,) for each column.

    ``time_s``: the start of the frame; ``va_a``, ``va_b``: voice activity; ``p_a``, ``p_b``: the probability
    that A, B speaks next; ``p_bc_a``, ``p_bc_b``: that A, B is about to give a backchannel (not of the
    comparative model). Of the discrete model also ``p_now_a`` to ``p_future_b``, the shares of A and B in the
    expected activity up to 0.6 s ahead and after that, and ``entropy`` of its 256 states, 0 to 8 bits.

    Args:
        model: one of ``projection.MODELS``.
        start: number of the first frame.
        va: (n, 2) uint8.
        logits: (n, outputs).
    """
    time_s = (start + np.arange(len(va))) / FRAME_RATE_HZ
    table = {"time_s": time_s, "va_a": va[:, 0], "va_b": va[:, 1]}
    p, p_bc = projection.probabilities(logits, torch.from_numpy(va), model)
    table |= {"p_a": p[:, 0].numpy(), "p_b": p[:, 1].numpy()}
    if p_bc is not None:
        table |= {"p_bc_a": p_bc[:, 0].numpy(), "p_bc_b": p_bc[:, 1].numpy()}
    if model == "discrete":
        now, future, entropy = (values.numpy() for values in projection.now_and_future(logits))
        table |= {"p_now_a": now[:, 0], "p_now_b": now[:, 1]}
        table |= {"p_future_a": future[:, 0], "p_future_b": future[:, 1], "entropy": entropy}
    return table


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


def _checked(samples: np.ndarray) -> Tensor:
    array = np.asarray(samples)
    if array.ndim != 2 or array.shape[1] != 2:
        raise InputError(f"samples of shape {array.shape}; give (n, 2), a column for each speaker")
    if array.dtype == np.int16:
        array = array.astype(np.float32) / 32768
    if not np.isfinite(array).all():
        raise InputError("samples that are NaN or infinite; check the source")
    return torch.from_numpy(np.ascontiguousarray(array.T, dtype=np.float32))

"""The stereo model on a recording or live: both channels in, no voice activity needed."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from vap_pipeline.audio.rates import HOP_SAMPLES, SAMPLE_RATE_HZ
from vap_pipeline.audio.recording import Recording, open_recording, resample
from vap_pipeline.audio.resampling import Resampler
from vap_pipeline.encoders.cpc import CPCEncoder, State
from vap_pipeline.io.errors import InputError
from vap_pipeline.models.stereo import StereoModel
from vap_pipeline.models.stereo_stream import StereoStream
from vap_pipeline.predict.predictor import checked, columns
from vap_pipeline.settings.events import EventSettings, recorded
from vap_pipeline.turn_taking.frame_rates import activity_at

CONTEXT_S = 20.0  # of the windows that published models were trained on
PIECE_SAMPLES = 4 * SAMPLE_RATE_HZ  # encoded at a time


class StereoPredictor:
    """A stereo model with its encoder; :class:`vap_pipeline.predict.predictor.Predictor` for its attributes.

    Its frames are those of the model, ``rate_hz`` a second, at most 100. The audio is not levelled.
    """

    def __init__(
        self, name: str, network: StereoModel, config: dict[str, Any], encoder: CPCEncoder, weights: str
    ) -> None:
        self.name, self.network, self.encoder, self.weights = name, network, encoder, weights
        self.rate_hz = network.config.rate_hz
        self.events: EventSettings = recorded(config.get("events"), name)
        self.context_s = network.config.context_s or (
            self.events.window_s if "events" in config else CONTEXT_S
        )
        thresholds = config.get("thresholds") or {}
        self.backchannel_threshold: float = thresholds.get("predict_backchannel", {}).get("frame", 0.5)

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
            va: (frames, 2) voice activity at 100 Hz, for ``p`` and ``p_bc``; None for the model's own.
            level: not used: both levels are the file's.
            context_s: how far back the attention looks.

        Returns:
            A row per frame of the model: the columns of :func:`vap_pipeline.predict.predictor.columns`, and
            ``vad_a``, ``vad_b``, the probabilities that A, B speaks in the frame.

        Raises:
            InputError: the recording cannot be read.
        """
        opened = recording if isinstance(recording, Recording) else open_recording(Path(recording))
        given = None if va is None else activity_at(torch.from_numpy(va), self.rate_hz).numpy()
        frames = _Frames(self, context_s, given)
        blocks = _pieces(resample(opened.blocks(), opened.rate))
        tables = [frames.push(block, last) for block, last in blocks]
        return pa.concat_tables([pa.table(table) for table in tables])

    def stream(self, rate: int = SAMPLE_RATE_HZ, context_s: float | None = None) -> "StereoLiveStream":
        """Return a live stream of two channels."""
        return StereoLiveStream(self, rate, context_s)


class StereoLiveStream:
    """Predictions while two channels arrive, with constant work and memory a frame.

    Args:
        rate: samples a second.
        context_s: how far back the attention looks.
    """

    def __init__(self, predictor: StereoPredictor, rate: int, context_s: float | None) -> None:
        self.predictor, self.rate, self._context_s = predictor, rate, context_s
        self.reset()

    def reset(self) -> None:
        """Forget the signal; the next samples start a new one."""
        self._resampler = Resampler(self.rate)
        self._frames = _Frames(self.predictor, self._context_s, None)

    def push(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        """Take the next samples (n, 2) and return the columns of the frames that are complete by them.

        Raises:
            InputError: samples that are not (n, 2), or NaN or infinite.
        """
        return self._frames.push(self._resampler.push(checked(samples)), last=False)


class _Frames:
    """Samples at 16 kHz in, columns of frames out."""

    def __init__(self, predictor: StereoPredictor, context_s: float | None, va: np.ndarray | None) -> None:
        self.predictor, self.va = predictor, va
        if context_s is not None and context_s <= 0:
            raise InputError(f"a context of {context_s:g} s; give more than 0")
        self.encoder, self.held = State(), torch.zeros(2, 0)
        self.network = StereoStream(predictor.network, context_s or predictor.context_s)
        self.frame = 0

    @torch.inference_mode()
    def push(self, samples: Tensor, last: bool) -> dict[str, np.ndarray]:
        held = torch.cat([self.held, samples], dim=1)
        whole = held.shape[1] if last else held.shape[1] // HOP_SAMPLES * HOP_SAMPLES
        self.held = held[:, whole:]
        features = self.predictor.encoder(held[:, :whole], self.encoder, last=last)
        logits, activity = self.network.step(features)
        vad = activity.sigmoid().numpy()
        start, self.frame = self.frame, self.frame + len(vad)
        va = (vad >= 0.5).astype(np.uint8) if self.va is None else self.va[start : self.frame]
        model = self.predictor.network.config.model
        table = columns(model, start, va, logits, self.predictor.rate_hz)
        return table | {"vad_a": vad[:, 0], "vad_b": vad[:, 1]}


def _pieces(blocks: Iterable[Tensor]) -> Iterator[tuple[Tensor, bool]]:
    """Yield samples in pieces, and whether a piece is the last."""
    held = torch.zeros(2, 0)
    for block in blocks:
        held = torch.cat([held, block], dim=1)
        while held.shape[1] > PIECE_SAMPLES:
            yield held[:, :PIECE_SAMPLES], False
            held = held[:, PIECE_SAMPLES:]
    yield held, True

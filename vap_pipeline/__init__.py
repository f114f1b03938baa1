"""Voice activity projection: encode conversations once, train light models from the store, use them anywhere.

>>> model = vap_pipeline.load("checkpoints/sample/discrete/fold-0")
>>> table = model.predict("call.wav")
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vap_pipeline.predict.predictor import Predictor
    from vap_pipeline.predict.stereo import StereoPredictor


def load(
    model: str, weights: str | None = None, frame_rate_hz: float | None = None
) -> "Predictor | StereoPredictor":
    """Load a trained model: see :func:`vap_pipeline.predict.loading.load`."""
    from vap_pipeline.predict import loading  # which loads torch

    return loading.load(model, weights, frame_rate_hz)

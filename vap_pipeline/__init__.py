"""Voice activity projection: encode conversations once, train light models from the store, use them anywhere.

>>> model = vap_pipeline.load("checkpoints/sample/discrete/fold-0")
>>> table = model.predict("call.wav")
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vap_pipeline.predict.predictor import Predictor


def load(model: str, weights: str | None = None) -> "Predictor":
    """Load a trained model: see :func:`vap_pipeline.predict.predictor.load`."""
    from vap_pipeline.predict import predictor  # which loads torch

    return predictor.load(model, weights)

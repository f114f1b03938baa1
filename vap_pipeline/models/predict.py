"""The forward pass over a batch of windows, which validation and evaluation share."""

from typing import NamedTuple

import torch
from torch import Tensor

from vap_pipeline.artefacts.windows import Batch, activity, inputs, swap
from vap_pipeline.models.network import ProjectionModel
from vap_pipeline.turn_taking import projection


class Prediction(NamedTuple):
    """The outputs of a model for B windows, in their first T frames."""

    va: Tensor  # (B, window + look-ahead, 2) uint8, swapped as the model's input was
    logits: Tensor  # (B, T, outputs)
    p: Tensor  # (B, T, 2) float32, the probability that A, B speaks next
    p_bc: Tensor | None  # (B, T, 2) float32, that A, B is about to give a backchannel; None for comparative


def predict(
    model: ProjectionModel, batch: Batch, swapped: bool = False, frames: int | None = None
) -> Prediction:
    """Run ``model`` on a batch of windows.

    Args:
        batch: of :meth:`Windows.batch`, on the device of the model.
        swapped: exchange the two speakers first.
        frames: T, how many frames of each window to compute; None for all. The model is causal, so fewer
            frames give the same numbers in less time.
    """
    if swapped:
        batch = swap(batch, torch.ones(len(batch["va"]), dtype=torch.bool))
    features, va, history = (tensor[:, :frames] for tensor in inputs(batch))
    logits = model(features, va, history)
    return Prediction(activity(batch), logits, *projection.probabilities(logits, va, model.config.model))

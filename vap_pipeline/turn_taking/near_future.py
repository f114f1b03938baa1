"""Probabilities that need no voice activity: who is active in the near future, and how sure the model is.

Inoue et al., "Real-time and Continuous Turn-taking Prediction Using Voice Activity Projection"
(2024, arXiv 2401.04868); docs/definitions.md, "Probabilities of today".
"""

import math

import torch
from torch import Tensor

NOW_BINS, FUTURE_BINS = slice(0, 2), slice(2, 4)
EPS = 1e-5  # added to the sum of both speakers
FOUR_BIN_MODELS = ("discrete", "independent")


def bin_probabilities(logits: Tensor, model: str) -> Tensor:
    """Return the probability that a speaker is active in a bin.

    Args:
        logits: (..., outputs) of a model with four bins a speaker.
        model: ``discrete`` or ``independent``.

    Returns:
        (..., 2, 4) float32: of a discrete model, the sum over the classes in which the bin is active.

    Raises:
        ValueError: the model has other bins.
    """
    if model not in FOUR_BIN_MODELS:
        raise ValueError(f"{model} does not have four bins")
    if model == "independent":
        return logits.float().sigmoid().unflatten(-1, (2, 4))
    classes = torch.arange(256, device=logits.device)[:, None]
    bits = (classes // 2 ** torch.arange(8, device=logits.device) % 2).float()  # ONNX has no >>
    return (logits.float().softmax(-1) @ bits).unflatten(-1, (2, 4))


def p_now(logits: Tensor, model: str = "discrete") -> Tensor:
    """Return (..., 2): the share of A, B in the activity expected in the first two bins, 0 to 0.6 s."""
    return _share(bin_probabilities(logits, model)[..., NOW_BINS])


def p_future(logits: Tensor, model: str = "discrete") -> Tensor:
    """Return (..., 2): the share of A, B in the activity expected in the last two bins, 0.6 to 2 s."""
    return _share(bin_probabilities(logits, model)[..., FUTURE_BINS])


def entropy(logits: Tensor, model: str = "discrete") -> Tensor:
    """Return the entropy (...) of the distribution over the 256 classes in bits, 0 to 8.

    Independent bins are eight binary choices, whose entropies add up.

    Raises:
        ValueError: the model does not have four bins.
    """
    if model == "independent":
        active = bin_probabilities(logits, model).flatten(-2)
        choices = torch.cat([active, 1 - active], dim=-1)
    elif model == "discrete":
        choices = logits.float().softmax(-1)
    else:
        raise ValueError(f"{model} does not have four bins")
    return -(choices * choices.clamp(min=1e-37).log()).sum(-1) / math.log(2)


def _share(expected: Tensor) -> Tensor:
    active = expected.sum(-1)
    return active / (active.sum(-1, keepdim=True) + EPS)

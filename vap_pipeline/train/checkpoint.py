"""The state of a training run, in one file that is replaced in one piece, and what the run publishes of it.

``resume.safetensors`` holds all that the run needs to go on: the weights now, the optimizer's moments, the
best weights so far, and, as JSON in the header, the step, early stopping and the history. What later stages
read is made from it, so nothing is lost where DVC deletes those files before it starts the run again.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import torch
from torch import nn

from vap_pipeline import files, parquet, resume
from vap_pipeline.model import ModelConfig, ProjectionModel
from vap_pipeline.model import save as save_model
from vap_pipeline.resume import Tensors
from vap_pipeline.scores import METRICS

MEASURES = ("training_loss", "gradient_norm", "learning_rate", "validation_loss", *METRICS)
HISTORY = pa.schema(
    [("step", pa.int64()), ("epoch", pa.float64()), *((measure, pa.float64()) for measure in MEASURES)]
)


@dataclass
class Progress:
    """Where a run stands. ``history`` has a row per check and per ten steps, and columns of ``HISTORY``."""

    step: int = 0  # steps made
    checks: int = 0  # validation checks made
    best_check: int = 0
    best_row: int = 0  # of the history
    best_quality: float | None = None  # S/H weighted F1 of the best check
    thresholds: dict[str, dict[str, float]] = field(default_factory=dict)  # of the best check's scores
    logged: int = 0  # the step of the last row with a training loss
    loss_sum: float = 0.0  # over the steps since that row
    norm_sum: float = 0.0
    finished: bool = False
    run_id: str = ""  # in Weights & Biases
    history: list[dict[str, float]] = field(default_factory=list)


def save(
    folder: str,
    settings: dict[str, Any],
    progress: Progress,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    best: Tensors,
) -> None:
    """Replace the state in ``folder``; a kill while saving leaves the one before."""
    parts = {"model": model.state_dict(), "best": best, "optimizer": resume.moments(model, optimizer)}
    resume.save(folder, settings, asdict(progress), parts)


def load(folder: str, settings: dict[str, Any]) -> tuple[Progress, dict[str, Tensors]] | str:
    """Read the state in ``folder``, or say in words why there is none for a run of these ``settings``."""
    found = resume.load(folder, settings)
    if isinstance(found, str):
        return found
    progress, parts = found
    try:
        return Progress(**progress), parts
    except TypeError as error:
        return f"{folder}/{resume.RESUME} is damaged ({error})"


def restore(parts: dict[str, Tensors], model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """Put the state's tensors into ``model`` and ``optimizer``; return the best weights so far, if any."""
    model.load_state_dict(parts["model"])
    resume.restore_moments(parts.get("optimizer", {}), model, optimizer)
    return parts.get("best", {})


def publish(
    folder: str, settings: dict[str, Any], progress: Progress, sizes: ModelConfig, best: Tensors
) -> None:
    """Write what later stages read: the best model so far, what describes it, and the history."""
    if best:
        with torch.device("meta"):
            model = ProjectionModel(sizes)
        model.load_state_dict(best, assign=True)
        described = {"best": progress.history[progress.best_row], "thresholds": progress.thresholds}
        save_model(model, settings | described, folder)
    history = pa.Table.from_pylist(progress.history, HISTORY)
    files.write(f"{folder}/history.parquet", parquet.encode(history))

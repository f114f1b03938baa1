"""The state of a training run, in one file that is replaced in one piece, and what the run publishes of it.

``resume.safetensors`` holds all that the run needs to go on: the weights now, the optimizer's moments, the
best weights so far, and, as JSON in the header, the step, early stopping and the history. What later stages
read is made from it, so nothing is lost where DVC deletes those files before it starts the run again.
"""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import torch
from torch import nn

from vap_pipeline.io import files, parquet
from vap_pipeline.io.tensors import Tensors
from vap_pipeline.models.checkpoint import save as save_model
from vap_pipeline.models.network import ModelConfig, ProjectionModel
from vap_pipeline.runtime import resume
from vap_pipeline.turn_taking.scores import METRICS, numbered

MEASURES = ("training_loss", "gradient_norm", "learning_rate", "validation_loss", *METRICS)
HISTORY = pa.schema(
    [("step", pa.int64()), ("epoch", pa.float64()), *((measure, pa.float64()) for measure in MEASURES)]
)


@dataclass
class Progress(resume.Progress):
    """Where a run stands. ``history`` has a row per check and per ten steps, and columns of ``HISTORY``."""

    checks: int = 0  # validation checks made
    best_check: int = 0
    best_row: int = 0  # of the history
    best_quality: float | None = None  # S/H weighted F1 of the best check
    thresholds: dict[str, dict[str, float]] = field(default_factory=dict)  # of the best check's scores
    logged: int = 0  # the step of the last row with a training loss
    loss_sum: float = 0.0  # over the steps since that row
    norm_sum: float = 0.0
    finished: bool = False

    def parts(self) -> set[str]:
        """The parts of the state that hold tensors by now."""
        return super().parts() | ({"best"} if self.checks else set())

    def check(self, last_step: int) -> None:
        """Raise ValueError where no run of ``last_step`` steps can have come to this."""
        super().check(last_step)
        if not 0 <= self.best_row < max(len(self.history), 1) or not 0 <= self.logged <= self.step:
            raise ValueError(f"row {self.best_row} of {len(self.history)}, step {self.logged} of {self.step}")
        if not 0 <= self.best_check <= self.checks <= self.step or bool(self.best_check) != bool(self.checks):
            raise ValueError(f"check {self.best_check} of {self.checks}")
        checks = sum("validation_loss" in row for row in self.history)
        if self.checks != checks or self.finished > bool(checks):
            raise ValueError(f"{self.checks} checks, of which its history has {checks}")
        if checks and (self.best_quality is None or "validation_loss" not in self.history[self.best_row]):
            raise ValueError(f"its best check is row {self.best_row} of its history")
        pa.Table.from_pylist(self.history, HISTORY)
        if self.thresholds:
            numbered(self.thresholds)


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
    resume.save(folder, settings, progress, parts)


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

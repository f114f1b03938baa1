"""Where a training run stands, and what it publishes for later stages.

The state of the run (:mod:`vap_pipeline.runtime.resume`) also holds the best weights and the history, from
which the published files can be made again.
"""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import torch

from vap_pipeline.io import files, parquet
from vap_pipeline.io.tensors import Tensors
from vap_pipeline.models import checkpoint
from vap_pipeline.models.network import ModelConfig, ProjectionModel
from vap_pipeline.runtime import resume
from vap_pipeline.turn_taking.scores import METRICS

MEASURES = ("training_loss", "gradient_norm", "learning_rate", "validation_loss", *METRICS)
HISTORY = pa.schema(
    [("step", pa.int64()), ("epoch", pa.float64()), *((measure, pa.float64()) for measure in MEASURES)]
)


@dataclass
class Progress(resume.Progress):
    """How far a run is. ``history`` has a row per check and per ten steps, with columns of ``HISTORY``."""

    checks: int = 0  # number of validation checks made
    best_check: int = 0
    best_row: int = 0  # of the history
    best_quality: float | None = None  # S/H weighted F1 of the best check
    thresholds: dict[str, dict[str, float]] = field(default_factory=dict)  # of the best check's scores
    logged: int = 0  # step of the last row with a training loss
    loss_sum: float = 0.0  # over the steps since that row
    norm_sum: float = 0.0


def publish(
    folder: str, settings: dict[str, Any], progress: Progress, sizes: ModelConfig, best: Tensors
) -> None:
    """Write the best model so far, its description, and the history, for later stages.

    Raises:
        InputError: a file cannot be written.
    """
    if best:
        with torch.device("meta"):
            model = ProjectionModel(sizes)
        model.load_state_dict(best, assign=True)
        described = {"best": progress.history[progress.best_row], "thresholds": progress.thresholds}
        checkpoint.save(model, settings | described, folder)
    history = pa.Table.from_pylist(progress.history, HISTORY)
    files.write(f"{folder}/history.parquet", parquet.encode(history))

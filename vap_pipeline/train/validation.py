"""The validation check: the loss and the four scores over the fold's validation windows."""

import contextlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator

from vap_pipeline.artefacts.windows import Windows
from vap_pipeline.models.network import ProjectionModel
from vap_pipeline.models.predict import predict
from vap_pipeline.runtime.signals import Requests
from vap_pipeline.train.batches import Piece, pieces, read
from vap_pipeline.turn_taking import projection, scores


class Measured(NamedTuple):
    """The result of a validation check."""

    measures: dict[str, float]  # validation_loss, and those of scores.METRICS that have events, by frame
    thresholds: dict[str, dict[str, float]]  # that give the best scores, by task and level


class NotANumber(ArithmeticError):
    """The loss of a batch is NaN or infinite."""

    def __init__(self, loss: float, conversations: set[str]) -> None:
        super().__init__(loss, conversations)
        self.loss, self.conversations = loss, conversations


class Validation:
    """The validation set: its windows, and the regions in them that are scored.

    Args:
        windows: of the validation set; the first ``n`` are used, ``batch`` at a time.
        seed: of the negatives of the scores.
        workers: processes that read batches; 0 reads them here.
    """

    def __init__(self, windows: Windows, n: int, batch: int, seed: int, workers: int) -> None:
        self.windows, self.n, self.batch, self.workers = windows, n, batch, workers
        self.regions = scores.regions(
            ((c, windows.store.va(c)) for c in windows.conversations), seed, windows.settings
        )

    @torch.no_grad()
    def __call__(
        self, model: ProjectionModel, accelerator: Accelerator, requests: Requests
    ) -> Measured | None:
        """Measure a model. Return None if a signal came before the end.

        Every window counts twice, once with the speakers swapped. The result does not depend on the number
        of processes.

        Raises:
            NotANumber: the loss is NaN or infinite.
        """
        name, device = model.config.model, accelerator.device
        counts = scores.EMPTY_COUNTS.copy()
        total = 0.0
        model.eval()
        batches = read(self.windows, lambda: self._pieces(accelerator), self.workers, device)
        with contextlib.closing(batches):
            for number, (piece, batch) in enumerate(batches):
                loss = torch.zeros((), device=device)
                for swapped in (False, True):
                    va, logits, p, p_bc = predict(model, batch, swapped)
                    target = projection.labels(va, name, self.windows.frames.look_ahead)
                    loss += piece.weight / 2 * projection.loss(logits, target, name)
                    if piece.weight and torch.isfinite(loss):
                        counts += scores.count(scores.collect(self.regions, piece.windows, p, p_bc, swapped))
                stop = torch.tensor(float(requests.received > 0), device=device)
                batch_loss, stops = accelerator.reduce(torch.stack([loss, stop]), "sum").tolist()
                if stops:
                    return None
                if not math.isfinite(batch_loss):
                    index = range(self.n)[number * self.batch :][: self.batch]
                    raise NotANumber(batch_loss, {self.windows.conversation(i) for i in index})
                total += batch_loss
        summed = accelerator.reduce(torch.from_numpy(counts).to(device), "sum").cpu().numpy()
        best = scores.thresholds(summed)
        rows = scores.scores(summed, best)
        measured = {row["metric"]: row["value"] for row in rows if row["level"] == "frame"}
        measures = {"validation_loss": total} | {k: v for k, v in measured.items() if math.isfinite(v)}
        return Measured(measures, scores.named(best))

    def _pieces(self, accelerator: Accelerator) -> Iterator[Piece]:
        """Yield this process's piece of each batch; its weight is its share of all windows."""
        for first in range(0, self.n, self.batch):
            index = np.arange(first, min(first + self.batch, self.n))
            cut = pieces(index, np.zeros(len(index), bool), accelerator.num_processes)
            piece = cut[accelerator.process_index]
            yield piece._replace(weight=piece.weight * len(index) / self.n)

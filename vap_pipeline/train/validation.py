"""The validation check: the loss and the four scores over the fold's validation windows."""

import contextlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator

from vap_pipeline.artefacts.windows import Windows, activity, inputs, swap
from vap_pipeline.models.network import ProjectionModel
from vap_pipeline.runtime.signals import Requests
from vap_pipeline.train.batches import Piece, pieces, read
from vap_pipeline.turn_taking import projection, scores


class Measured(NamedTuple):
    """What a check found."""

    measures: dict[str, float]  # validation_loss, and those of scores.METRICS that there are, frame by frame
    thresholds: dict[str, dict[str, float]]  # at which the scores are best, by task and level


class NotANumber(ArithmeticError):
    """The loss of a batch is infinite or not a number."""

    def __init__(self, loss: float, conversations: set[str]) -> None:
        super().__init__(loss, conversations)
        self.loss, self.conversations = loss, conversations


class Validation:
    """The windows of the validation set, and what the scores look at in them.

    Args:
        windows: of the validation set, of which the first ``n`` are taken, ``batch`` at a time.
        seed: draws the scores' negatives.
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
        """Measure a model; None where a signal came before the end.

        Every window counts twice, once with the speakers swapped. Any number of processes gets the same
        result.

        Raises:
            NotANumber: the loss is none.
        """
        name, device = model.config.model, accelerator.device
        counts = np.zeros((len(scores.TASKS), len(scores.LEVELS), 2, 1 + len(scores.THRESHOLDS)), np.int64)
        total = 0.0
        model.eval()
        batches = read(self.windows, lambda: self._pieces(accelerator), self.workers, device)
        with contextlib.closing(batches):
            for number, (piece, batch) in enumerate(batches):
                loss = torch.zeros((), device=device)
                for swapped in (False, True):
                    seen = swap(batch, torch.full((len(piece.windows),), swapped))
                    features, va, history = inputs(seen)
                    logits = model(features, va, history)
                    target = projection.labels(activity(seen), name, self.windows.frames.look_ahead)
                    loss += piece.weight / 2 * projection.loss(logits, target, name)
                    if piece.weight and torch.isfinite(loss):
                        p, p_bc = projection.probabilities(logits, va, name)
                        counts += scores.count(scores.collect(self.regions, piece.windows, p, p_bc, swapped))
                stop = torch.tensor(float(requests.received > 0), device=device)
                batch_loss, stops = accelerator.reduce(torch.stack([loss, stop]), "sum").tolist()
                if stops:
                    return None
                if not math.isfinite(batch_loss):
                    seen_windows = range(self.n)[number * self.batch :][: self.batch]
                    raise NotANumber(batch_loss, {self.windows.conversation(i) for i in seen_windows})
                total += batch_loss
        summed = accelerator.reduce(torch.from_numpy(counts).to(device), "sum").cpu().numpy()
        best = scores.thresholds(summed)
        rows = scores.scores(summed, best)
        measured = {row["metric"]: row["value"] for row in rows if row["level"] == "frame"}
        measures = {"validation_loss": total} | {k: v for k, v in measured.items() if math.isfinite(v)}
        return Measured(measures, scores.named(best))

    def _pieces(self, accelerator: Accelerator) -> Iterator[Piece]:
        """This process's piece of each batch, its weight the share of all windows."""
        for first in range(0, self.n, self.batch):
            index = np.arange(first, min(first + self.batch, self.n))
            cut = pieces(index, np.zeros(len(index), bool), accelerator.num_processes)
            piece = cut[accelerator.process_index]
            yield piece._replace(weight=piece.weight * len(index) / self.n)

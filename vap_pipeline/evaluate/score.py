"""Score a trained model on the test set, with the thresholds of its fold's validation set."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from tqdm import tqdm

from vap_pipeline.artefacts.score_files import TIMELINE
from vap_pipeline.artefacts.windows import Windows, activity, inputs, swap
from vap_pipeline.io.errors import InputError
from vap_pipeline.models.network import ProjectionModel
from vap_pipeline.runtime import memory
from vap_pipeline.turn_taking import projection
from vap_pipeline.turn_taking.events import HOP, WINDOW
from vap_pipeline.turn_taking.scores import NOTHING, TASKS, collect, count, regions, scores, thresholds
from vap_pipeline.turn_taking.voice_activity import FRAME_RATE

BATCH = 32  # windows; fixed, because another size may change the last digit of a probability
STRETCH = 3  # windows in the timeline


@dataclass
class Evaluation:
    """What a model does on a test set.

    Attributes:
        rows: the scores, a row each (``metric, level, value, threshold, support_0, support_1``).
        events: a row per event or negative and pass, as of :func:`scores.collect`, with
            ``start_s`` and ``end_s`` in the conversation.
        timeline: a stretch of one conversation, a row per frame: ``conversation, frame``, voice activity
            ``va_0, va_1`` and probabilities ``p_0, p_1, p_bc_0, p_bc_1``, of speakers 0 and 1.
    """

    rows: list[dict[str, Any]]
    events: pa.Table
    timeline: pa.Table


def best_thresholds(model: ProjectionModel, validation: Windows, seed: int) -> np.ndarray:
    """Return the thresholds that are best on ``validation``, as :func:`scores.thresholds` does.

    Args:
        seed: the run's seed, from which the negatives are drawn.
    """
    found = regions(((name, validation.store.va(name)) for name in validation.conversations), seed)
    counts = NOTHING.copy()
    for swapped in False, True:
        for part in _predict(model, validation, _needed(validation, found), swapped, "validation"):
            counts += count(collect(found, part.windows, part.p, part.p_bc, swapped))
    return thresholds(counts)


def evaluate(model: ProjectionModel, test: Windows, best: np.ndarray, seed: int) -> Evaluation:
    """Score ``model`` on ``test``.

    Every window is scored twice, the second time with the speakers swapped. The loss is that of the first
    time, the only one that needs the windows in which no region lies.

    Args:
        best: the thresholds, from :func:`best_thresholds`.
        seed: the run's seed, from which the negatives are drawn.

    Raises:
        InputError: the model's outputs are not numbers.
    """
    found = regions(((name, test.store.va(name)) for name in test.conversations), seed)
    stretch = _stretch(test, found)
    frames: dict[int, np.ndarray] = {}
    tables, loss = [], 0.0
    for part in _predict(model, test, np.full(len(test), WINDOW), False, "test"):
        tables.append(collect(found, part.windows, part.p, part.p_bc))
        target = projection.labels(part.va, model.config.model)
        loss += len(part.windows) * projection.loss(part.logits.float(), target, model.config.model).item()
        frames |= {w: part.frames(row) for row, w in enumerate(part.windows.tolist()) if w in stretch}
    for part in _predict(model, test, _needed(test, found), True, "test"):
        tables.append(collect(found, part.windows, part.p, part.p_bc, swapped=True))
    if not np.isfinite(loss):
        raise InputError("the model's outputs are not numbers; train it again, at a lower learning rate")

    events = pa.concat_tables(tables)
    rows = scores(count(events), best)
    rows.append({"metric": "loss", "level": "frame", "value": loss / len(test)})
    return Evaluation(rows, _in_order(events), _timeline(test, [(w, frames[w]) for w in stretch]))


@dataclass
class Prediction:
    """A model's output for a batch of windows, up to the last frame that was asked for."""

    windows: np.ndarray  # (B,) their numbers
    va: Tensor  # (B, 1200, 2) as the model was given it
    logits: Tensor  # (B, T, outputs)
    p: Tensor  # (B, T, 2)
    p_bc: Tensor | None  # (B, T, 2)

    def frames(self, row: int) -> np.ndarray:
        """Return va, p and p_bc of both speakers in one window, (T, 6) float32; no p_bc is NaN."""
        p = self.p[row]
        p_bc = torch.full_like(p, torch.nan) if self.p_bc is None else self.p_bc[row]
        return torch.cat([self.va[row, : len(p)], p, p_bc], dim=-1).cpu().numpy()


@torch.inference_mode()
def _predict(
    model: ProjectionModel, windows: Windows, needed: np.ndarray, swapped: bool, name: str
) -> Iterator[Prediction]:
    """Run the model over ``windows``, batch by batch, with a progress bar.

    The model is causal: of each window only the first ``needed`` (windows,) frames are computed, and those
    that need about as many go into one batch.
    """
    memory.keep()
    device = next(model.parameters()).device
    order = np.argsort(needed, kind="stable")
    order = order[needed[order] > 0]
    with tqdm(total=len(order), desc=name + " swapped" * swapped, unit=" windows", disable=None) as bar:
        for first in range(0, len(order), BATCH):
            index = order[first : first + BATCH]
            batch = {key: tensor.to(device) for key, tensor in windows.batch(index).items()}
            if swapped:
                batch = swap(batch, torch.ones(len(index), dtype=torch.bool))
            features, va, history = (tensor[:, : needed[index[-1]]] for tensor in inputs(batch))
            logits = model(features, va, history)
            p, p_bc = projection.probabilities(logits, va, model.config.model)
            yield Prediction(index, activity(batch), logits, p, p_bc)
            bar.update(len(index))


def _needed(windows: Windows, found: pa.Table) -> np.ndarray:
    """(windows,) how many frames of each window the regions ``found`` need."""
    end = np.zeros(len(windows), np.int64)
    np.maximum.at(end, found["index"].to_numpy(), found["end"].to_numpy().astype(np.int64))
    return end


def _in_order(events: pa.Table) -> pa.Table:
    """Sort by place, and say where the regions lie in the conversation, in seconds."""
    keys = ("conversation", "window", "swapped", "task", "label", "start", "speaker")
    events = events.sort_by([(key, "ascending") for key in keys])
    first = events["window"].to_numpy().astype(np.int64) * HOP
    at = events.column_names.index("end") + 1
    for name in "end", "start":
        events = events.add_column(at, f"{name}_s", pa.array((first + events[name].to_numpy()) / FRAME_RATE))
    return events


def _stretch(windows: Windows, found: pa.Table) -> list[int]:
    """Choose neighbouring windows of one conversation with events of many kinds, the first with the most.

    Only the events count, not the negatives, which differ from run to run: all models show the same stretch.
    """
    conversation = np.array([windows.conversation(i) for i in range(len(windows))])
    length = min(STRETCH, max(np.unique(conversation, return_counts=True)[1]))
    kind = 2 * pc.index_in(found["task"], value_set=pa.array(TASKS)).to_numpy() + found["label"].to_numpy()
    there = np.zeros((len(windows), 2 * len(TASKS)), bool)
    there[found["index"].to_numpy(), kind] = True
    there[:, [2 * TASKS.index("predict_shift"), 2 * TASKS.index("predict_backchannel")]] = False
    first = np.arange(len(windows) - length + 1)
    kinds = np.lib.stride_tricks.sliding_window_view(there, length, axis=0).any(-1).sum(-1)
    kinds[conversation[first] != conversation[first + length - 1]] = -1
    return (first[kinds.argmax()] + np.arange(length)).tolist()


def _timeline(windows: Windows, stretch: list[tuple[int, np.ndarray]]) -> pa.Table:
    """Put neighbouring windows together, each but the first without its overlap with the one before."""
    overlap = WINDOW - HOP
    values = np.concatenate([part[overlap if number else 0 :] for number, (_, part) in enumerate(stretch)])
    first = windows.start(stretch[0][0])
    columns: dict[str, Any] = {
        "conversation": [windows.conversation(stretch[0][0])] * len(values),
        "frame": np.arange(first, first + len(values)),
    }
    for column, name in enumerate(TIMELINE.names[2:]):
        columns[name] = values[:, column].astype(TIMELINE.field(name).type.to_pandas_dtype())
    return pa.table(columns, schema=TIMELINE)

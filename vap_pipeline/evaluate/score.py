"""Score a trained model on the test set, with the thresholds of its fold's validation set."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from tqdm import tqdm

from vap_pipeline.artefacts.score_files import TIMELINE
from vap_pipeline.artefacts.windows import Windows
from vap_pipeline.io.errors import InputError
from vap_pipeline.models.network import ProjectionModel
from vap_pipeline.models.predict import Prediction, predict
from vap_pipeline.runtime import memory
from vap_pipeline.settings.events import FRAME_RATE_HZ
from vap_pipeline.turn_taking import projection
from vap_pipeline.turn_taking.scores import EMPTY_COUNTS, TASKS, collect, count, regions, scores, thresholds

BATCH_WINDOWS = 32  # fixed, because another size may change the last digit of a probability
TIMELINE_WINDOWS = 3


@dataclass
class Evaluation:
    """The results of a model on a test set.

    Attributes:
        rows: the scores, one row each (``metric, level, value, threshold, support_0, support_1``).
        events: a row per event or negative and pass, as of :func:`scores.collect`, with ``start_s`` and
            ``end_s`` in the conversation.
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
    table = _regions(validation, seed)
    counts = EMPTY_COUNTS.copy()
    for swapped in False, True:
        needed = _needed(validation, table)
        for index, predicted in _predictions(model, validation, needed, swapped, "validation"):
            counts += count(collect(table, index, predicted.p, predicted.p_bc, swapped))
    return thresholds(counts)


def evaluate(model: ProjectionModel, test: Windows, best: np.ndarray, seed: int) -> Evaluation:
    """Score ``model`` on ``test``.

    Every window is scored twice, the second time with the speakers swapped. The loss is that of the first
    pass, which alone computes the windows without any region.

    Args:
        best: the thresholds, from :func:`best_thresholds`.
        seed: the run's seed, from which the negatives are drawn.

    Raises:
        InputError: the model's outputs are NaN or infinite.
    """
    table = _regions(test, seed)
    stretch = _stretch(test, table)
    frames: dict[int, np.ndarray] = {}
    tables, loss = [], 0.0
    whole = np.full(len(test), test.frames.window)
    for index, predicted in _predictions(model, test, whole, False, "test"):
        tables.append(collect(table, index, predicted.p, predicted.p_bc))
        target = projection.labels(predicted.va, model.config.model, test.frames.look_ahead)
        loss += len(index) * projection.loss(predicted.logits.float(), target, model.config.model).item()
        frames |= {w: _frames(predicted, row) for row, w in enumerate(index.tolist()) if w in stretch}
    for index, predicted in _predictions(model, test, _needed(test, table), True, "test"):
        tables.append(collect(table, index, predicted.p, predicted.p_bc, swapped=True))
    if not np.isfinite(loss):
        raise InputError("the model's outputs are NaN or infinite; train it again with a lower learning rate")

    events = pa.concat_tables(tables)
    rows = scores(count(events), best)
    rows.append({"metric": "loss", "level": "frame", "value": loss / len(test)})
    timeline = _timeline(test, [(w, frames[w]) for w in stretch])
    return Evaluation(rows, _in_order(events, test.frames.hop), timeline)


@torch.inference_mode()
def _predictions(
    model: ProjectionModel, windows: Windows, needed: np.ndarray, swapped: bool, name: str
) -> Iterator[tuple[np.ndarray, Prediction]]:
    """Run the model over ``windows``, batch by batch; yield the windows' numbers (B,) and the outputs.

    The model is causal, so only the first ``needed`` (windows,) frames of each window are computed. Windows
    that need about the same number of frames share a batch.
    """
    memory.keep()
    device = next(model.parameters()).device
    order = np.argsort(needed, kind="stable")
    order = order[needed[order] > 0]
    with tqdm(total=len(order), desc=name + " swapped" * swapped, unit=" windows", disable=None) as bar:
        for first in range(0, len(order), BATCH_WINDOWS):
            index = order[first : first + BATCH_WINDOWS]
            batch = {key: tensor.to(device) for key, tensor in windows.batch(index).items()}
            yield index, predict(model, batch, swapped, needed[index[-1]])
            bar.update(len(index))


def _frames(predicted: Prediction, row: int) -> np.ndarray:
    """Return va, p and p_bc of both speakers in one window, (T, 6) float32; p_bc is NaN where absent."""
    p = predicted.p[row]
    p_bc = torch.full_like(p, torch.nan) if predicted.p_bc is None else predicted.p_bc[row]
    return torch.cat([predicted.va[row, : len(p)], p, p_bc], dim=-1).cpu().numpy()


def _regions(windows: Windows, seed: int) -> pa.Table:
    """Return the regions that the scores look at, as of :func:`scores.regions`."""
    activity = ((name, windows.store.va(name)) for name in windows.conversations)
    return regions(activity, seed, windows.settings)


def _needed(windows: Windows, table: pa.Table) -> np.ndarray:
    """Return the number of frames of each window that the regions in ``table`` need, (windows,) int64."""
    end = np.zeros(len(windows), np.int64)
    np.maximum.at(end, table["index"].to_numpy(), table["end"].to_numpy().astype(np.int64))
    return end


def _in_order(events: pa.Table, hop_frames: int) -> pa.Table:
    """Sort by place, and add where the regions are in the conversation, in seconds."""
    keys = ("conversation", "window", "swapped", "task", "label", "start", "speaker")
    events = events.sort_by([(key, "ascending") for key in keys])
    first = events["window"].to_numpy().astype(np.int64) * hop_frames
    at = events.column_names.index("end") + 1
    for name in "end", "start":
        seconds = pa.array((first + events[name].to_numpy()) / FRAME_RATE_HZ)
        events = events.add_column(at, f"{name}_s", seconds)
    return events


def _stretch(windows: Windows, table: pa.Table) -> list[int]:
    """Choose neighbouring windows of one conversation: the first that hold the most kinds of events.

    Only events count, not the negatives, which depend on the seed, so that all models show the same stretch.
    """
    conversation = np.array([windows.conversation(i) for i in range(len(windows))])
    length = min(TIMELINE_WINDOWS, max(np.unique(conversation, return_counts=True)[1]))
    kind = 2 * pc.index_in(table["task"], value_set=pa.array(TASKS)).to_numpy() + table["label"].to_numpy()
    present = np.zeros((len(windows), 2 * len(TASKS)), bool)
    present[table["index"].to_numpy(), kind] = True
    present[:, [2 * TASKS.index("predict_shift"), 2 * TASKS.index("predict_backchannel")]] = False
    first = np.arange(len(windows) - length + 1)
    kinds = np.lib.stride_tricks.sliding_window_view(present, length, axis=0).any(-1).sum(-1)
    kinds[conversation[first] != conversation[first + length - 1]] = -1
    return (first[kinds.argmax()] + np.arange(length)).tolist()


def _timeline(windows: Windows, stretch: list[tuple[int, np.ndarray]]) -> pa.Table:
    """Join neighbouring windows; each but the first loses its overlap with the window before it."""
    overlap = windows.frames.window - windows.frames.hop
    values = np.concatenate([part[overlap if number else 0 :] for number, (_, part) in enumerate(stretch)])
    first = windows.start(stretch[0][0])
    columns: dict[str, Any] = {
        "conversation": [windows.conversation(stretch[0][0])] * len(values),
        "frame": np.arange(first, first + len(values)),
    }
    for column, name in enumerate(TIMELINE.names[2:]):
        columns[name] = values[:, column].astype(TIMELINE.field(name).type.to_pandas_dtype())
    return pa.table(columns, schema=TIMELINE)

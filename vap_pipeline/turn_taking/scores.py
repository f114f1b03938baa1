"""The four scores of turn-taking: shift or hold, short or long, shift prediction, backchannel prediction.

The way of a number: :func:`regions` finds, from voice activity alone, the stretches of frames that the scores
look at; :func:`collect` reads a model's probabilities there, batch by batch; :func:`count` counts them;
:func:`thresholds` and :func:`scores` need only the counts. Counts of batches or processes are added up.

Ekstedt & Skantze, "Voice Activity Projection", Interspeech 2022, section 3; see docs/definitions.md.
"""

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vap_pipeline.io.errors import InputError

if TYPE_CHECKING:
    import torch

TASKS = ("hold_shift", "short_long", "predict_shift", "predict_backchannel")
METRICS = ("f1_hold_shift", "f1_shift", "f1_short_long", "f1_predict_shift", "f1_predict_backchannel")
LEVELS = ("frame", "event")
PIECE = 50  # frames of a negative of the two prediction tasks
# Of 101 even steps those in [0.01, 0.99]; in the precision of the probabilities that are compared with them.
THRESHOLDS = np.linspace(0, 1, 101)[1:-1].astype(np.float32)
# The counts of no table: what to add up from.
NOTHING = np.zeros((len(TASKS), len(LEVELS), 2, 1 + len(THRESHOLDS)), np.int64)

_POSITIVE, _NEGATIVE = 1, 0
_EVENTS = {  # event -> its task and label
    "shift": ("hold_shift", _POSITIVE),
    "hold": ("hold_shift", _NEGATIVE),
    "short": ("short_long", _POSITIVE),
    "long": ("short_long", _NEGATIVE),
    "pre_shift": ("predict_shift", _POSITIVE),
    "pre_backchannel": ("predict_backchannel", _POSITIVE),
}


def regions(conversations: Iterable[tuple[str, np.ndarray]], seed: int) -> pa.Table:
    """Return every region that the four scores look at, a row each, in the order of the windows.

    The negatives of a conversation's prediction tasks are pieces of its non-shift regions, as many as the
    task has positives there (or all, where there are fewer), drawn with a seed made of ``seed`` and the name.

    Args:
        conversations: name and voice activity (frames, 2) of each conversation.
        seed: the run's seed.

    Returns:
        Columns ``index`` (number of the window among those of all the conversations, one after the other),
        ``conversation``, ``window``, ``task``, ``label``, ``speaker`` (X of the definitions), ``start`` and
        ``end`` (frames in the window), sorted by ``index``.
    """
    names: list[str] = []
    parts = [np.zeros((8, 0), np.int64)]
    first = 0
    for conversation, va in conversations:
        part, n_windows = _regions(conversation, va, seed)
        parts.append(np.concatenate([part[:1] + first, np.full((1, part.shape[1]), len(names)), part]))
        names.append(conversation)
        first += n_windows
    index, number, window, task, label, speaker, start, end = np.concatenate(parts, axis=1)
    return pa.table(
        {
            "index": index,
            "conversation": pa.array(names, pa.string()).take(pa.array(number)),
            "window": window.astype(np.int32),
            "task": pa.array(TASKS).take(pa.array(task)),
            "label": label.astype(np.int8),
            "speaker": speaker.astype(np.int8),
            "start": start.astype(np.int16),
            "end": end.astype(np.int16),
        }
    )


def _regions(conversation: str, va: np.ndarray, seed: int) -> tuple[np.ndarray, int]:
    """(6, regions) window, task, label, speaker, start, end of a conversation; its number of windows."""
    import torch  # here, because the report needs this module's names and no torch

    from vap_pipeline.turn_taking.events import EVENTS, WINDOW, find_events, windows

    va_windows = windows(torch.from_numpy(va))
    found = find_events(va_windows)
    event = found.event.numpy()
    task = np.array([TASKS.index(_EVENTS[name][0]) for name in EVENTS])[event]
    label = np.array([_EVENTS[name][1] for name in EVENTS])[event]
    positives = np.bincount(task[label == _POSITIVE], minlength=len(TASKS))
    rows = [np.stack([found.window, task, label, found.speaker, found.start, found.end])]
    non_shift = found.non_shift.numpy()
    one_active = va_windows[:, :WINDOW].sum(-1, keepdim=True).numpy() == 1
    for name, allowed in ("predict_shift", non_shift & one_active), ("predict_backchannel", non_shift):
        code = TASKS.index(name)
        # The name's hash, not Python's own, which differs from process to process.
        digest = hashlib.sha256(f"{name} {conversation}".encode()).digest()
        generator = np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])
        rows.append(_negatives(allowed, code, positives[code], generator))
    part = np.concatenate(rows, axis=1)
    by_window_task_label_start_speaker = np.lexsort(part[[3, 4, 2, 1, 0]])
    return part[:, by_window_task_label_start_speaker], len(va_windows)


def _negatives(allowed: np.ndarray, task: int, wanted: int, generator: np.random.Generator) -> np.ndarray:
    """Draw ``wanted`` pieces of ``allowed`` (windows, frames, 2): (6, pieces) as of :func:`_regions`.

    Every region is cut from its start into whole pieces, so that each frame is in one piece at most.
    """
    if not wanted:
        return np.zeros((6, 0), np.int64)
    edges = np.diff(np.pad(allowed.transpose(0, 2, 1).astype(np.int8), ((0, 0), (0, 0), (1, 1))))
    window, speaker, start = np.nonzero(edges == 1)
    length = np.nonzero(edges == -1)[2] - start
    region, piece = _spread(np.zeros_like(start), length // PIECE)
    drawn = np.sort(generator.choice(len(region), min(wanted, len(region)), replace=False))
    region, begin = region[drawn], start[region[drawn]] + PIECE * piece[drawn]
    task_, label = np.full_like(begin, task), np.full_like(begin, _NEGATIVE)
    return np.stack([window[region], task_, label, speaker[region], begin, begin + PIECE])


def _spread(start: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return i and ``start[i] + 0, …, start[i] + count[i] - 1`` for every i, one after the other."""
    owner = np.repeat(np.arange(len(count)), count)
    return owner, np.arange(len(owner)) + (start - np.cumsum(count) + count)[owner]


def collect(
    regions: pa.Table,
    index: np.ndarray,
    p: "torch.Tensor",
    p_bc: "torch.Tensor | None" = None,
    swapped: bool = False,
) -> pa.Table:
    """Read a model's probabilities of label 1 in the regions of one batch of windows.

    Args:
        regions: of all windows, from :func:`regions`.
        index: (batch,) the windows' numbers among all.
        p: (batch, frames, 2) who speaks next; may end after the last frame that the batch's regions need.
        p_bc: (batch, frames, 2) who is about to give a backchannel, or None from a model that does not tell.
        swapped: the model saw these windows with the speakers swapped. The rows still name the real speakers.

    Returns:
        The rows of these windows in the order of ``index``: columns ``conversation, window, swapped, task,
        label, speaker, start, end, probability`` (mean over the frames) and ``probabilities`` (list, frame by
        frame).
    """
    import torch

    numbers = regions["index"].to_numpy()
    first, last = (np.searchsorted(numbers, np.asarray(index), side) for side in ("left", "right"))
    batch, rows = _spread(first, last - first)
    table = regions.take(rows).drop_columns("index")
    if p_bc is None:  # the comparative model predicts no backchannels
        told = pc.not_equal(table["task"], "predict_backchannel").to_numpy()
        batch, table = batch[told], table.filter(told)

    start, end, speaker, label = (
        table[name].to_numpy().astype(np.int64) for name in ("start", "end", "speaker", "label")
    )
    task = _codes(table)
    is_turn = (task == TASKS.index("hold_shift")) | (task == TASKS.index("predict_shift"))
    not_x = (task == TASKS.index("predict_backchannel")) & (label == _NEGATIVE)
    if p_bc is None:
        output, column = p, speaker
        inverted = ~is_turn | (label == _NEGATIVE)
    else:
        output = torch.cat([p, p_bc], dim=-1)
        column = np.where(is_turn, speaker, 2 + np.where(not_x, 1 - speaker, speaker))
        inverted = is_turn & (label == _NEGATIVE)
    if swapped:
        column = column ^ 1
    row, frame = _spread(start, end - start)
    value = output.float().cpu().numpy()[batch[row], frame, column[row]]
    value = np.where(inverted[row], 1 - value, value)
    if not np.isfinite(value).all():
        name = table["conversation"][int(row[~np.isfinite(value)][0])]
        raise InputError(f"conversation {name}: the model's outputs are not numbers; look at its features")

    mean = np.bincount(row, value, minlength=len(table)) / (end - start)
    offsets = np.append(0, np.cumsum(end - start)).astype(np.int32)
    table = table.add_column(2, "swapped", pa.array(np.full(len(table), swapped)))
    table = table.append_column("probability", pa.array(mean.astype(np.float32)))
    return table.append_column("probabilities", pa.ListArray.from_arrays(offsets, pa.array(value)))


def _codes(table: pa.Table) -> np.ndarray:
    return pc.index_in(table["task"], value_set=pa.array(TASKS)).to_numpy()


def count(collected: pa.Table) -> np.ndarray:
    """Count a collected table's probabilities between the thresholds.

    Returns:
        (tasks, levels, labels, 1 + thresholds) int64: how many frames or events of that task and label have a
        probability at or above exactly so many thresholds.
    """
    class_ = 2 * _codes(collected) + collected["label"].to_numpy()
    lists = collected["probabilities"].combine_chunks()
    steps = 1 + len(THRESHOLDS)

    def tally(classes: np.ndarray, probability: np.ndarray) -> np.ndarray:
        at = classes.astype(np.int64) * steps + np.searchsorted(THRESHOLDS, probability, "right")
        return np.bincount(at, minlength=len(TASKS) * 2 * steps).reshape(len(TASKS), 2, steps)

    frames = tally(np.repeat(class_, lists.value_lengths().to_numpy()), lists.flatten().to_numpy())
    return np.stack([frames, tally(class_, collected["probability"].to_numpy())], axis=1)


def f1(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weighted F1 and label 1's own F1 at each of ``THRESHOLDS``.

    A probability at or above the threshold says 1. The weighted F1 is the mean of the two labels' F1,
    weighted by how many there are of each.

    Args:
        counts: (..., labels, 1 + thresholds) from :func:`count`.

    Returns:
        Two arrays (..., thresholds): NaN where there is nothing to score.
    """
    above = np.flip(np.cumsum(np.flip(counts, -1), -1), -1)[..., 1:]
    support = counts.sum(-1, keepdims=True)
    true_1, false_1 = above[..., 1, :], above[..., 0, :]
    true_0, false_0 = support[..., 0, :] - false_1, support[..., 1, :] - true_1
    with np.errstate(invalid="ignore"):
        f1_1 = 2 * true_1 / (2 * true_1 + false_1 + false_0)
        f1_0 = 2 * true_0 / (2 * true_0 + false_1 + false_0)
        weighted = (support[..., 0, :] * np.nan_to_num(f1_0) + support[..., 1, :] * np.nan_to_num(f1_1)) / (
            support.sum(-2)
        )
    return weighted, np.where(support[..., 1, :] > 0, f1_1, np.nan)


def thresholds(counts: np.ndarray) -> np.ndarray:
    """Return the best threshold of each task and level, (tasks, levels) numbers in ``THRESHOLDS``.

    0.5 for shift or hold and where there is nothing to score; for the others the one with the best weighted
    F1, the lowest of equals.

    Args:
        counts: (tasks, levels, labels, 1 + thresholds) of a validation set.
    """
    half = len(THRESHOLDS) // 2
    weighted, _ = f1(counts)
    best = np.where(np.isnan(weighted).any(-1), half, np.nan_to_num(weighted).argmax(-1))
    best[TASKS.index("hold_shift")] = half
    return best


def named(best: np.ndarray) -> dict[str, dict[str, float]]:
    """Return the thresholds ``best`` of :func:`thresholds` by task and level, as a checkpoint keeps them."""
    return {
        task: {level: round(float(THRESHOLDS[number]), 2) for level, number in zip(LEVELS, row, strict=True)}
        for task, row in zip(TASKS, best, strict=True)
    }


def numbered(named: dict[str, dict[str, float]]) -> np.ndarray:
    """Return what :func:`named` was made from.

    Raises:
        ValueError: it was made from nothing of the kind.
    """
    try:
        best = np.array([[round(100 * named[task][level]) - 1 for level in LEVELS] for task in TASKS])
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"no thresholds of every task and level ({error!r})") from error
    if best.min() < 0 or best.max() >= len(THRESHOLDS):
        raise ValueError("a threshold outside 0.01 to 0.99")
    return best


def scores(counts: np.ndarray, best: np.ndarray) -> list[dict[str, Any]]:
    """Return the scores at the thresholds ``best`` of :func:`thresholds`, a row each.

    Rows have ``metric`` (of ``METRICS``), ``level``, ``value``, ``threshold``, and ``support_0`` and
    ``support_1``, the numbers of frames or events of each label. A task without any row is left out.
    """
    weighted, positive = (np.take_along_axis(values, best[..., None], -1)[..., 0] for values in f1(counts))
    support = counts.sum(-1)
    rows = []
    for metric in METRICS:
        task = TASKS.index("hold_shift" if metric == "f1_shift" else metric.removeprefix("f1_"))
        for level, name in enumerate(LEVELS):
            if not support[task, level].any():
                continue
            rows.append(
                {
                    "metric": metric,
                    "level": name,
                    "value": float((positive if metric == "f1_shift" else weighted)[task, level]),
                    "threshold": round(float(THRESHOLDS[best[task, level]]), 2),
                    "support_0": int(support[task, level, 0]),
                    "support_1": int(support[task, level, 1]),
                }
            )
    return rows


def majority(support_0: float, support_1: float) -> float:
    """Return the weighted F1 of always answering with the label that occurs more often."""
    most, every = max(support_0, support_1), support_0 + support_1
    return most / every * 2 * most / (most + every) if every else float("nan")

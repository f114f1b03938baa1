"""The four scores of turn-taking: shift or hold, short or long, shift prediction, backchannel prediction.

From voice activity to a score: :func:`regions` finds, from voice activity alone, the stretches of frames that
the scores look at; :func:`collect` reads a model's probabilities there, batch by batch; :func:`count` counts
them; :func:`thresholds` and :func:`scores` need only the counts. Counts of batches or processes are summed.

Ekstedt & Skantze, "Voice Activity Projection", Interspeech 2022, section 3; see docs/definitions.md.
"""

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vap_pipeline.io.errors import InputError
from vap_pipeline.settings.events import PAPER, EventSettings

if TYPE_CHECKING:
    import torch

TASKS = ("hold_shift", "short_long", "predict_shift", "predict_backchannel")
METRICS = ("f1_hold_shift", "f1_shift", "f1_short_long", "f1_predict_shift", "f1_predict_backchannel")
LEVELS = ("frame", "event")
# Those of 101 even steps that are in [0.01, 0.99], in the precision of the probabilities.
THRESHOLDS = np.linspace(0, 1, 101)[1:-1].astype(np.float32)
# All-zero counts, to sum into.
EMPTY_COUNTS = np.zeros((len(TASKS), len(LEVELS), 2, 1 + len(THRESHOLDS)), np.int64)

_POSITIVE, _NEGATIVE = 1, 0
_EVENTS = {  # event -> its task and label
    "shift": ("hold_shift", _POSITIVE),
    "hold": ("hold_shift", _NEGATIVE),
    "short": ("short_long", _POSITIVE),
    "long": ("short_long", _NEGATIVE),
    "pre_shift": ("predict_shift", _POSITIVE),
    "pre_backchannel": ("predict_backchannel", _POSITIVE),
}


def regions(
    conversations: Iterable[tuple[str, np.ndarray]], seed: int, settings: EventSettings = PAPER
) -> pa.Table:
    """Return every region that the four scores look at, one row each, in the order of the windows.

    The negatives of the two prediction tasks are pieces of a conversation's non-shift regions, as long as the
    regions before a shift or a backchannel. As many are drawn as the conversation has positives of the task,
    or all where there are fewer, with a seed made of ``seed`` and the conversation's name.

    Args:
        conversations: name and voice activity (frames, 2) of each conversation.
        seed: the run's seed.
        settings: what counts as an event.

    Returns:
        Columns ``index`` (number of the window, counted through all conversations),
        ``conversation``, ``window``, ``task``, ``label``, ``speaker`` (X of the definitions), ``start`` and
        ``end`` (frames in the window), sorted by ``index``.
    """
    names: list[str] = []
    parts = [np.zeros((8, 0), np.int64)]
    first = 0
    for conversation, va in conversations:
        part, n_windows = _regions(conversation, va, seed, settings)
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


def _regions(conversation: str, va: np.ndarray, seed: int, settings: EventSettings) -> tuple[np.ndarray, int]:
    """(6, regions) window, task, label, speaker, start, end of a conversation; its number of windows."""
    import torch  # here, because the report needs this module's names and no torch

    from vap_pipeline.turn_taking.events import EVENTS, find_events, lengths, windows

    frames = lengths(settings)
    va_windows = windows(torch.from_numpy(va), settings)
    events = find_events(va_windows, settings)
    event = events.event.numpy()
    task = np.array([TASKS.index(_EVENTS[name][0]) for name in EVENTS])[event]
    label = np.array([_EVENTS[name][1] for name in EVENTS])[event]
    positives = np.bincount(task[label == _POSITIVE], minlength=len(TASKS))
    rows = [np.stack([events.window, task, label, events.speaker, events.start, events.end])]
    non_shift = events.non_shift.numpy()
    one_active = va_windows[:, : frames.window].sum(-1, keepdim=True).numpy() == 1
    for name, allowed, piece in (
        ("predict_shift", non_shift & one_active, frames.pre_shift),
        ("predict_backchannel", non_shift, frames.pre_backchannel),
    ):
        code = TASKS.index(name)
        # The name's hash, not Python's own, which differs from process to process.
        digest = hashlib.sha256(f"{name} {conversation}".encode()).digest()
        generator = np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])
        rows.append(_negatives(allowed, code, positives[code], piece, generator))
    part = np.concatenate(rows, axis=1)
    by_window_task_label_start_speaker = np.lexsort(part[[3, 4, 2, 1, 0]])
    return part[:, by_window_task_label_start_speaker], len(va_windows)


def _negatives(
    allowed: np.ndarray, task: int, count: int, length: int, generator: np.random.Generator
) -> np.ndarray:
    """Draw ``count`` pieces of ``length`` frames from ``allowed`` (windows, frames, 2).

    Every region is cut from its start into whole pieces, so that each frame is in one piece at most.

    Returns:
        (6, pieces), rows as of :func:`_regions`.
    """
    if not count:
        return np.zeros((6, 0), np.int64)
    edges = np.diff(np.pad(allowed.transpose(0, 2, 1).astype(np.int8), ((0, 0), (0, 0), (1, 1))))
    window, speaker, start = np.nonzero(edges == 1)
    lengths = np.nonzero(edges == -1)[2] - start
    region, piece = _spread(np.zeros_like(start), lengths // length)
    drawn = np.sort(generator.choice(len(region), min(count, len(region)), replace=False))
    region, begin = region[drawn], start[region[drawn]] + length * piece[drawn]
    task_, label = np.full_like(begin, task), np.full_like(begin, _NEGATIVE)
    return np.stack([window[region], task_, label, speaker[region], begin, begin + length])


def _spread(start: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return i and ``start[i] + 0, …, start[i] + count[i] - 1``, concatenated over all i."""
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
        index: (batch,) the numbers of the windows.
        p: (batch, frames, 2) probability that a speaker speaks next; may end after the last frame of the
            batch's regions.
        p_bc: (batch, frames, 2) probability that a speaker is about to give a backchannel, or None where the
            model does not predict it.
        swapped: the model saw these windows with the speakers swapped. The rows still name the real speakers.

    Raises:
        InputError: the model's outputs are NaN or infinite.

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
        predicted = pc.not_equal(table["task"], "predict_backchannel").to_numpy()
        batch, table = batch[predicted], table.filter(predicted)

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
        raise InputError(
            f"conversation {name}: the model's outputs are NaN or infinite; train the model again"
        )

    mean = np.bincount(row, value, minlength=len(table)) / (end - start)
    offsets = np.append(0, np.cumsum(end - start)).astype(np.int32)
    table = table.add_column(2, "swapped", pa.array(np.full(len(table), swapped)))
    table = table.append_column("probability", pa.array(mean.astype(np.float32)))
    return table.append_column("probabilities", pa.ListArray.from_arrays(offsets, pa.array(value)))


def _codes(table: pa.Table) -> np.ndarray:
    return pc.index_in(table["task"], value_set=pa.array(TASKS)).to_numpy()


def count(collected: pa.Table) -> np.ndarray:
    """Count the probabilities of a collected table between the thresholds.

    Returns:
        (tasks, levels, labels, 1 + thresholds) int64. Entry k of the last axis counts the frames or events of
        that task and label whose probability reaches exactly k of the thresholds.
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

    A probability at or above the threshold predicts label 1. The weighted F1 is the mean of the two labels'
    F1, weighted by their numbers of frames or events.

    Args:
        counts: (..., labels, 1 + thresholds) from :func:`count`.

    Returns:
        Two arrays (..., thresholds): NaN where one of the labels does not occur.
    """
    above = np.flip(np.cumsum(np.flip(counts, -1), -1), -1)[..., 1:]
    support = counts.sum(-1, keepdims=True)
    true_1, false_1 = above[..., 1, :], above[..., 0, :]
    true_0, false_0 = support[..., 0, :] - false_1, support[..., 1, :] - true_1
    with np.errstate(invalid="ignore"):
        f1_1 = 2 * true_1 / (2 * true_1 + false_1 + false_0)
        f1_0 = 2 * true_0 / (2 * true_0 + false_1 + false_0)
        weighted = (support[..., 0, :] * f1_0 + support[..., 1, :] * f1_1) / support.sum(-2)
    both = (support > 0).all(-2)
    return np.where(both, weighted, np.nan), np.where(both, f1_1, np.nan)


def thresholds(counts: np.ndarray) -> np.ndarray:
    """Return the best threshold of each task and level, (tasks, levels) numbers in ``THRESHOLDS``.

    It is 0.5 for shift or hold, and where one of the labels does not occur. For the other tasks it is the
    threshold with the best weighted F1, the lowest one if several are equally good.

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
    """Return the thresholds that :func:`named` was given.

    Raises:
        ValueError: a task or level is missing, or a threshold is not from 0.01 to 0.99.
    """
    try:
        best = np.array([[round(100 * named[task][level]) - 1 for level in LEVELS] for task in TASKS])
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"a task or level has no threshold ({error!r})") from error
    if best.min() < 0 or best.max() >= len(THRESHOLDS):
        raise ValueError("a threshold outside 0.01 to 0.99")
    return best


def scores(counts: np.ndarray, best: np.ndarray) -> list[dict[str, Any]]:
    """Return the scores at the thresholds ``best`` of :func:`thresholds`, one row each.

    Rows have ``metric`` (of ``METRICS``), ``level``, ``value``, ``threshold``, and ``support_0`` and
    ``support_1``, the numbers of frames or events of each label. The value is NaN where one of them is 0; a
    task without any event is left out.
    """
    weighted, positive = (np.take_along_axis(values, best[..., None], -1)[..., 0] for values in f1(counts))
    support = counts.sum(-1)
    rows = []
    for metric in METRICS:
        task = TASKS.index("hold_shift" if metric == "f1_shift" else metric.removeprefix("f1_"))
        values = positive if metric == "f1_shift" else weighted
        for level, name in enumerate(LEVELS):
            if support[task, level].any():
                value, threshold = float(values[task, level]), round(float(THRESHOLDS[best[task, level]]), 2)
                row = {"metric": metric, "level": name, "value": value, "threshold": threshold}
                rows.append(row | {f"support_{label}": int(support[task, level, label]) for label in (0, 1)})
    return rows


def majority(support_0: float, support_1: float) -> float:
    """Return the weighted F1 of always predicting the more frequent label; NaN where one does not occur."""
    most, total = max(support_0, support_1), support_0 + support_1
    return most / total * 2 * most / (most + total) if min(support_0, support_1) else float("nan")

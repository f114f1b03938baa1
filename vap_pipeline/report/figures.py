"""The report's figures, as PNG: precision and recall of the four tasks; the timeline of one conversation."""

import io
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from matplotlib.figure import Figure
from tqdm import tqdm

from vap_pipeline.artefacts import score_files
from vap_pipeline.settings.events import FRAME_RATE_HZ
from vap_pipeline.turn_taking.scores import TASKS
from vap_pipeline.views import plots
from vap_pipeline.views.timeline import Region
from vap_pipeline.views.timeline import timeline as draw_timeline

RECALL = np.linspace(0, 1, 201)
TITLES = {
    "hold_shift": "S/H (f1_hold_shift): shift or hold",
    "short_long": "S/L (f1_short_long): short or long",
    "predict_shift": "S-pred (f1_predict_shift): coming shifts",
    "predict_backchannel": "BC-pred (f1_predict_backchannel): backchannels",
}
MODELS = {
    "discrete": plots.BLUE,
    "independent": plots.VERMILION,
    "independent-40": plots.GREEN,
    "comparative": plots.PINK,
}
EVENTS = {  # task and label -> name, colour
    ("hold_shift", 1): ("shift", plots.GREEN),
    ("hold_shift", 0): ("hold", plots.LIGHT_GREY),
    ("predict_shift", 1): ("before a shift", plots.LIGHT_GREEN),
    ("short_long", 0): ("long", plots.ORANGE),
    ("short_long", 1): ("short", plots.PINK),
    ("predict_backchannel", 1): ("before a backchannel", plots.LIGHT_PINK),
}


@dataclass
class Curve:
    """Precision over recall of one model on one task, frame by frame.

    Attributes:
        precision: (folds, recalls) at each ``RECALL``, that of the highest threshold which reaches it.
        average: (folds,) average precision, Σ (recall_n − recall_(n−1)) · precision_n.
        chosen: (folds, 2) recall and precision at the threshold of the scores.
        share: share of positives, which is the precision of a guess.
    """

    precision: list[np.ndarray] = field(default_factory=list)
    average: list[float] = field(default_factory=list)
    chosen: list[tuple[float, float]] = field(default_factory=list)
    share: float = 0.0


def curves(
    paths: dict[tuple[str, int], str], scores: dict[tuple[str, int], pa.Table]
) -> dict[str, dict[str, Curve]]:
    """Compute the curves, by task and model, from the events beside the files of scores.

    Args:
        paths: the files of scores by model and fold.
        scores: their tables.
    """
    by_task: dict[str, dict[str, Curve]] = {task: {} for task in TASKS}
    for (model, fold), path in tqdm(paths.items(), desc="curves", unit=" files", disable=None):
        rows = scores[model, fold]
        events = score_files.read_beside(path, "events", rows)
        thresholds = {row["metric"]: row["threshold"] for row in rows.to_pylist() if row["level"] == "frame"}
        task_of = events["task"].to_numpy()
        for task in TASKS:
            part = events.filter(task_of == task)
            lists = part["probabilities"].combine_chunks()
            score = lists.flatten().to_numpy()
            label = np.repeat(part["label"].to_numpy(), lists.value_lengths().to_numpy())
            if not 0 < label.sum() < len(label):  # a curve needs both labels
                continue
            recall, precision = precision_recall_curve(label, score)
            curve = by_task[task].setdefault(model, Curve())
            curve.precision.append(precision[np.searchsorted(recall, RECALL).clip(max=len(recall) - 1)])
            curve.average.append(float(np.sum(np.diff(recall, prepend=0) * precision)))
            predicted = score >= np.float32(thresholds[f"f1_{task}"])
            hits = float(label[predicted].sum())
            curve.chosen.append((hits / label.sum(), hits / predicted.sum() if predicted.any() else np.nan))
            curve.share = float(label.mean())
    return by_task


def precision_recall_curve(label: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return recall, rising, and precision at every distinct score as the threshold.

    Args:
        label: (n,) 1 or 0, both present.
        score: (n,) of label 1.
    """
    order = np.argsort(-score, kind="stable")
    hits, score = np.cumsum(label[order], dtype=np.int64), score[order]
    last = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)
    return hits[last] / hits[-1], hits[last] / (last + 1)


def points(curves: dict[str, dict[str, Curve]]) -> bytes:
    """Return the mean curves as CSV: ``task, model, recall, precision``."""
    lines = [
        {"task": task, "model": model, "recall": recall, "precision": precision}
        for task, models in curves.items()
        for model, curve in models.items()
        for recall, precision in zip(RECALL.round(3), np.mean(curve.precision, axis=0).round(4), strict=True)
    ]
    content = io.BytesIO()
    if lines:
        options = pyarrow.csv.WriteOptions(quoting_style="needed")
        pyarrow.csv.write_csv(pa.Table.from_pylist(lines), content, options)
    return content.getvalue()


def precision_recall(corpus: str, curves: dict[str, dict[str, Curve]]) -> bytes:
    """Draw a panel per task with a line per model: the mean over folds, in a band from lowest to highest."""
    with plots.style():
        figure = Figure(figsize=(9, 8), layout="constrained")
        figure.suptitle(f"Precision and recall on {corpus}, frame by frame", x=0.01, ha="left", weight="bold")
        for axes, (task, models) in zip(figure.subplots(2, 2).flat, curves.items(), strict=True):
            axes.set(title=TITLES[task], xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
            axes.grid(color=plots.GRID)
            for model, curve in models.items():
                colour = MODELS.get(model, plots.DARK_GREY)
                low, mean, high = (over(curve.precision, axis=0) for over in (np.min, np.mean, np.max))
                axes.fill_between(RECALL, low, high, color=colour, alpha=0.15, lw=0)
                axes.plot(RECALL, mean, color=colour, lw=1.6, label=f"{model}  {np.mean(curve.average):.2f}")
                axes.plot(*np.nanmean(curve.chosen, axis=0), "o", color=colour, ms=6, mec="white", zorder=3)
            if models:
                share = next(iter(models.values())).share
                axes.axhline(share, color=plots.GREY, lw=1, ls=":", label=f"a guess  {share:.2f}")
                axes.legend(title="average precision", loc="best", alignment="left", fontsize=8)
            else:
                axes.text(0.5, 0.5, "no events", ha="center", color=plots.GREY)
        figure.supxlabel(
            "lines: mean over folds; bands: lowest to highest fold; dots: at the scores' threshold",
            fontsize=8,
        )
        return plots.png(figure)


def timeline(corpus: str, model: str, fold: int, path: str, scores: pa.Table) -> bytes:
    """Draw half a minute of one conversation: speech and events of both speakers, then a model's p and p_bc.

    Args:
        path: the file of scores, which has the timeline and the events beside it.
        scores: its table.
    """
    frames = score_files.read_beside(path, "timeline", scores)
    conversation = frames["conversation"][0].as_py()
    time_s = frames["frame"].to_numpy() / FRAME_RATE_HZ
    table = score_files.read_beside(path, "events", scores).drop_columns("probabilities")
    in_sight = (pc.field("start_s") >= time_s[0]) & (pc.field("start_s") < time_s[-1])
    shown = (pc.field("conversation") == conversation) & ~pc.field("swapped") & in_sight
    regions = [
        Region(
            *EVENTS[event["task"], event["label"]],
            event["speaker"],
            event["start_s"],
            event["end_s"],
            "p" if event["task"] in ("hold_shift", "predict_shift") else "p_bc",
        )
        for event in table.filter(shown).to_pylist()
        if (event["task"], event["label"]) in EVENTS
    ]
    order = [label for label, _ in EVENTS.values()]
    va, p_bc = (
        np.stack([frames[f"{name}_{speaker}"].to_numpy() for speaker in range(2)], axis=1)
        for name in ("va", "p_bc")
    )
    title = f"Conversation {conversation} of {corpus}, with predictions of {model} (fold {fold})"
    return draw_timeline(
        title,
        time_s,
        va,
        frames["p_0"].to_numpy(),
        None if np.isnan(p_bc).all() else p_bc,
        sorted(regions, key=lambda region: order.index(region.label)),
    )

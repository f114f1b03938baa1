"""A corpus's turn-taking on one page, in Markdown."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from vap_pipeline.artefacts import manifest
from vap_pipeline.artefacts.manifest import SPLITS
from vap_pipeline.evaluate.corpus_events import one_thread
from vap_pipeline.evaluate.statistics import TurnTaking, measure, pool
from vap_pipeline.evaluate.statistics_figure import figure
from vap_pipeline.io import files, markdown
from vap_pipeline.io.markdown import ABSENT
from vap_pipeline.settings.events import PAPER, EventSettings
from vap_pipeline.turn_taking.events import EVENTS
from vap_pipeline.turn_taking.published import COLUMNS, MAJORITY, PUBLISHED, TASK_COLUMNS
from vap_pipeline.turn_taking.scores import majority
from vap_pipeline.turn_taking.speaker_runs import BOTH, ONLY_A, ONLY_B, SILENCE

NOTES = """\
A **floor transfer** is a change from one speaker alone to the other alone, through a silence (a gap), an
overlap, or neither; the few with both are left out. Its offset is the duration of the gap, or minus that of
the overlap (Heldner & Edlund 2010, *Pauses, gaps and overlaps in conversations*). A **pause** is a silence
between two stretches of the same speaker alone. A **turn** lasts from the first to the last frame in which a
speaker speaks alone, while the other says nothing but backchannels. **Backchannels** last at most a second
and are not turns, so turns of just over a second are more frequent than slightly shorter ones. Backchannels
are counted in whole conversations, events only inside the windows that the scores use."""


@one_thread()
def write_statistics(folder: Path, out: Path, settings: EventSettings = PAPER) -> Path:
    """Write ``statistics.md`` and ``statistics.png`` of the manifest ``folder`` to the folder ``out``.

    Returns:
        The page.

    Raises:
        InputError: the manifest is broken, or a file cannot be written.
    """
    corpus = manifest.read(folder)
    names = corpus.select("all")
    conversations = tqdm(
        corpus.activity(names), "statistics", len(names), unit=" conversations", disable=None
    )
    duration_s = {c.conversation: c.duration_s for c in corpus.conversations}
    measures = {name: measure(torch.from_numpy(va), duration_s[name], settings) for name, va in conversations}
    splits = {split: [measures[name] for name in corpus.select(split)] for split in SPLITS}
    pooled = {split: pool(parts) for split, parts in splits.items() if parts}
    files.write(out / "statistics.png", figure(corpus.name, pooled["all"]))
    files.write(out / "statistics.md", page(corpus.name, pooled).encode())
    return out / "statistics.md"


def page(corpus: str, splits: dict[str, TurnTaking]) -> str:
    """Return the statistics as Markdown, a column for each of ``splits``."""
    counts = {split: measured.events.sum(0) for split, measured in splits.items()}
    windows = ["windows", *(f"{measured.windows.sum():,}" for measured in splits.values())]
    events = [[name, *(f"{count[i]:,}" for count in counts.values())] for i, name in enumerate(EVENTS)]
    always = [[split, *map(_score, _majority(count))] for split, count in counts.items()]
    if corpus == "switchboard":
        published = dict(zip(COLUMNS, PUBLISHED[MAJORITY], strict=True))
        always.append(["*published, test*", *(f"*{_score(published[name])}*" for name in TASK_COLUMNS)])
    n = {split: len(measured.durations) for split, measured in splits.items()}
    unused = n["all"] - n.get("train", 0) - n.get("test", 0)
    parts = [
        f"# Turn-taking in {corpus}",
        "Who speaks when, in frames of 10 ms. Durations are medians, with quartiles in brackets."
        + (f" *All* counts {unused:,} conversations that are in neither of the sets." if unused else ""),
        "![Floor transfers, silences, turns and backchannels](statistics.png)",
        markdown.table(["", *splits], [[name, *map(cell, splits.values())] for name, cell in ROWS.items()]),
        NOTES,
        "## Events",
        markdown.table(["", *splits], [windows, *events]),
        "The weighted F1 of always predicting the more frequent label is",
        markdown.table(["", *TASK_COLUMNS], always),
        "if the two prediction tasks have as many negatives as positives, which they have unless there are "
        f"too few non-shifts. {ABSENT} stands where one of the labels does not occur. "
        + ", ".join(f"{column} is {metric} in files" for column, metric in TASK_COLUMNS.items())
        + ".",
    ]
    return "\n\n".join(parts) + "\n"


def _majority(events: np.ndarray) -> list[float]:
    """Return the four scores of the majority class; the regions of both labels have the same length."""
    n = dict(zip(EVENTS, events.tolist(), strict=True))
    negatives = ("hold", "long", "pre_shift", "pre_backchannel")  # as many non-shifts as positives
    positives = ("shift", "short", "pre_shift", "pre_backchannel")
    return [
        majority(n[negative], n[positive]) for negative, positive in zip(negatives, positives, strict=True)
    ]


def _minutes(measures: TurnTaking) -> float:
    return measures.durations.sum() / 60


def _share(part: np.ndarray, whole: np.ndarray | float) -> str:
    return f"{100 * part.sum() / max(np.sum(whole), 1e-9):.1f}%"


def _quartiles(seconds: np.ndarray, unit: float = 1.0, digits: int = 2) -> str:
    if not len(seconds):
        return ABSENT
    low, middle, high = (f"{s / unit:.{digits}f}" for s in np.quantile(seconds, (0.25, 0.5, 0.75)))
    return f"{middle} ({low}, {high})"


# The rows of the first table.
ROWS: dict[str, Callable[[TurnTaking], str]] = {
    "conversations": lambda m: f"{len(m.states):,}",
    "hours": lambda m: f"{m.durations.sum() / 3600:,.2f}",
    "one speaker": lambda m: _share(m.states[:, [ONLY_A, ONLY_B]], m.states),
    "both speakers": lambda m: _share(m.states[:, BOTH], m.states),
    "silence": lambda m: _share(m.states[:, SILENCE], m.states),
    "floor transfers a minute": lambda m: f"{len(m.offsets) / _minutes(m):.1f}",
    "… through a gap": lambda m: _share(m.offsets > 0, len(m.offsets)),
    "… through an overlap": lambda m: _share(m.offsets < 0, len(m.offsets)),
    "floor transfer offset, ms": lambda m: _quartiles(m.offsets, 0.001, 0),
    "gap, ms": lambda m: _quartiles(m.offsets[m.offsets > 0], 0.001, 0),
    "overlap at a floor transfer, ms": lambda m: _quartiles(-m.offsets[m.offsets < 0], 0.001, 0),
    "pause, ms": lambda m: _quartiles(m.pauses, 0.001, 0),
    "turn, s": lambda m: _quartiles(m.turns),
    "backchannels a minute": lambda m: f"{m.backchannels.sum() / _minutes(m):.2f}",
}


def _score(value: float | None) -> str:
    return ABSENT if value is None or np.isnan(value) else f"{value:.3f}".removeprefix("0")

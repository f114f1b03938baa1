"""A corpus's turn-taking on one page: how much is spoken, how speakers change, what there is to score."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vap_pipeline.artefacts import manifest
from vap_pipeline.artefacts.manifest import SPLITS
from vap_pipeline.evaluate.corpus_events import activity, one_thread
from vap_pipeline.evaluate.statistics_figure import figure
from vap_pipeline.io import files, markdown
from vap_pipeline.turn_taking.events import EVENTS, find_backchannels, find_events, lengths, windows
from vap_pipeline.turn_taking.published import COLUMNS, MAJORITY, PUBLISHED, TASK_COLUMNS
from vap_pipeline.turn_taking.scores import majority
from vap_pipeline.turn_taking.speaker_runs import BOTH, ONLY_A, ONLY_B, SILENCE, find_runs, is_single
from vap_pipeline.turn_taking.voice_activity import FRAME_RATE_HZ, voice_activity

NOTES = """\
A **floor transfer** is a change from one speaker alone to the other alone, through a silence (a gap), an
overlap, or neither; the few that pass through both are left out. Its offset is the duration of the gap, or
minus that of the overlap (Heldner & Edlund 2010, *Pauses, gaps and overlaps in conversations*). A **pause**
is a silence between two stretches of the same speaker alone. A **turn** lasts from the first to the last
frame that a speaker speaks alone while the other, backchannels aside, never does. **Backchannels** last a
second at most and are no turns, so turns of just over a second are more frequent than those just below.
They are found anywhere in a conversation, events only where the windows count them."""


@dataclass
class TurnTaking:
    """Measures of one or more conversations (c), durations in seconds.

    Attributes:
        durations: (c,) of the conversations.
        states: (c, 4) of silence, only A, only B, both, in whole frames.
        offsets: (transfers,) of floor transfers: of the gap, or minus that of the overlap.
        pauses, turns: (pauses,), (turns,).
        backchannels: (c,) number.
        windows: (c,) number.
        events: (c, 6) number of each of ``EVENTS``.
    """

    durations: np.ndarray
    states: np.ndarray
    offsets: np.ndarray
    pauses: np.ndarray
    turns: np.ndarray
    backchannels: np.ndarray
    windows: np.ndarray
    events: np.ndarray


def measure(va: Tensor, duration_s: float) -> TurnTaking:
    """Measure the voice activity (frames, 2) of a conversation."""
    runs = find_runs(va[None])
    seconds = runs.length.double() / FRAME_RATE_HZ
    before, after = runs.before(runs.state), runs.after(runs.state)
    between_singles = is_single(before) & is_single(after)
    gap = between_singles & (runs.state == SILENCE) & (before != after)
    pause = between_singles & (runs.state == SILENCE) & (before == after)
    overlap = between_singles & (runs.state == BOTH) & (before != after)
    at_once = is_single(before) & is_single(runs.state)  # no gap, no overlap
    _, speaker, start, end = find_backchannels(runs, lengths())
    cut = windows(va)
    return TurnTaking(
        durations=np.array([duration_s]),
        states=torch.bincount(runs.state, seconds, minlength=4).numpy()[None],
        offsets=torch.cat([seconds[gap], -seconds[overlap], 0 * seconds[at_once]]).numpy(),
        pauses=seconds[pause].numpy(),
        turns=_turns(va, speaker, start, end),
        backchannels=np.array([len(speaker)]),
        windows=np.array([len(cut)]),
        events=torch.bincount(find_events(cut).event, minlength=len(EVENTS)).numpy()[None],
    )


def _turns(va: Tensor, speaker: Tensor, start: Tensor, end: Tensor) -> np.ndarray:
    """Durations of the turns of a conversation, whose backchannels are given."""
    start_s, end_s = start.numpy() / FRAME_RATE_HZ, end.numpy() / FRAME_RATE_HZ
    backchannels = torch.from_numpy(voice_activity(speaker.numpy(), start_s, end_s, len(va)))
    runs = find_runs((va & ~backchannels)[None])
    alone = is_single(runs.state)
    state, start, end = runs.state[alone], runs.start[alone], runs.end[alone]
    first = state != state.roll(1)
    first[:1] = True
    return (end[first.roll(-1)] - start[first]).numpy() / FRAME_RATE_HZ


def pool(parts: list[TurnTaking]) -> TurnTaking:
    """Put the measures of several conversations together."""
    return TurnTaking(
        *(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(TurnTaking))
    )


@one_thread()
def write_statistics(folder: Path, out: Path) -> Path:
    """Write ``statistics.md`` and ``statistics.png`` of the manifest ``folder`` to the folder ``out``.

    Returns:
        The page.

    Raises:
        InputError: the manifest is broken, or a file cannot be written.
    """
    corpus = manifest.read(folder)
    names = corpus.select("all")
    conversations = tqdm(
        activity(corpus, names), "statistics", len(names), unit=" conversations", disable=None
    )
    duration_s = {c.conversation: c.duration_s for c in corpus.conversations}
    measures = {name: measure(va, duration_s[name]) for name, va in conversations}
    splits = {split: [measures[name] for name in corpus.select(split)] for split in SPLITS}
    pooled = {split: pool(parts) for split, parts in splits.items() if parts}
    files.write(out / "statistics.png", figure(corpus.name, pooled["all"]))
    files.write(out / "statistics.md", page(corpus.name, pooled).encode())
    return out / "statistics.md"


def page(corpus: str, splits: dict[str, TurnTaking]) -> str:
    """Return the statistics as Markdown, a column for each of ``splits``."""
    counts = {split: each.events.sum(0) for split, each in splits.items()}
    windows = ["windows", *(f"{each.windows.sum():,}" for each in splits.values())]
    events = [[name, *(f"{each[i]:,}" for each in counts.values())] for i, name in enumerate(EVENTS)]
    always = [[split, *map(_score, _majority(each))] for split, each in counts.items()]
    if corpus == "switchboard":
        published = dict(zip(COLUMNS, PUBLISHED[MAJORITY], strict=True))
        always.append(["*published, test*", *(f"*{_score(published[name])}*" for name in TASK_COLUMNS)])
    n = {split: len(each.durations) for split, each in splits.items()}
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
        "Always answering with the more frequent label has the weighted F1",
        markdown.table(["", *TASK_COLUMNS], always),
        "where the two prediction tasks have as many negatives as positives, as they have unless non-shifts "
        "are too few.",
    ]
    return "\n\n".join(parts) + "\n"


def _majority(events: np.ndarray) -> list[float]:
    """The four scores of the majority class; in each, the regions of both labels are of one length."""
    n = dict(zip(EVENTS, events.tolist(), strict=True))
    pairs = [
        (n["hold"], n["shift"]),
        (n["long"], n["short"]),
        (n["pre_shift"], n["pre_shift"]),
        (n["pre_backchannel"], n["pre_backchannel"]),
    ]
    return [majority(*pair) for pair in pairs]


def _minutes(each: TurnTaking) -> float:
    return each.durations.sum() / 60


def _share(part: np.ndarray, whole: np.ndarray | float) -> str:
    return f"{100 * part.sum() / max(np.sum(whole), 1e-9):.1f}%"


def _quartiles(seconds: np.ndarray, unit: float = 1.0, digits: int = 2) -> str:
    if not len(seconds):
        return "–"
    low, middle, high = (f"{each / unit:.{digits}f}" for each in np.quantile(seconds, (0.25, 0.5, 0.75)))
    return f"{middle} ({low}, {high})"


# What the page says of a corpus, row by row.
ROWS: dict[str, Callable[[TurnTaking], str]] = {
    "conversations": lambda each: f"{len(each.states):,}",
    "hours": lambda each: f"{each.durations.sum() / 3600:,.2f}",
    "one speaker": lambda each: _share(each.states[:, [ONLY_A, ONLY_B]], each.states),
    "both speakers": lambda each: _share(each.states[:, BOTH], each.states),
    "silence": lambda each: _share(each.states[:, SILENCE], each.states),
    "floor transfers a minute": lambda each: f"{len(each.offsets) / _minutes(each):.1f}",
    "… through a gap": lambda each: _share(each.offsets > 0, len(each.offsets)),
    "… through an overlap": lambda each: _share(each.offsets < 0, len(each.offsets)),
    "floor transfer offset, ms": lambda each: _quartiles(each.offsets, 0.001, 0),
    "gap, ms": lambda each: _quartiles(each.offsets[each.offsets > 0], 0.001, 0),
    "overlap at a floor transfer, ms": lambda each: _quartiles(-each.offsets[each.offsets < 0], 0.001, 0),
    "pause, ms": lambda each: _quartiles(each.pauses, 0.001, 0),
    "turn, s": lambda each: _quartiles(each.turns),
    "backchannels a minute": lambda each: f"{each.backchannels.sum() / _minutes(each):.2f}",
}


def _score(value: float | None) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.3f}".removeprefix("0")

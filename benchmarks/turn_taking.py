"""How fast everything that needs no audio is, on one core, against the plain reference of the tests.

    python -m benchmarks.turn_taking data_manifest/switchboard [--transcripts ms98]

Takes all conversations of a manifest through voice activity, activity history, events, non-shift and the
labels of the four models; the last windows through zero-shot probabilities, of random logits; and a few
windows (where it goes frame by frame, a few frames of them) through the plain reference. The scores, of
random probabilities on the test set, and the manifest, made from --transcripts, have no plain side. Prints
windows per second of processor time, and the most memory that the process held.
"""

import argparse
import resource
import runpy
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks import machine
from vap_pipeline.artefacts import manifest
from vap_pipeline.corpora import switchboard
from vap_pipeline.evaluate import corpus_events as turn_taking
from vap_pipeline.runtime import memory
from vap_pipeline.turn_taking import scores
from vap_pipeline.turn_taking.events import (
    find_events,
    find_non_shift,
    lengths,
    window_starts,
    windows,
)
from vap_pipeline.turn_taking.projection import MODELS, OUTPUTS, labels, probabilities
from vap_pipeline.turn_taking.speaker_runs import find_runs
from vap_pipeline.turn_taking.voice_activity import activity_history, frames, voice_activity

REFERENCE = Path(__file__).parents[1] / "tests" / "reference.py"
PLAIN_WINDOWS, PLAIN_FRAMES = 40, 5
WINDOW, HOP, LOOK_AHEAD = lengths()[:3]
NOTES = """
Seconds for all are worked out from the windows a second where a step was not done to all: probabilities, of
the last block of windows, and scores, of the test set. One call finds events and non-shift; non-shift is
timed again by itself, and the row of the events is the difference. Ratios also say how slow the plain side
is: its history looks through all frames before each frame and its non-shift through the next 200, while its
events go run by run, of which a window has few, and do not become 100 times as fast. Nor do the independent
models' probabilities: both sides do little more than take the sigmoid of every bin."""
BATCH = 50  # windows at once where there is much to a frame, as in training


class Clock:
    """Adds up processor time and windows by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.windows: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, step: str, n_windows: float) -> Iterator[None]:
        began = time.process_time()
        yield
        self.seconds[step] += time.process_time() - began
        self.windows[step] += n_windows

    def rate(self, step: str) -> float:
        return self.windows[step] / self.seconds[step]


def main(argv: list[str] | None = None) -> list[machine.Row]:
    """Print the table; return the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path, help="folder of a manifest")
    parser.add_argument("--transcripts", type=Path, help="folder of Switchboard's, to make the manifest from")
    args = parser.parse_args(argv)
    folder = args.manifest
    memory.keep()  # as evaluation does
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    fast, plain = Clock(), Clock()
    conversations, n_windows = run_fast(folder, fast)
    run_scores(folder, fast)
    if args.transcripts:
        with fast("manifest from transcripts", n_windows):
            switchboard.read(args.transcripts, None, test=135, folds=11)
    run_plain(conversations, plain)
    torch.set_num_threads(threads)

    rows, ratios = [], []
    for step in fast.seconds:
        ours, theirs = fast.rate(step), plain.rate(step) if step in plain.seconds else None
        times = f"{ours / theirs:,.0f}" if theirs else ""
        if theirs:
            row = f"{step}, windows a second, plain reference", f"{ours:,.0f}", f"{theirs:,.1f}"
            ratios.append(machine.Row(*row, ours / theirs, ""))
        rows.append(
            [step, f"{n_windows / ours:.2f}", f"{ours:,.0f}", f"{theirs:,.1f}" if theirs else "", times]
        )
    print(
        f"{machine.name()}, one core\n{folder}: {len(conversations):,} conversations, {n_windows:,} windows\n"
    )
    print(machine.table(["step", "s for all", "windows/s", "plain reference", "times as fast"], rows))
    print(NOTES)
    print(f"\nmost memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    return ratios


Conversation = tuple[list[tuple[int, float, float]], int]  # segments, frames


def run_fast(folder: Path, clock: Clock) -> tuple[list[Conversation], int]:
    """Time the package over the whole corpus; return the conversations, and how many windows they have."""
    with clock("read the manifest", 0):
        corpus = manifest.read(folder)
        segments = corpus.segments()
    conversations, n_windows, block = [], 0, []
    for number, listed in enumerate(
        tqdm(corpus.conversations, "corpus", unit=" conversations", disable=None), 1
    ):
        own, n_frames = segments[listed.conversation], frames(listed.duration_s)
        n = (n_frames - WINDOW) // HOP + 1
        with clock("voice activity", n):
            va = torch.from_numpy(voice_activity(*own, n_frames))
        with clock("activity history", n):
            activity_history(va)
        block.append(windows(va))
        n_windows += n
        conversations.append((list(zip(*(each.tolist() for each in own), strict=True)), n_frames))
        if sum(map(len, block)) >= turn_taking.BLOCK_WINDOWS or number == len(corpus.conversations):
            last = torch.cat(block)
            time_block(last, clock)
            block = []
    clock.windows["read the manifest"] = n_windows
    clock.seconds["events"] -= clock.seconds["non-shift"]
    generator = torch.Generator().manual_seed(0)
    for model in MODELS:
        for batch in last.split(BATCH):
            logits = torch.randn(len(batch), WINDOW, OUTPUTS[model], generator=generator)
            with clock(f"probabilities, {model}", len(batch)):
                probabilities(logits, batch[:, :WINDOW], model)
    return conversations, n_windows


def run_scores(folder: Path, clock: Clock) -> None:
    """Time the scores of the test set, of random probabilities."""
    corpus = manifest.read(folder)
    test = list(corpus.activity(corpus.test_set()))
    n_windows = sum(len(window_starts(len(va))) for _, va in test)
    with clock("scores, regions", n_windows):
        regions = scores.regions(test, seed=0)
    counts = scores.EMPTY_COUNTS
    for index in torch.arange(n_windows).split(BATCH):
        p, p_bc = torch.rand(2, len(index), WINDOW, 2)
        with clock("scores, collect and count", len(index)):
            counts = counts + scores.count(scores.collect(regions, index.numpy(), p, p_bc))
    with clock("scores, thresholds", n_windows):
        scores.thresholds(counts)


def time_block(va: Tensor, clock: Clock) -> None:
    """Time what is done to windows (n, 1200, 2)."""
    with clock("events", len(va)):
        find_events(va)
    runs = find_runs(va)
    with clock("non-shift", len(va)):
        find_non_shift(va, runs, lengths())
    for model in MODELS:
        for batch in va.split(BATCH):
            with clock(f"labels, {model}", len(batch)):
                labels(batch, model)


def run_plain(conversations: list[Conversation], clock: Clock) -> None:
    """Time the reference on windows from all over the corpus."""
    reference = runpy.run_path(str(REFERENCE))
    share = PLAIN_FRAMES / WINDOW
    step = max(1, len(conversations) // PLAIN_WINDOWS)
    for segments, n_frames in tqdm(
        conversations[::step][:PLAIN_WINDOWS], "reference", unit=" windows", disable=None
    ):
        n = (n_frames - WINDOW) // HOP + 1
        with clock("voice activity", n):
            va = reference["voice_activity"](segments, n_frames)
        start = n // 2 * HOP
        end = start + WINDOW + LOOK_AHEAD
        window = va[start:end] + [(0, 0)] * (end - n_frames)
        with clock("events", 1):
            reference["find_events"](window)
        with clock("non-shift", 1):
            reference["non_shift"](window)
        times = range(0, WINDOW, WINDOW // PLAIN_FRAMES)
        with clock("activity history", share):
            for t in times:
                reference["activity_history"](va, start + t)
        for model in MODELS:
            with clock(f"labels, {model}", share):
                for t in times:
                    reference["label"](window, t, model)
            logits = torch.randn(PLAIN_FRAMES, OUTPUTS[model]).tolist()
            with clock(f"probabilities, {model}", share):
                for t, logit in zip(times, logits, strict=True):
                    reference["probabilities"](logit, window[t], model)


if __name__ == "__main__":
    main()

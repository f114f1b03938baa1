"""Evaluation: scoring the full-size model on a test set like Switchboard's, 135 conversations.

    python -m benchmarks.evaluate [--conversations 5]

Scores a few conversations of that size as ``vap-evaluate score`` does, with thresholds from the checkpoint,
and projects: twice through the windows, the second time with the speakers swapped and up to the last frame
that a score needs. Features are random; who speaks when is drawn so that about as many frames are needed as
in Switchboard. The operations counted are a training step's forward part, for the frames that were computed.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks import machine
from benchmarks.train import gflop
from vap_pipeline.artefacts import store
from vap_pipeline.artefacts.windows import Windows
from vap_pipeline.evaluate import score
from vap_pipeline.models.network import ModelConfig, ProjectionModel
from vap_pipeline.turn_taking import scores
from vap_pipeline.turn_taking.events import lengths

CONVERSATION_S = 310  # 38 windows
WINDOW = lengths().window
WINDOWS = 4_979  # in Switchboard's test set
LIMIT_MIN = 10.0
SLOW = 60.0  # GFLOP/s: a slow day of two cores, for the last line


def talk(generator: np.random.Generator, frames: int) -> np.ndarray:
    """Voice activity (frames, 2) of two who take turns, pause and give backchannels."""
    va = np.zeros((frames, 2), np.uint8)
    at, speaker = 0, 0
    while at < frames:
        turn = int(generator.integers(100, 1000))
        va[at : at + turn, speaker] = 1
        if turn > 700:
            va[at + turn // 3 :][:50, 1 - speaker] = 1
        at += turn + int(generator.integers(20, 80))
        speaker ^= int(generator.random() < 0.3)
    return va


def speed(conversations: int, folder: Path) -> tuple[str, list[machine.Row]]:
    """The table of minutes, and their ratio to what they should be."""
    generator, frames = np.random.default_rng(0), CONVERSATION_S * 100 + 1
    writer = store.create(folder / "features.zarr", {"dim": 256, "encoder": {}})
    for i in range(conversations):
        features = generator.standard_normal((frames, 256), np.float32).astype(np.float16)
        writer.write(f"c{i}", features, talk(generator, frames))
    windows = Windows(store.open_store(folder / "features.zarr"), [f"c{i}" for i in range(conversations)])
    torch.manual_seed(0)
    config = ModelConfig()
    model = ProjectionModel(config).eval()
    best = scores.thresholds(scores.EMPTY_COUNTS)

    limit = median(machine.in_turns({"machine": machine.matmul()}, 3)["machine"])
    score.evaluate(model, Windows(windows.store, windows.conversations[:1]), best, 0)
    began = time.perf_counter()
    score.evaluate(model, windows, best, 0)
    elapsed = time.perf_counter() - began

    found = scores.regions(((name, windows.store.va(name)) for name in windows.conversations), 0)
    needed = score._needed(windows, found)
    forward = [gflop(config, int(n)) / 3 for n in (WINDOW, *needed)]
    work = forward[0] + sum(forward[1:]) / len(windows)  # of a window and the same swapped
    minutes, rate = elapsed / len(windows) * WINDOWS / 60, work * len(windows) / elapsed
    fastest = machine.MATMUL_FLOP / limit / 1e9
    rows = [
        ["these conversations", len(windows), elapsed / 60, rate],
        ["135 conversations, projected", WINDOWS, minutes, rate],
        ["the same at the rate of matrix products alone", WINDOWS, work * WINDOWS / fastest / 60, fastest],
        [f"the same at {SLOW:.0f} GFLOP/s", WINDOWS, work * WINDOWS / SLOW / 60, SLOW],
    ]
    text = (
        f"{machine.table(['', 'windows', 'minutes', 'GFLOP/s'], rows)}\n\n"
        f"{torch.get_num_threads()} threads; {work:.1f} GFLOP a window, scored twice; the second time "
        f"{100 * needed.mean() / WINDOW:.0f}% of the frames (Switchboard: 78%)"
    )
    row = "evaluation of 135 conversations, minutes", f"{minutes:.1f}", f"{LIMIT_MIN:.0f}"
    return text, [machine.Row(*row, minutes / LIMIT_MIN, "< 1")]


def main(argv: list[str] | None = None) -> list[machine.Row]:
    """Print the table; return the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--conversations", type=int, default=5, help="to score (%(default)s)")
    args = parser.parse_args(argv)
    print(f"## Evaluation: a model on a test set\n\n{machine.name()}\n")
    with tempfile.TemporaryDirectory() as folder:
        text, ratios = speed(args.conversations, Path(folder))
    print(text)
    return ratios


if __name__ == "__main__":
    main()

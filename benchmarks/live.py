"""What live prediction costs on one core, beside the published real-time program; three minutes.

    python -m benchmarks.live [--minutes 5] [--peer PYTHON]

Full-size models with random weights (encoder and projection model 256 wide, 4 layers) listen with 10 s of
context. Ours takes pieces of 20 ms, finds voice activity, and gives 100 frames a second. PYTHON is the
interpreter of an environment in which `pip install maai` was run; that program takes pieces of 100 ms and
gives 10 frames a second. Both work in turns of 10 s of audio, in processes bound to one core. The first 10 s,
which fill the context, do not count. Processor time leaves out what other programs take on a busy machine.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import soundfile
import torch
from tqdm import tqdm

import vap_pipeline
from benchmarks import machine
from benchmarks.live_side import BLOCK_S, PIECE_S, RATE_HZ, signal
from vap_pipeline.encoders import cpc_weights
from vap_pipeline.models import checkpoint
from vap_pipeline.models.network import ModelConfig, ProjectionModel
from vap_pipeline.settings.events import FRAME_RATE_HZ
from vap_pipeline.turn_taking.voice_activity import frames

OFFLINE_S = 600
HEAD = (
    "",
    "piece, ms",
    "frames/s",
    "median, ms",
    "p99",
    "max",
    "processor: median",
    "p99",
    "max",
    "share of real time",
    "start-up, s",
    "processor",
    "peak, MB",
    "of it torch",
)
FRAMES_PER_S = {"ours": FRAME_RATE_HZ, "maai": round(1 / PIECE_S["maai"])}


class Side:
    """A live program in a process of its own."""

    def __init__(self, name: str, python: str, path: str) -> None:
        self.name, self.pieces = name, np.zeros((0, 2))
        self._memory: list[float] = []
        start = time.perf_counter()
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.live_side", name, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        first = self._answer()
        self.start_s, self.start_cpu_s, self.torch_mb = (
            time.perf_counter() - start,
            first["cpu"],
            first["torch"],
        )

    def block(self) -> None:
        """Have it work through the next ten seconds of audio."""
        print(file=self._process.stdin, flush=True)
        answer = self._answer()
        self.pieces = np.concatenate([self.pieces, np.array(answer["pieces"]) * 1000])
        self._memory.append(answer["now"])
        self.peak_mb = answer["peak"]

    def row(self) -> list[object]:
        """Return its line of the table."""
        wall, cpu = self.pieces.T
        piece_ms = PIECE_S[self.name] * 1000
        times = [
            float(value) for ms in (wall, cpu) for value in (np.median(ms), np.percentile(ms, 99), ms.max())
        ]
        share, start = float(cpu.mean() / piece_ms), (self.start_s, self.start_cpu_s)
        frames_per_s = FRAMES_PER_S[self.name]
        return [self.name, piece_ms, frames_per_s, *times, share, *start, self.peak_mb, self.torch_mb]

    def growth(self) -> str:
        """Say how the last tenth of the time differs from the first."""
        first, *_, last = np.array_split(self.pieces[:, 1], 10)
        return (
            f"{self.name}: {np.median(first):.2f} ms of processor time a piece in the first tenth and "
            f"{np.median(last):.2f} in the last, "
            f"{self._memory[0]:.0f} MB at the start and {self._memory[-1]:.0f} at the end"
        )

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise SystemExit(
                f"{self.name} ended early; run `python -m benchmarks.live_side {self.name} …` to see why"
            )
        return dict(json.loads(line))

    def end(self) -> None:
        """End its process."""
        self._process.communicate()


def make(folder: str) -> None:
    """Write a checkpoint of full size with random weights, and its encoder's beside it."""
    encoder = cpc_weights.random(0)
    cpc_weights.save(encoder, f"{folder}/encoder.pt")
    _, described = cpc_weights.load(f"{folder}/encoder.pt")
    torch.manual_seed(0)
    checkpoint.save(ProjectionModel(ModelConfig()), {"store": {"encoder": described}}, folder)


def offline(folder: str) -> str:
    """Say how fast ten minutes are predicted."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    predictor = vap_pipeline.load(folder, f"{folder}/encoder.pt")
    soundfile.write(f"{folder}/call.wav", np.tile(signal(), (OFFLINE_S // BLOCK_S, 1)), RATE_HZ)
    va = np.ones((frames(OFFLINE_S), 2), np.uint8)
    start = time.perf_counter()
    predictor.predict(f"{folder}/call.wav", va)
    speed = OFFLINE_S / (time.perf_counter() - start)
    return (
        f"offline, {OFFLINE_S // 60} minutes on {torch.get_num_threads()} cores: {speed:.0f} times real time"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.live", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--peer", metavar="PYTHON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make(folder)
        sides = [Side("ours", sys.executable, folder)]
        if args.peer:
            sides.append(Side("maai", args.peer, f"{folder}/encoder.pt"))
        for block in tqdm(range(1 + round(args.minutes * 60 / BLOCK_S)), "blocks", disable=None):
            for side in sides:
                side.block()
                if block == 0:
                    side.pieces = side.pieces[:0]
        for side in sides:
            side.end()
        print(f"## Live, one core, {args.minutes:g} minutes\n\n{machine.name()}\n")
        print(machine.table(HEAD, [side.row() for side in sides]), "\n")
        print("\n".join(side.growth() for side in sides))
        print(offline(folder))


if __name__ == "__main__":
    main()

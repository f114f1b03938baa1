"""The log in Weights & Biases: training with a server that never answers, against training without a log.

    python -m benchmarks.tracking [--rounds 3] [--epochs 20]

Runs `vap-train` on a corpus of random features, whole commands from start to end, in turns. The server, on
the loopback interface, accepts every connection and says nothing.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa

from benchmarks import machine
from benchmarks.evaluate import talk
from vap_pipeline.artefacts import manifest, store
from vap_pipeline.artefacts.manifest import Conversation, Manifest

CONVERSATIONS, SECONDS, DIM = 8, 300, 64
MODEL = {"width": 64, "layers": 2, "heads": 2, "feedforward": 128}
SILENT = "a server that never answers"


def write_corpus(folder: Path) -> None:
    """Write ``folder/manifest`` and ``folder/features.zarr``, of two folds."""
    generator = np.random.default_rng(0)
    writer = store.create(folder / "features.zarr", {"dim": DIM, "encoder": {}})
    listed, rows = [], []
    for number in range(CONVERSATIONS):
        name, va = f"c{number}", talk(generator, SECONDS * 100 + 1)
        va[-1] = 0
        features = generator.standard_normal((len(va), DIM), np.float32).astype(np.float16)
        writer.write(name, features, va)
        listed.append(Conversation(name, "", SECONDS, "train", number % 2))
        for channel in (0, 1):
            edges = np.flatnonzero(np.diff(va[:, channel].astype(int), prepend=0, append=0)) / 100
            rows += [(name, channel, start, end) for start, end in edges.reshape(-1, 2).tolist()]
    columns = [dict(zip(manifest.SCHEMA.names, row, strict=True)) for row in rows]
    manifest.write(Manifest(listed, pa.Table.from_pylist(columns, manifest.SCHEMA)), folder / "manifest")


def speed(rounds: int, epochs: int, folder: Path, port: int) -> tuple[str, list[machine.Row]]:
    """The table of seconds with and without the log, and their ratio."""
    write_corpus(folder)
    command = [sys.executable, "-m", "vap_pipeline.train", "--model", "discrete", "--fold", "0"]
    command += ["--corpus", "random", "--store", "features.zarr", "--manifest", "manifest", "--out", "out"]
    command += ["--batch", "8", "--epochs", str(epochs), "--checks-per-epoch", "1", "--learning-rate", "1e-4"]
    command += [part for name, value in MODEL.items() for part in (f"--{name}", str(value))]
    root = str(Path(__file__).resolve().parent.parent)
    home = {"HOME": str(folder), "WANDB_DIR": str(folder), "PYTHONPATH": root}
    online = {"WANDB_MODE": "online", "WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": f"http://127.0.0.1:{port}"}

    def train(environment: dict[str, str]) -> None:
        subprocess.run(
            command, cwd=folder, env={**os.environ, **home, **environment}, check=True, capture_output=True
        )

    works: dict[str, Callable[[], object]] = {
        "no log": lambda: train({"WANDB_MODE": "disabled"}),
        SILENT: lambda: train(online),
    }
    taken = machine.in_turns(works, rounds)
    slower = machine.ratio(taken[SILENT], taken["no log"])
    rows = [[key, median(seconds), min(seconds), max(seconds)] for key, seconds in taken.items()]
    silent, without = (f"{median(taken[key]):.1f}" for key in (SILENT, "no log"))
    return machine.table(["", "median, s", "least, s", "most, s"], rows), [
        machine.Row("s to train, with a W&B server that never answers", silent, without, slower, "≤ 1.05")
    ]


def main(argv: list[str] | None = None) -> list[machine.Row]:
    """Print the table; return the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args(argv)
    print(f"## The log: a run of {args.epochs} epochs\n\n{machine.name()}\n")
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.create_server(("127.0.0.1", 0), backlog=1000) as server,
    ):
        text, ratios = speed(args.rounds, args.epochs, Path(folder), server.getsockname()[1])
    print(text, flush=True)
    return ratios


if __name__ == "__main__":
    main()

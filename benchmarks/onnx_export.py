"""Live predictions in torch, in ONNX Runtime, and there in int8: time for a piece of 20 ms, and differences.

    python -m benchmarks.onnx_export [CHECKPOINT] [--minutes 5]

One core, pieces in turns, each with the same audio and voice activity. CHECKPOINT is a folder; without one, a
network of the paper's size on an encoder of the published one's, both untrained, which takes the same time.
Also prints the processor time that the thread took, which a busy machine changes less.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks import machine
from examples.onnx_live import Model
from vap_pipeline.encoders import cpc_weights
from vap_pipeline.models.network import ModelConfig, ProjectionModel
from vap_pipeline.predict.export import export, quantised
from vap_pipeline.predict.loading import load
from vap_pipeline.predict.predictor import Predictor

PIECE_FRAMES, PIECE_SAMPLES, PIECES_PER_MINUTE = 2, 320, 3000
WARM_UP_PIECES = 100


class Listed:
    """A detector that knows the voice activity (frames, 2)."""

    def __init__(self, va: np.ndarray) -> None:
        self.va, self.frame = va, 0

    def push(self, samples: torch.Tensor) -> np.ndarray:
        first, self.frame = self.frame, self.frame + samples.shape[1] // 160
        return self.va[first : self.frame]


def untrained() -> Predictor:
    """Return a model of the paper's size."""
    torch.manual_seed(0)
    encoder, _ = cpc_weights.load("random")
    return Predictor("untrained", ProjectionModel(ModelConfig()).eval(), {}, encoder)


def call(frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Return noise in turns, samples (frames * 160, 2), and its voice activity (frames, 2)."""
    rng = np.random.default_rng(0)
    va = (np.repeat(rng.random((frames // 100 + 1, 2)), 100, axis=0)[:frames] < 0.45).astype(np.uint8)
    samples = rng.standard_normal((frames * 160, 2), np.float32) * 0.1
    return samples * (0.01 + va.repeat(160, axis=0)).astype(np.float32), va


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.onnx_export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", nargs="?")
    parser.add_argument("--minutes", type=float, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    predictor = load(args.checkpoint) if args.checkpoint else untrained()
    n = round(args.minutes * PIECES_PER_MINUTE)
    samples, va = call(n * PIECE_FRAMES)
    assert isinstance(predictor, Predictor)
    stream, exported = predictor.stream(detector=lambda: Listed(va)), export(predictor)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("float.onnx", "int8.onnx")]
        for path, model in zip(paths, (exported, quantised(exported)), strict=True):
            path.write_bytes(model.SerializeToString())
        models, sizes = [Model(path) for path in paths], [path.stat().st_size / 1e6 for path in paths]
    shifted = np.concatenate([np.zeros((1, 2), np.uint8), va])
    works: list[Callable[[int], dict[str, np.ndarray]]] = [
        lambda i: stream.push(samples[i * PIECE_SAMPLES : (i + 1) * PIECE_SAMPLES]),
        *(
            lambda i, model=model: model.push(
                np.ascontiguousarray(samples[i * PIECE_SAMPLES : (i + 1) * PIECE_SAMPLES].T),
                shifted[i * PIECE_FRAMES : (i + 1) * PIECE_FRAMES],
            )
            for model in models
        ),
    ]
    wall_ms, cpu_ms, p_a = np.zeros((3, n)), np.zeros((3, n)), [[], [], []]  # type: ignore[var-annotated]
    for i in range(n):
        for k, work in enumerate(works):
            start, start_cpu = time.perf_counter(), time.thread_time()
            frames = work(i)
            wall_ms[k, i] = 1e3 * (time.perf_counter() - start)
            cpu_ms[k, i] = 1e3 * (time.thread_time() - start_cpu)
            p_a[k].append(frames["p_a"])
    expected, *others = (np.concatenate(values) for values in p_a)
    rows = []
    for k, name in enumerate(("torch", "ONNX", "ONNX int8")):
        times = [f(ms[k, WARM_UP_PIECES:]) for ms in (wall_ms, cpu_ms) for f in (np.median, _p99)]
        change = np.abs(others[k - 1][1:][: len(expected)] - expected) if k else np.zeros(1)
        size = f"{sizes[k - 1]:.1f}" if k else ""
        rows.append([name, *map(float, times), size, f"{change.mean():.1e}", f"{change.max():.1e}"])
    print(f"## {args.checkpoint or 'untrained'}, {args.minutes:g} min\n\n{machine.name()}\n")
    head = ["", "median ms", "p99 ms", "median CPU ms", "p99 CPU ms", "MB", "mean change of p_a", "largest"]
    print(machine.table(head, rows))


def _p99(values: np.ndarray) -> float:
    return float(np.percentile(values, 99))


if __name__ == "__main__":
    main()

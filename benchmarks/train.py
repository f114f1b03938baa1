"""Stage two: a full-size training step from the store, against the step as published and the matrix products.

    python -m benchmarks.train [--rounds 5] [--batch 8] [--growth]

The published step encodes the batch's 10 s windows with the frozen network, then trains a transformer whose
attention fills a matrix and masks it. Ours reads the features from a store that is not in the page cache, ten
times as large as what is read of it. Both make labels, gradients of the same weights, and a step of AdamW.
The operations counted are the transformer's own: matrix products forwards, and twice that backwards; half of
the attention's matrix, which is all that a causal model needs.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import machine
from benchmarks.extract import WINDOW_S, peer
from vap_pipeline.artefacts import store
from vap_pipeline.artefacts.windows import Batch, Windows, activity, inputs
from vap_pipeline.audio.rates import SAMPLE_RATE_HZ
from vap_pipeline.encoders.cpc_weights import random
from vap_pipeline.models.layers import Attend, Layer
from vap_pipeline.models.network import ModelConfig, ProjectionModel
from vap_pipeline.runtime import memory
from vap_pipeline.train.batches import Plan, pieces, read
from vap_pipeline.turn_taking import projection
from vap_pipeline.turn_taking.events import lengths

CONVERSATION_S = 300


class ExplicitLayer(Layer):
    """A layer whose attention makes the whole matrix of scores and masks what lies ahead; torch's dropout."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__(width, heads, feedforward, dropout)
        self.dropout = nn.Dropout(dropout)

    def attention(self, x: Tensor, attend: Attend) -> Tensor:
        q, k, v = self.query_key_value(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
        weights = self.dropout(scores.masked_fill(ahead, -torch.inf).softmax(-1))
        return self.attention_out((weights @ v).transpose(1, 2).flatten(-2))


def gflop(config: ModelConfig, frames: int = lengths().window) -> float:
    """Operations of a training step on one window of so many frames; a third of them forwards."""
    linear = (4 * config.width + 2 * config.feedforward) * config.width * config.layers
    linear += (2 + 5 + projection.OUTPUTS[config.model]) * config.width
    attention = config.layers * config.width * frames  # two products with half of a (frames, frames) matrix
    return 3 * 2 * frames * (linear + attention) / 1e9


def step(model: ProjectionModel, bfloat16: bool = False) -> Callable[[Batch], None]:
    """Everything in a step that comes after the data; ``bfloat16`` as Accelerate's mixed precision has it."""
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    name = model.config.model

    def work(batch: Batch) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = model(*inputs(batch))
        projection.loss(logits.float(), projection.labels(activity(batch), name), name).backward()
        optimizer.step()
        optimizer.zero_grad()

    return work


def write_store(path: Path, conversations: int, seconds: int) -> list[str]:
    """Write a store of random features and activity; return the names of its conversations."""
    generator = np.random.default_rng(0)
    writer = store.create(path, {"dim": 256, "encoder": {}})
    names = [f"c{i}" for i in range(conversations)]
    for name in names:
        frames = seconds * 100 + 1
        features = generator.standard_normal((frames, 256), np.float32).astype(np.float16)
        writer.write(name, features, (generator.random((frames, 2)) < 0.4).astype(np.uint8))
    return names


def growth(folder: Path, batch: int) -> tuple[str, machine.Row]:
    """The table of an epoch's time over the number of conversations, for a model of the sample's size."""
    names = write_store(folder / "features.zarr", 1000, seconds=30)
    train = step(ProjectionModel(ModelConfig(width=32, layers=1, heads=1, feedforward=64)))
    rows = list[list[float]]()
    for n in (10, 100, 1000):
        start = time.perf_counter()
        windows = Windows(store.open_store(folder / "features.zarr"), names[:n])
        opened = time.perf_counter()
        plan = Plan(len(windows), batch, 0.0, 0)
        for i in range(plan.steps_per_epoch):
            train(windows.batch(plan(i)[0]))
        epoch = time.perf_counter() - opened
        rows.append([n, len(windows), opened - start, epoch, 1000 * epoch / len(windows)])
    head = ["conversations", "windows", "opening, s", "an epoch, s", "a window, ms"]
    few, many = rows[0][-1], rows[-1][-1]
    row = "ms to train on a window, of 1,000 conversations against of 10", f"{many:.1f}", f"{few:.1f}"
    return machine.table(head, rows), machine.Row(*row, many / few, "about 1")


def speed(rounds: int, batch: int, folder: Path) -> tuple[str, list[machine.Row]]:
    """The table of a training step, and its ratios."""
    memory.keep()  # for the published step too
    torch.manual_seed(0)
    config = ModelConfig()
    ours, published = ProjectionModel(config), ProjectionModel(config)
    published.layers = nn.ModuleList(
        ExplicitLayer(config.width, config.heads, config.feedforward, config.dropout) for _ in ours.layers
    )
    published.dropout = nn.Dropout(config.dropout)
    published.load_state_dict(ours.state_dict())
    train_ours, train_published, train_bfloat16 = step(ours), step(published), step(ours, bfloat16=True)
    who, encoder = peer(random(0))
    audio = torch.randn(batch, WINDOW_S * SAMPLE_RATE_HZ)

    path = folder / "features.zarr"
    read_windows = (rounds + 1) * batch
    names = write_store(path, 1 + 10 * read_windows // (CONVERSATION_S // 8), CONVERSATION_S)
    windows = Windows(store.open_store(path), names)
    machine.drop_cache(path)
    plan = Plan(len(windows), batch, 0.0, 0)
    batches = read(
        windows,
        lambda: (piece for i in range(rounds + 1) for piece in pieces(*plan(i), 1)),
        workers=0,
        device=torch.device("cpu"),
    )
    waited: list[float] = []
    last: Batch = {}

    def from_store() -> None:
        nonlocal last
        start = time.perf_counter()
        _, last = next(batches)
        waited.append(time.perf_counter() - start)
        train_ours(last)

    def as_published() -> None:
        with torch.no_grad():
            features = encoder(audio)
        train_published(last | {"features": features})

    works = {
        "machine": machine.matmul(),
        "ours": from_store,
        "bfloat16": lambda: train_bfloat16(last),
        "published": as_published,
        "encode": lambda: encoder(audio),
    }
    with torch.inference_mode():
        encoder(audio)
    taken = machine.in_turns(works, rounds)

    flop = gflop(config) * batch
    limit = [machine.MATMUL_FLOP / s / 1e9 for s in taken["machine"]]
    rows = []
    for what, key in (
        (f"as published: {who}, then attention with a mask", "published"),
        ("of which encoding", "encode"),
        ("ours: from the store", "ours"),
        ("ours, --mixed_precision bf16", "bfloat16"),
    ):
        row: list[object] = [what, median(taken[key]), batch / median(taken[key])]
        rows.append([*row, machine.ratio(taken["published"], taken[key])])
    rate = [flop / s for s in taken["ours"]]
    waits = [wait / s for wait, s in zip(waited[1:], taken["ours"], strict=True)]
    text = (
        f"{machine.table(['', 'seconds', 'windows a second', 'times as fast as published'], rows)}\n\n"
        f"{rounds} rounds of {batch} windows, {torch.get_num_threads()} threads; {gflop(config):.1f} GFLOP a "
        f"window; ours at {median(rate):.0f} GFLOP/s, {100 * machine.ratio(rate, limit):.0f}% of the matrix "
        f"products at {median(limit):.0f} GFLOP/s\n"
        f"waiting for data that is not in the page cache: {100 * median(waits):.1f}% of a step"
    )
    share = machine.ratio(rate, limit)
    step_s, published_s = (f"{median(taken[key]):.2f}" for key in ("ours", "published"))
    times = machine.ratio(taken["published"], taken["ours"])
    return text, [
        machine.Row(f"stage two, s for a step of {batch}, as published", step_s, published_s, times, "≥ 5"),
        machine.Row(
            "stage two, GFLOP/s, of matrix products alone",
            *(f"{median(rate):.0f}", f"{median(limit):.0f}"),
            share,
            "≥ 0.4",
        ),
        machine.Row(
            "stage two, s that a step waits for data",
            *(f"{median(waited[1:]):.3f}", step_s),
            median(waits),
            "< 0.05",
        ),
    ]


def main(argv: list[str] | None = None) -> list[machine.Row]:
    """Print the tables; return the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8, help="windows in a step (%(default)s)")
    parser.add_argument("--growth", action="store_true", help="also an epoch of 10, 100, 1,000 conversations")
    args = parser.parse_args(argv)
    print(f"## Stage two: a training step\n\n{machine.name()}\n")
    with tempfile.TemporaryDirectory() as folder:
        text, ratios = speed(args.rounds, args.batch, Path(folder))
        print(text, flush=True)
    if args.growth:
        with tempfile.TemporaryDirectory() as folder:
            text, ratio = growth(Path(folder), args.batch)
            print(f"\n{text}")
            ratios.append(ratio)
    return ratios


if __name__ == "__main__":
    main()

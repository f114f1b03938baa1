"""The stereo model: a training step at 50 Hz against one as published, and what a frame costs live.

    python -m benchmarks.stereo

As published, a step encodes the audio of both channels, and attention makes the whole matrix of scores, for
which 8 windows take some 20 GB. Live, a piece is 20 ms of both speakers, and one core computes.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median, quantiles

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import machine
from benchmarks.extract import peer
from vap_pipeline.audio.rates import SAMPLE_RATE_HZ
from vap_pipeline.encoders.cpc_weights import random
from vap_pipeline.models.config import ModelConfig
from vap_pipeline.models.layers import Attend, alibi_slopes
from vap_pipeline.models.network import ProjectionModel
from vap_pipeline.models.stereo import Hidden, StereoModel, StereoTrunk
from vap_pipeline.models.stereo_stream import StereoStream
from vap_pipeline.models.stream import Stream
from vap_pipeline.runtime import memory
from vap_pipeline.turn_taking import projection

WINDOW_S = 20
CONTEXT_S = 10.0  # of the live models
PIECES = 1000  # timed after the caches are full
PIECE_FRAMES = 2  # of 10 ms


class ExplicitTrunk(StereoTrunk):
    """A trunk whose attention makes the whole matrix of scores and drops some of its weights."""

    def forward(self, features: Tensor, context_frames: int | None = None) -> Hidden:
        x = self.downsample(features.flatten(0, 1))
        return self.transform(x, [self._attention(x.shape[1])] * self.attentions)

    def _attention(self, frames: int) -> Attend:
        frame = torch.arange(frames)
        bias = alibi_slopes(self.config.heads)[:, None, None] * frame
        ahead = frame > frame[:, None]

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            scores = q @ k.mT * self.scale + bias
            weights = scores.masked_fill(ahead, -torch.inf).softmax(-1)
            return F.dropout(weights, self.config.dropout) @ v

        return attend


def step(model: StereoModel, batch: int) -> Callable[[Tensor], None]:
    """Everything in a step that comes after the features."""
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    frames = round(WINDOW_S * model.config.rate_hz)
    classes = torch.randint(0, 256, (batch, frames))
    active = (torch.rand(batch, frames, 2) < 0.4).float()

    def work(features: Tensor) -> None:
        logits, activity = model(features)
        loss = projection.loss(logits, classes, "discrete")
        (loss + F.binary_cross_entropy_with_logits(activity, active)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return work


def training(rounds: int, batch: int) -> tuple[str, machine.Row]:
    """The table of a training step, and its ratio."""
    memory.keep()
    torch.manual_seed(0)
    config = ModelConfig(trunk="stereo")
    ours, published = StereoModel(config), StereoModel(config)
    published.trunk = ExplicitTrunk(config)
    for module in list(published.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, nn.Dropout(child.p))  # torch's own
    train_ours, train_published = step(ours, batch), step(published, batch)
    who, encoder = peer(random(0))
    audio = torch.randn(2 * batch, WINDOW_S * SAMPLE_RATE_HZ)
    features = torch.randn(batch, 2, WINDOW_S * 100, config.input_dim)

    def as_published() -> None:
        with torch.no_grad():
            encoded = encoder(audio)
        train_published(encoded.unflatten(0, (batch, 2)))

    taken = machine.in_turns({"ours": lambda: train_ours(features), "published": as_published}, rounds)
    times = machine.ratio(taken["published"], taken["ours"])
    ours_s, published_s = median(taken["ours"]), median(taken["published"])
    rows = [(f"as published: {who}, whole matrices of scores", published_s, 1.0), ("ours", ours_s, times)]
    text = machine.table(["", "seconds", "times as fast"], rows)
    what = f"stereo, s for a step of {batch}, as published"
    return text, machine.Row(what, f"{ours_s:.2f}", f"{published_s:.2f}", times, "≥ 3")


@torch.inference_mode()
def live() -> str:
    """The table of what 20 ms of conversation cost on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    x, va, history = (
        torch.randn(2, PIECE_FRAMES, 256),
        torch.ones(PIECE_FRAMES, 2),
        torch.rand(PIECE_FRAMES, 5),
    )
    works: dict[str, Callable[[], object]] = {}
    mono = Stream(ProjectionModel(ModelConfig()).eval(), round(CONTEXT_S * 100))
    works["mono, 100 Hz"] = lambda: mono.step(x[0], va, history)
    for rate_hz in (100.0, 50.0):
        model = StereoModel(ModelConfig(trunk="stereo", frame_rate_hz=rate_hz)).eval()
        stream = StereoStream(model, CONTEXT_S)
        works[f"stereo, {rate_hz:g} Hz"] = partial(stream.step, x)
    rows = []
    for what, work in works.items():
        for _ in range(round(CONTEXT_S * 100) // PIECE_FRAMES):
            work()
        taken_ms = []
        for _ in range(PIECES):
            start = time.process_time()  # of this process alone, whatever else runs
            work()
            taken_ms.append(1000 * (time.process_time() - start))
        rows.append((what, quantiles(taken_ms, n=10)[0], median(taken_ms), quantiles(taken_ms, n=100)[98]))
    torch.set_num_threads(threads)
    return machine.table(["20 ms live, ms", "best tenth", "median", "99 of 100"], rows)


def main(argv: list[str] | None = None) -> list[machine.Row]:
    """Print the tables; return the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8, help="windows in a step (%(default)s)")
    args = parser.parse_args(argv)
    print(f"## The stereo model\n\n{machine.name()}\n\n{live()}\n", flush=True)
    text, row = training(args.rounds, args.batch)
    print(text)
    return [row]


if __name__ == "__main__":
    main()

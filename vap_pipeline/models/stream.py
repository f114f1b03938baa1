"""The network over recordings of any length: live, frame by frame, and the same offline in windows.

Its positions are absolute, so its window cannot slide. A window of ``context`` frames is started anew every
half context instead, and a frame gets its output from the window in which it is in the second half (in the
first half of the recording's first window, from that one). So a frame sees between a half and a whole context
of the past, and all that it sees is the window's.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vap_pipeline.models.network import ProjectionModel, positions

BATCH_WINDOWS = 8  # computed at once offline
CATCH_UP_FRAMES = 16  # after which the next window of a stream is advanced


def predict_blocks(
    model: ProjectionModel, features: Iterable[Tensor], va: Tensor, history: Tensor, context: int
) -> Iterator[Tensor]:
    """Yield the logits (any, outputs) of a recording's frames in order, in bounded memory.

    Args:
        features: blocks (any, dim) in order.
        va, history: (frames, 2) and (frames, 5) of the whole recording, float32.
        context: frames of a window, an even number.
    """
    half, held, first, out = (
        context // 2,
        None,
        0,
        0,
    )  # held: features from frame `first` on; out: next to yield
    for block in chain(features, [None]):
        if block is not None:
            held = block.float() if held is None else torch.cat([held, block.float()])
        if held is None:
            return
        available = first + len(held)
        starts: list[int] = []
        while out < available:
            start = max(out - half, 0)
            if start + context > available and block is not None:
                break
            starts.append(start)
            out = start + context
        for batch in (starts[i : i + BATCH_WINDOWS] for i in range(0, len(starts), BATCH_WINDOWS)):
            ends = [min(start + context, available) for start in batch]
            x, activity, past = (
                torch.stack(
                    [
                        F.pad(rows[a - o : b - o], (0, 0, 0, context - b + a))
                        for a, b in zip(batch, ends, strict=True)
                    ]
                )
                for rows, o in ((held, first), (va, 0), (history, 0))
            )
            logits = model(x, activity, past)
            for row, start, end in zip(logits, batch, ends, strict=True):
                yield row[half if start else 0 : end - start]
        kept = max(min(out, available) - half, 0)
        held, first = held[kept - first :], kept


class Stream:
    """The network frame by frame, with the keys and values of its windows cached: constant work and memory.

    Two windows overlap: one gives the outputs, the next one is half a context behind it. The next one is
    advanced in larger steps, which read its weights less often.

    Args:
        model: in evaluation mode.
        context: frames of a window, an even number.
    """

    def __init__(self, model: ProjectionModel, context: int) -> None:
        self.model, self.half = model, context // 2
        self._windows = [_Window(model, context), _Window(model, context)]
        self._pending: list[Tensor] = []  # inputs that the next window has not seen yet
        self._frame = 0

    @torch.inference_mode()
    def step(self, features: Tensor, va: Tensor, history: Tensor) -> Tensor:
        """Return the logits (n, outputs) of the next frames: features (n, dim), va (n, 2), history (n, 5)."""
        model = self.model
        x = model.feature(features) + model.norm_activity(model.voice_activity(va) + model.history(history))
        parts = []
        while len(x):
            place = self._frame % self.half
            if place == 0 and self._frame >= self.half:
                self._hand_over()
            part, x = x[: self.half - place], x[self.half - place :]
            self._frame += len(part)
            parts.append(self._windows[0].advance(part))
            if self._frame > self.half:
                self._pending.append(part)
                if sum(map(len, self._pending)) >= CATCH_UP_FRAMES:
                    self._catch_up()
        return model.head(model.norm(torch.cat(parts) if parts else x.new_zeros(0, model.config.width)))

    def _hand_over(self) -> None:
        """Let the next window give the outputs, and start another after it."""
        if self._frame > self.half:
            self._catch_up()
            self._windows.reverse()
        self._windows[1].frames = 0

    def _catch_up(self) -> None:
        if self._pending:
            self._windows[1].advance(torch.cat(self._pending))
            self._pending.clear()


class _Window:
    """A window that grows: its keys and values of every layer."""

    def __init__(self, model: ProjectionModel, context: int) -> None:
        config, parameter = model.config, next(model.parameters())
        shape = (config.heads, context, config.width // config.heads)
        self.layers: list[Any] = list(model.layers)
        self.cache = [(parameter.new_zeros(shape), parameter.new_zeros(shape)) for _ in model.layers]
        self.positions = positions(context, config.width, parameter.device)
        self.frames = 0  # so far

    def advance(self, x: Tensor) -> Tensor:
        """Return the last layer's output (n, width) for the next inputs (n, width)."""
        start, end = self.frames, self.frames + len(x)
        x = x + self.positions[start:end]
        seen = torch.arange(end) <= torch.arange(start, end)[:, None] if len(x) > 1 else None
        for layer, (keys, values) in zip(self.layers, self.cache, strict=True):
            parts = layer.query_key_value(layer.norm_attention(x)).unflatten(-1, (3, layer.heads, -1))
            q, keys[:, start:end], values[:, start:end] = parts.permute(1, 2, 0, 3)  # (heads, n, …) each
            y = F.scaled_dot_product_attention(q[None], keys[None, :, :end], values[None, :, :end], seen)[0]
            x = x + layer.attention_out(y.transpose(0, 1).flatten(1))
            x = x + layer.feedforward_out(F.gelu(layer.feedforward_in(layer.norm_feedforward(x))))
        self.frames = end
        return x

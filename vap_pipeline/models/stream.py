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
CATCH_UP_FRAMES = 8  # that the newer window of a stream takes at a time


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

    Two windows overlap: the older one gives the outputs, the newer one is half a context behind it. The newer
    one takes several frames at a time, together with the older one's next frames, so that the network's
    weights are read once for both.

    Args:
        model: in evaluation mode.
        context: frames of a window, an even number.
    """

    def __init__(self, model: ProjectionModel, context: int) -> None:
        config, parameter = model.config, next(model.parameters())
        self.model, self.half = model, context // 2
        self._layers: list[Any] = list(model.layers)
        # (windows, layers, keys and values, heads, context, width of a head)
        shape = (2, config.layers, 2, config.heads, context, config.width // config.heads)
        self._cache = parameter.new_zeros(shape)
        self._positions = positions(context, config.width, parameter.device)
        self._pending: list[Tensor] = []  # inputs that the newer window has not taken yet
        self._frame = 0

    @torch.inference_mode()
    def step(self, features: Tensor, va: Tensor, history: Tensor) -> Tensor:
        """Return the logits (n, outputs) of the next frames: features (n, dim), va (n, 2), history (n, 5)."""
        model = self.model
        x = model.feature(features) + model.norm_activity(model.voice_activity(va) + model.history(history))
        parts = [x[:0]]
        while len(x):
            segment, place = divmod(self._frame, self.half)
            part, x = x[: self.half - place], x[self.half - place :]
            self._frame, end = self._frame + len(part), place + len(part)
            if segment == 0:  # the first window is alone, and gives the outputs
                parts.append(self._advance([(0, place, part)]))
                continue
            work = [((segment - 1) % 2, self.half + place, part)]
            self._pending.append(part)
            waiting = sum(map(len, self._pending))
            if waiting >= CATCH_UP_FRAMES or end == self.half:
                work.append((segment % 2, end - waiting, torch.cat(self._pending)))
                self._pending.clear()
            parts.append(self._advance(work))
        return model.head(model.norm(torch.cat(parts)))

    def _advance(self, work: list[tuple[int, int, Tensor]]) -> Tensor:
        """Give windows their next inputs: of every window its number, its frames so far, and (n, width).

        Returns the last layer's output (n, width) of the first window.
        """
        x = torch.cat([part + self._positions[start : start + len(part)] for _, start, part in work])
        sizes = [len(part) for *_, part in work]
        masks = [
            F.pad(x.new_full((n, n), -torch.inf).triu(1), (start, 0))
            for n, (_, start, _) in zip(sizes, work, strict=True)
        ]
        for i, layer in enumerate(self._layers):
            parts = layer.query_key_value(layer.norm_attention(x)).unflatten(-1, (3, layer.heads, -1))
            parts, attended = parts.permute(1, 2, 0, 3), []  # (3, heads, frames, width of a head)
            for part, mask, (window, start, _) in zip(parts.split(sizes, dim=2), masks, work, strict=True):
                cache = self._cache[window, i, :, None, :, : mask.shape[1]]
                cache[:, 0, :, start:] = part[1:]
                keys, values = cache
                attended.append(F.scaled_dot_product_attention(part[:1], keys, values, mask)[0])
            x = x + layer.attention_out(torch.cat(attended, dim=1).transpose(0, 1).flatten(1))
            x = x + layer.feedforward_out(F.gelu(layer.feedforward_in(layer.norm_feedforward(x))))
        return x[: sizes[0]]

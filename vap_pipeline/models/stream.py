"""The network over recordings of any length: live, frame by frame, and the same offline in windows.

Its positions are absolute, so its window cannot slide. A window of ``context`` frames is started anew every
half context instead, and a frame gets its output from the window in which it is in the second half (in the
first half of the recording's first window, from that one). So a frame sees between a half and a whole context
of the past, and all that it sees is the window's.
"""

from collections.abc import Iterable, Iterator
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from vap_pipeline.models.network import ProjectionModel, positions

BATCH_WINDOWS = 8  # computed at once offline


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

    Two windows run side by side, the second half a context behind the first.

    Args:
        model: in evaluation mode.
        context: frames of a window, an even number.
    """

    def __init__(self, model: ProjectionModel, context: int) -> None:
        self.model, self.context, self.half = model, context, context // 2
        config, parameter = model.config, next(model.parameters())
        shape = (2, config.heads, context, config.width // config.heads)
        self._cache = [(parameter.new_zeros(shape), parameter.new_zeros(shape)) for _ in model.layers]
        self._positions = positions(context, config.width, parameter.device)
        self._frame = 0

    @torch.inference_mode()
    def step(self, features: Tensor, va: Tensor, history: Tensor) -> Tensor:
        """Return the logits (n, outputs) of the next frames: features (n, dim), va (n, 2), history (n, 5)."""
        parts = []
        while len(features):
            n = min(len(features), self.half - self._frame % self.half)
            parts.append(self._step(features[:n], va[:n], history[:n]))
            features, va, history = features[n:], va[n:], history[n:]
        if not parts:
            return self._positions.new_zeros(0, self.model.head.out_features)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _step(self, features: Tensor, va: Tensor, history: Tensor) -> Tensor:
        """Step over frames that are in the same half of a window."""
        model, n = self.model, len(features)
        newest, place = divmod(self._frame, self.half)  # number of the newest window, and the place in it
        slots = [newest % 2, 1 - newest % 2]  # windows take turns in two slots of the cache
        places = torch.empty(2, dtype=torch.long)
        places[slots[0]], places[slots[1]] = place, place + self.half
        older = slots[1] if newest else slots[0]
        rows = places[:, None] + torch.arange(n)
        x = model.feature(features) + model.norm_activity(model.voice_activity(va) + model.history(history))
        x = x + self._positions[rows]
        end = int(places.max()) + n
        seen = torch.arange(end) <= rows[:, None, :, None]  # (2, 1, n, end)
        for layer, (keys, values) in zip(model.layers, self._cache, strict=True):
            x = x + self._attention(layer, layer.norm_attention(x), keys, values, places.tolist(), seen)
            x = x + layer.feedforward_out(F.gelu(layer.feedforward_in(layer.norm_feedforward(x))))
        self._frame += n
        return model.head(model.norm(x[older]))

    @staticmethod
    def _attention(layer, x: Tensor, keys: Tensor, values: Tensor, places: list[int], seen: Tensor) -> Tensor:
        n, end = x.shape[1], seen.shape[-1]
        parts = layer.query_key_value(x).unflatten(-1, (3, layer.heads, -1)).unbind(2)  # (2, n, heads, …)
        q, k, v = (part.transpose(1, 2) for part in parts)
        for slot, place in enumerate(places):
            keys[slot, :, place : place + n], values[slot, :, place : place + n] = k[slot], v[slot]
        x = F.scaled_dot_product_attention(q, keys[:, :, :end], values[:, :, :end], attn_mask=seen)
        return layer.attention_out(x.transpose(1, 2).flatten(-2))

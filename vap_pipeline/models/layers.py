"""Causal transformer layers, and the attention that they share: positions, and a limit of context."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POSITIONS = ("sinusoidal", "alibi")
FARTHEST_PENALTY = 64.0  # of ALiBi; keys beyond it are left out

# Queries, keys and values (N, heads, T, dim) in, (N, heads, T, dim) out.
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class Dropout(nn.Dropout):
    """Dropout that costs a seventh on a CPU: it draws 16 random bits per element, where torch draws a double.

    The probability is rounded to 1/65,536.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return x with elements dropped and the others scaled up; in evaluation mode, x."""
        if not self.training or x.device.type != "cpu":
            return super().forward(x)
        dropped = min(round(self.p * 2**16), 2**16 - 1)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = bits.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - 2**15
        return x * (kept * (2**16 / (2**16 - dropped)))


class Layer(nn.Module):
    """Causal self-attention and a feed-forward net, both with pre-norm and a residual connection.

    Dropout is applied as in "Attention is all you need", section 5.4: to the output of a sublayer, not to the
    attention weights, so that the attention can stay fused.

    Args:
        bias: whether the linear maps have biases.
        inner_dropout: apply dropout between the two maps of the feed-forward net, too.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        feedforward: int,
        dropout: float,
        *,
        bias: bool = True,
        inner_dropout: bool = False,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width, bias=bias)
        self.attention_out = nn.Linear(width, width, bias=bias)
        self.norm_feedforward = nn.LayerNorm(width)
        self.feedforward_in = nn.Linear(width, feedforward, bias=bias)
        self.feedforward_out = nn.Linear(feedforward, width, bias=bias)
        self.dropout: nn.Dropout = Dropout(dropout)
        self.inner_dropout: nn.Module = Dropout(dropout) if inner_dropout else nn.Identity()

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        """Map (N, T, width) to (N, T, width)."""
        return self.fed_forward(self.attended(x, attend))

    def attended(self, x: Tensor, attend: Attend) -> Tensor:
        """Add self-attention."""
        return x + self.dropout(self.attention(self.norm_attention(x), attend))

    def attention(self, x: Tensor, attend: Attend) -> Tensor:
        """Map the normed (N, T, width) to what self-attention adds."""
        q, k, v = split_heads(self.query_key_value(x), 3, self.heads)
        return self.attention_out(join_heads(attend(q, k, v)))

    def fed_forward(self, x: Tensor) -> Tensor:
        """Add the feed-forward net."""
        inner = self.inner_dropout(F.gelu(self.feedforward_in(self.norm_feedforward(x))))
        return x + self.dropout(self.feedforward_out(inner))


class StereoLayer(Layer):
    """A layer for two channels, with cross-attention between self-attention and the feed-forward net.

    The query comes from the own channel; keys and values come from the other channel's input to the layer,
    which is not normed.
    """

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__(width, heads, feedforward, dropout, bias=False, inner_dropout=True)
        self.norm_cross = nn.LayerNorm(width)
        self.cross_query = nn.Linear(width, width, bias=False)
        self.cross_key_value = nn.Linear(width, 2 * width, bias=False)
        self.cross_out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, attend: Attend, attend_other: Attend | None = None) -> Tensor:
        """Map (2·B, T, width) to the same shape; the two channels of an example are neighbours.

        Args:
            attend_other: the cross-attention, if it differs from the self-attention (each has its own cache).
        """
        k, v = split_heads(self.cross_key_value(exchanged(x)), 2, self.heads)
        x = self.attended(x, attend)
        (q,) = split_heads(self.cross_query(self.norm_cross(x)), 1, self.heads)
        x = x + self.dropout(self.cross_out(join_heads((attend_other or attend)(q, k, v))))
        return self.fed_forward(x)


def exchanged(x: Tensor) -> Tensor:
    """Exchange neighbours along the first dimension, (2·B, …): the two channels of every example."""
    return x.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)


def split_heads(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """Cut (N, T, parts · width) into ``parts`` tensors (N, heads, T, width / heads)."""
    return tuple(part.transpose(1, 2) for part in x.unflatten(-1, (parts, heads, -1)).unbind(2))


def join_heads(x: Tensor) -> Tensor:
    """Map (N, heads, T, dim) to (N, T, heads · dim)."""
    return x.transpose(1, 2).flatten(-2)


def attention(scale: float | None, bias: Tensor | None) -> Attend:
    """Return the attention of whole windows; without a bias, every frame sees itself and all before it.

    Args:
        scale: of the scores q·k; None for one over the root of a head's width.
        bias: of :func:`attention_bias`.
    """

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = None if bias is None else bias.to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, mask, is_causal=bias is None, scale=scale)

    return attend


def attention_bias(ages: Tensor, slopes: Tensor | None = None, context_frames: int | None = None) -> Tensor:
    """Return what is added to the scores: a penalty for distance, and −∞ for keys that are not seen.

    Args:
        ages: (queries, keys) int64, how many frames a key is older than the query. Below 0 it is in the
            future.
        slopes: of ALiBi, (heads,); None without ALiBi.
        context_frames: how many frames a query sees, its own included; None for all.

    Returns:
        (1, heads or 1, queries, keys) float32; of four dimensions, so that the attention stays fused on CPUs.
    """
    hidden = ages < 0 if context_frames is None else (ages < 0) | (ages >= context_frames)
    if slopes is None:
        return torch.zeros(ages.shape, device=ages.device).masked_fill_(hidden, -math.inf)[None, None]
    # Beyond it a key weighs less than e^-64 of the present frame with the same q·k. Such a weight changes no
    # digit of a sum, but products with it are denormal numbers, which halve the speed of attention on a CPU.
    penalty = slopes[None, :, None, None] * ages
    return (-penalty).masked_fill_(hidden | (penalty > FARTHEST_PENALTY), -math.inf)


def alibi_slopes(heads: int, device: torch.device | None = None) -> Tensor:
    """Return the slopes 2^(−8i/heads), i = 1 … heads (Press et al., "Train short, test long", ICLR 2022)."""
    return torch.exp2(-8 / heads * torch.arange(1, heads + 1, device=device))


def window_attention(
    frames: int,
    heads: int,
    device: torch.device,
    *,
    alibi: bool,
    context_frames: int | None = None,
    scale: float | None = None,
) -> Attend:
    """Return the causal attention of windows of ``frames`` frames, with ALiBi or a limit of context."""
    if not alibi and (context_frames is None or context_frames >= frames):
        return attention(scale, None)
    frame = torch.arange(frames, device=device)
    slopes = alibi_slopes(heads, device) if alibi else None
    return attention(scale, attention_bias(frame[:, None] - frame, slopes, context_frames))


def positions(frames: int, width: int, device: torch.device) -> Tensor:
    """Return the sinusoidal positions (frames, width) of "Attention is all you need", section 3.5."""
    frequency = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10000.0) / width))
    angle = torch.arange(frames, device=device)[:, None] * frequency
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)

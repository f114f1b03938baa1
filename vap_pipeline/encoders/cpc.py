"""The CPC encoder: five strided convolutions and a recurrent net, one feature per 10 ms of 16 kHz audio.

Rivière et al., "Unsupervised pretraining transfers well across languages" (ICASSP 2020, arXiv 2002.02848),
with the tensor names of its published checkpoint. Signals run time-major, (batch, time, channels): every
kernel is twice its stride, so a convolution is a filter of two taps, matrices, over views of its input whose
rows are a stride long.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDES, PADDINGS = (5, 4, 2, 2, 2), (3, 2, 1, 1, 1)
EPS = 1e-5
TILE = 6_400  # samples given to the first two layers at a time: what they make of them stays in the cache
RECURRENT: dict[str, Any] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}


@dataclass(frozen=True)
class Config:
    """What of the network varies, by its names in the published checkpoint's ``config``.

    Raises:
        ValueError: this network is not the one described; the message says where.
    """

    hiddenEncoder: int = 256
    hiddenGar: int = 256
    nLevelsGRU: int = 1
    arMode: str = "LSTM"
    normMode: str = "layerNorm"
    encoder_type: str = "cpc"

    def __post_init__(self) -> None:
        for name, lowest, highest in (
            ("hiddenEncoder", 2, 4096),
            ("hiddenGar", 1, 4096),
            ("nLevelsGRU", 1, 16),
        ):
            value = getattr(self, name)
            if type(value) is not int or not lowest <= value <= highest:
                raise ValueError(f"{name} is {value!r}, expected a number from {lowest} to {highest}")
        for name, known in (
            ("arMode", (*RECURRENT,)),
            ("normMode", ("layerNorm",)),
            ("encoder_type", ("cpc",)),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected {' or '.join(known)}")


class Layer(NamedTuple):
    """What a layer computes with, laid out once for a whole signal.

    Attributes:
        taps: three, expanded to (batch, stride * channels, width), as `_filter_in_pairs` takes them; of the
            first layer what `_filter_normed` takes.
        bias: of the convolution, (width,); of the first layer that of its norm.
        norm: what makes torch's layer norm the channel norm: shape, weight, bias, eps.
    """

    taps: tuple[Tensor, ...]
    bias: Tensor
    norm: tuple[tuple[int], Tensor, Tensor, float]


@dataclass
class State:
    """What the encoder keeps of a signal between two pieces of it.

    Attributes:
        inputs: of each layer, the end of its input that its next outputs need, (batch, time, channels).
        layers: what each computes with.
        hidden: of the recurrent net.
    """

    inputs: list[Tensor] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    hidden: Any = None


class CPCEncoder(nn.Module):
    """Audio (batch, samples) at 16 kHz to features (batch, samples // 160, hiddenGar)."""

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or Config()
        width, self.dim = self.config.hiddenEncoder, self.config.hiddenGar
        self.gEncoder = nn.Module()
        for i, stride in enumerate(STRIDES):
            self.gEncoder.add_module(f"conv{i}", nn.Conv1d(width if i else 1, width, 2 * stride, stride))
            self.gEncoder.add_module(f"batchNorm{i}", _ChannelNorm(width))
        recurrent = RECURRENT[self.config.arMode]
        self.gAR = nn.ModuleDict(
            {"baseNet": recurrent(width, self.dim, num_layers=self.config.nLevelsGRU, batch_first=True)}
        )

    def forward(self, audio: Tensor, state: State | None = None, last: bool = True) -> Tensor:
        """Encode whole signals, or the next pieces of signals.

        Args:
            audio: (batch, samples) at 16 kHz.
            state: what this method left there for the pieces before; an empty one for the first.
            last: whether the signals end here, beyond which every layer sees zeros.

        Returns:
            (batch, frames, dim): of a whole signal samples // 160 frames; of a piece what can be told so far.
        """
        state = state or State()
        x = self.convolve(audio, state, last)
        if not x.shape[1]:
            return x.new_zeros(len(x), 0, self.dim)
        x, state.hidden = self.gAR["baseNet"](x, state.hidden)
        return x

    def convolve(self, audio: Tensor, state: State, last: bool = True) -> Tensor:
        """Return what the convolutions make of it, (batch, frames, hiddenEncoder); as :meth:`forward`."""
        if not state.inputs:
            for i, padding in enumerate(PADDINGS):
                channels = getattr(self.gEncoder, f"conv{i}").in_channels
                state.inputs.append(audio.new_zeros(len(audio), padding, channels))
                state.layers.append(self._layer(i, len(audio)))
        tiles = audio[..., None].split(TILE, dim=1)
        wide = []
        for tile in tiles:
            ends = last and tile is tiles[-1]
            wide.append(_next(1, [_next(0, [tile], state, ends)], state, ends))
        x = _next(2, wide, state, last)
        for i in range(3, len(STRIDES)):
            x = _next(i, [x], state, last)
        return x

    def stream(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """Encode one signal that comes in pieces (samples,), in the memory that a piece takes.

        Yields features (frames, dim). How the signal was cut changes them by rounding only.
        """
        state, device = State(), next(self.parameters()).device
        for piece in pieces:
            yield self._encode(piece.to(device)[None], state, last=False)
        yield self._encode(torch.zeros(1, 0, device=device), state, last=True)

    @torch.inference_mode()  # which must not stay on while a generator waits
    def _encode(self, audio: Tensor, state: State, last: bool) -> Tensor:
        return self(audio, state, last)[0]

    def _layer(self, i: int, batch: int) -> Layer:
        conv, norm = getattr(self.gEncoder, f"conv{i}"), getattr(self.gEncoder, f"batchNorm{i}")
        if i == 0:
            taps = torch.cat([conv.weight[:, 0], conv.bias[:, None]], 1)
            centred = taps - taps.mean(0)
            covariance = centred.T @ centred / (len(taps) - 1)
            return Layer((covariance, centred * norm.weight[0]), norm.bias.flatten(), norm.terms())
        two = conv.weight.permute(2, 1, 0).reshape(2, -1, conv.out_channels)
        three = torch.cat([two, two.sum(0, keepdim=True)])[:, None].expand(-1, batch, -1, -1)
        return Layer(three.unbind(), conv.bias, norm.terms())


def _next(i: int, x: list[Tensor], state: State, last: bool) -> Tensor:
    """Convolution, channel norm and ReLU of layer ``i``, for what x, (batch, time, channels) each, adds.

    As few calls as can be: threads that encode side by side take turns at Python between any two.
    """
    layer, stride, held = state.layers[i], STRIDES[i], state.inputs[i]
    known = held.shape[1] + sum(part.shape[1] for part in x) + (PADDINGS[i] if last else 0)
    n = max(known // stride - 1, 0)
    parts = [held, *x]
    if zeros := PADDINGS[i] * last + n % 2 * stride:
        parts.append(held.new_zeros(len(held), zeros, held.shape[2]))
    joined = torch.cat(parts, dim=1)
    state.inputs[i] = joined[:, n * stride : known]
    if not n:
        return joined.new_zeros(len(joined), 0, len(layer.bias))
    if i == 0:  # rows are five samples: the sums would cost more than the product that they save
        rows = joined[:, : (n + 1) * stride, 0].unfold(1, 2 * stride, stride)
        return _filter_normed(rows, layer.taps, layer.bias).relu_()
    even = n + n % 2  # outputs, of which the last is left out again where it is one too many
    rows = joined[:, : (even + 1) * stride].view(len(joined), even + 1, -1)
    y = _filter_in_pairs(rows, layer.taps, layer.bias)[:, :n]
    return F.layer_norm(y, *layer.norm).relu_()


def _filter_normed(rows: Tensor, taps: tuple[Tensor, ...], bias: Tensor) -> Tensor:
    """Return the channel norm of a filter's outputs, (batch, n, width), at the price of the filter.

    Outputs are linear in a row and a one; so is what they are apart from their mean, and their variance is a
    quadratic form of these few numbers. Rows scaled by it give what is normed.

    Args:
        rows: (batch, n, k).
        taps: the covariance of the outputs' weights, their bias included, (k + 1, k + 1); and these weights
            less their mean, times the norm's, (width, k + 1).
        bias: of the norm, (width,).
    """
    covariance, centred = taps
    rows = F.pad(rows, (0, 1), value=1.0)
    variance = torch.linalg.vecdot(rows @ covariance, rows).clamp_min(0)
    scaled = rows * (variance + EPS).rsqrt()[..., None]
    return F.linear(scaled, centred, bias)


def _filter_in_pairs(rows: Tensor, taps: tuple[Tensor, ...], bias: Tensor) -> Tensor:
    """Return rows[t] @ taps[0] + rows[t + 1] @ taps[1] + bias, (batch, an even number n of t, width).

    Two outputs share what their common row gives to both, three products instead of four: the fast finite
    impulse response filter F(2, 2) of Winograd, "Arithmetic complexity of computations" (1980).

    Args:
        rows: (batch, n + 1, k).
        taps: the two and their sum, (batch, k, width) each.
        bias: (width,).
    """
    first, second, both = taps
    before, common, after = rows[:, :-2:2], rows[:, 1::2], rows[:, 2::2]
    shared = torch.baddbmm(bias, common, both)
    even = torch.baddbmm(shared, before - common, first)
    odd = torch.baddbmm(shared, after - common, second)
    return torch.stack((even, odd), dim=2).flatten(1, 2)


class _ChannelNorm(nn.Module):
    """Each time step of (batch, time, channels) less its mean, over its deviation; scaled and shifted."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1))

    def terms(self) -> tuple[tuple[int], Tensor, Tensor, float]:
        """Return shape, weight, bias and eps with which torch's layer norm does this."""
        # The variance is the unbiased one, c/(c-1) times the one that layer_norm divides by.
        channels = self.weight.shape[1]
        biased = (channels - 1) / channels
        return (channels,), self.weight.flatten() * biased**0.5, self.bias.flatten(), EPS * biased

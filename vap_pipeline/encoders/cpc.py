"""The CPC encoder: five strided convolutions and a recurrent net, one feature per 10 ms of 16 kHz audio.

Rivière et al., "Unsupervised pretraining transfers well across languages" (ICASSP 2020, arXiv 2002.02848),
with the tensor names of its published checkpoint. Signals are (batch, time, channels). Every kernel is twice
as long as its stride. So with the input cut into rows of one stride, output t of a convolution is
rows[t] @ taps[0] + rows[t + 1] @ taps[1] + bias.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDES, PADDINGS = (5, 4, 2, 2, 2), (3, 2, 1, 1, 1)
EPS = 1e-5
TILE_SAMPLES = 6_400  # for the first two layers at a time, so that their outputs stay in the cache
RECURRENT: dict[str, Any] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}


@dataclass(frozen=True)
class Config:
    """Kind and sizes of a network, by their names in the published checkpoint's ``config``.

    Raises:
        ValueError: another kind of network.
    """

    hiddenEncoder: int = 256
    hiddenGar: int = 256
    nLevelsGRU: int = 1
    arMode: str = "LSTM"
    normMode: str = "layerNorm"
    encoder_type: str = "cpc"

    def __post_init__(self) -> None:
        known = {"arMode": [*RECURRENT], "normMode": ["layerNorm"], "encoder_type": ["cpc"]}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected {' or '.join(values)}")


class Layer(NamedTuple):
    """The weights of a layer, arranged once for a whole signal.

    Attributes:
        taps: as `_filter_in_pairs` takes them; of the first layer, as `_filter_normed` does.
        bias: of the convolution, (width,); of the first layer, that of its norm.
        norm: shape, weight, bias and eps with which torch's layer norm is the channel norm.
    """

    taps: tuple[Tensor, ...]
    bias: Tensor
    norm: tuple[tuple[int], Tensor, Tensor, float]


@dataclass
class State:
    """The state of the encoder between two pieces of a signal.

    Attributes:
        inputs: for every layer, the end of its input that its next outputs need, (batch, time, channels).
        layers: their weights.
        hidden: the state of the recurrent net.
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
            state: of the pieces before, which this call updates; an empty one for the first piece.
            last: whether the signals end here; every layer is then padded with zeros.

        Returns:
            (batch, frames, dim): samples // 160 frames of a whole signal; of a piece, the frames that are
            complete by now.
        """
        state = state or State()
        x = self.convolve(audio, state, last)
        if not x.shape[1]:
            return x.new_zeros(len(x), 0, self.dim)
        x, state.hidden = self.gAR["baseNet"](x, state.hidden)
        return x

    def convolve(self, audio: Tensor, state: State, last: bool = True) -> Tensor:
        """Return the output of the convolutions, (batch, frames, hiddenEncoder), as :meth:`forward` does."""
        if not state.inputs:
            for i, padding in enumerate(PADDINGS):
                channels = getattr(self.gEncoder, f"conv{i}").in_channels
                state.inputs.append(audio.new_zeros(len(audio), padding, channels))
                state.layers.append(self._layer(i, len(audio)))
        tiles = audio[..., None].split(TILE_SAMPLES, dim=1)
        wide = []
        for tile in tiles:
            ends = last and tile is tiles[-1]
            wide.append(_next(1, [_next(0, [tile], state, ends)], state, ends))
        x = _next(2, wide, state, last)
        for i in range(3, len(STRIDES)):
            x = _next(i, [x], state, last)
        return x

    def stream(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """Encode one signal that comes in pieces (samples,); yield features (frames, dim).

        Memory is that of a piece. Where the signal is cut changes the features by rounding only.
        """
        state, device = State(), next(self.parameters()).device
        for piece in pieces:
            yield self._encode(piece.to(device)[None], state, last=False)
        yield self._encode(torch.zeros(1, 0, device=device), state, last=True)

    @torch.inference_mode()  # here, because in a generator it would stay on between two pieces
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
    """Run layer ``i`` on the new input x, (batch, time, channels) each; return the outputs now complete.

    It makes few calls, because threads that encode in parallel wait for each other between two calls.
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
    if i == 0:  # rows of five samples: the sums would cost more than the product that they save
        rows = joined[:, : (n + 1) * stride, 0].unfold(1, 2 * stride, stride)
        return _filter_normed(rows, layer.taps, layer.bias).relu_()
    even = n + n % 2  # outputs; an odd n drops the last
    rows = joined[:, : (even + 1) * stride].view(len(joined), even + 1, -1)
    y = _filter_in_pairs(rows, layer.taps, layer.bias)[:, :n]
    return F.layer_norm(y, *layer.norm).relu_()


def _filter_normed(rows: Tensor, taps: tuple[Tensor, ...], bias: Tensor) -> Tensor:
    """Return the channel norm of a filter's outputs, (batch, n, width), at the cost of the filter alone.

    Outputs less their mean are linear in a row with a 1 appended, and their variance is a quadratic form of
    it. So rows divided by the deviation give normed outputs.

    Args:
        rows: (batch, n, k).
        taps: the covariance of the outputs' weights and biases, (k + 1, k + 1); and these weights less their
            mean, times the norm's weights, (width, k + 1).
        bias: of the norm, (width,).
    """
    covariance, centred = taps
    rows = F.pad(rows, (0, 1), value=1.0)
    variance = torch.linalg.vecdot(rows @ covariance, rows).clamp_min(0)
    scaled = rows * (variance + EPS).rsqrt()[..., None]
    return F.linear(scaled, centred, bias)


def _filter_in_pairs(rows: Tensor, taps: tuple[Tensor, ...], bias: Tensor) -> Tensor:
    """Return rows[t] @ taps[0] + rows[t + 1] @ taps[1] + bias for t < n, an even number: (batch, n, width).

    Two outputs take three products instead of four: the fast finite impulse response filter F(2, 2) of
    Winograd, "Arithmetic complexity of computations" (1980).

    Args:
        rows: (batch, n + 1, k).
        taps: the two taps and their sum, (batch, k, width) each.
        bias: (width,).
    """
    first, second, both = taps
    before, common, after = rows[:, :-2:2], rows[:, 1::2], rows[:, 2::2]
    shared = torch.baddbmm(bias, common, both)
    even = torch.baddbmm(shared, before - common, first)
    odd = torch.baddbmm(shared, after - common, second)
    return torch.stack((even, odd), dim=2).flatten(1, 2)


class _ChannelNorm(nn.Module):
    """Standardise every time step of (batch, time, channels) over its channels; scale and shift it."""

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

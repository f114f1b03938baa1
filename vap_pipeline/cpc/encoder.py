"""The CPC encoder: five strided convolutions and a recurrent net, one feature per 10 ms of 16 kHz audio.

Rivière et al., "Unsupervised pretraining transfers well across languages" (ICASSP 2020, arXiv 2002.02848),
with the tensor names of its published checkpoint. Signals run time-major, (batch, time, channels): every
kernel is twice its stride, so a convolution is a filter of two taps, matrices, over views of its input whose
rows are a stride long.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SAMPLE_RATE = 16_000
HOP = 160  # samples per feature
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


@dataclass
class State:
    """What the encoder keeps of a signal between two pieces of it.

    Attributes:
        inputs: of each layer, the end of its input that its next outputs need, (batch, time, channels).
        matrices: of each layer, (3, stride * channels, width), as `_filter_in_pairs` takes them.
        hidden: of the recurrent net.
    """

    inputs: list[Tensor] = field(default_factory=list)
    matrices: list[Tensor] = field(default_factory=list)
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
                conv = getattr(self.gEncoder, f"conv{i}")
                state.inputs.append(audio.new_zeros(len(audio), padding, conv.in_channels))
                taps = conv.weight.permute(2, 1, 0).reshape(2, -1, conv.out_channels)
                state.matrices.append(torch.cat([taps, taps.sum(0, keepdim=True)]))
        tiles = audio[..., None].split(TILE, dim=1)
        wide = []
        for tile in tiles:
            ends = last and tile is tiles[-1]
            wide.append(self._layer(1, self._layer(0, tile, state, ends), state, ends))
        x = torch.cat(wide, dim=1)
        for i in range(2, len(STRIDES)):
            x = self._layer(i, x, state, last)
        return x

    def stream(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """Encode one signal that comes in pieces (samples,), in the memory that a piece takes.

        Yields features (frames, dim). How the signal was cut changes them by rounding only.
        """
        state, device = State(), next(self.parameters()).device
        for piece in pieces:
            yield self._next(piece.to(device)[None], state, last=False)
        yield self._next(torch.zeros(1, 0, device=device), state, last=True)

    @torch.inference_mode()  # which must not stay on while a generator waits
    def _next(self, audio: Tensor, state: State, last: bool) -> Tensor:
        return self(audio, state, last)[0]

    def _layer(self, i: int, x: Tensor, state: State, last: bool) -> Tensor:
        """Convolution, channel norm and ReLU of layer ``i``, for what x (batch, time, channels) adds."""
        conv, norm = getattr(self.gEncoder, f"conv{i}"), getattr(self.gEncoder, f"batchNorm{i}")
        stride = STRIDES[i]
        known = state.inputs[i].shape[1] + x.shape[1] + (PADDINGS[i] if last else 0)
        n = max(known // stride - 1, 0)
        zeros = x.new_zeros(len(x), PADDINGS[i] * last + n % 2 * stride, x.shape[2])
        x = torch.cat([state.inputs[i], x, zeros], dim=1)
        state.inputs[i] = x[:, n * stride : known]
        if not n:
            return x.new_zeros(len(x), 0, conv.out_channels)
        even = n + n % 2  # outputs, of which the last is left out again where it is one too many
        rows = x[:, : (even + 1) * stride].view(len(x), even + 1, -1)
        if i:
            y = _filter_in_pairs(rows, state.matrices[i], conv.bias)[:, :n]
        else:  # rows are five samples: the sums would cost more than the product that they save
            both = torch.cat((rows[:, :n], rows[:, 1 : n + 1]), dim=2)
            y = F.linear(both, state.matrices[i][:2].flatten(0, 1).T, conv.bias)
        return norm(y).relu_()


def _filter_in_pairs(rows: Tensor, matrices: Tensor, bias: Tensor) -> Tensor:
    """Return rows[t] @ matrices[0] + rows[t + 1] @ matrices[1] + bias, (batch, an even number n of t, width).

    Two outputs share what their common row gives to both, three products instead of four: the fast finite
    impulse response filter F(2, 2) of Winograd, "Arithmetic complexity of computations" (1980).

    Args:
        rows: (batch, n + 1, k).
        matrices: (3, k, width), the two taps and their sum.
        bias: (width,).
    """
    first, second, both = matrices[:, None].expand(-1, len(rows), -1, -1)
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

    def forward(self, x: Tensor) -> Tensor:
        # The variance is the unbiased one, c/(c-1) times the one that layer_norm divides by.
        channels = x.shape[-1]
        biased = (channels - 1) / channels
        weight = self.weight.flatten() * biased**0.5
        return F.layer_norm(x, (channels,), weight, self.bias.flatten(), EPS * biased)

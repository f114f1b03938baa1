"""The network of ``Predictor.stream`` as a function of one piece of audio and the state before it.

Pieces have one length, and every piece takes the same path: masks made from the number of its first frame do
what depends on how much came before. So the function can be exported.
"""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vap_pipeline.audio.level import QUIET_PEAK
from vap_pipeline.audio.rates import HOP_SAMPLES
from vap_pipeline.encoders.cpc import STRIDES, CPCEncoder
from vap_pipeline.io.errors import InputError
from vap_pipeline.models.network import ProjectionModel, positions
from vap_pipeline.predict.history import LONGEST_FRAMES
from vap_pipeline.predict.predictor import outputs
from vap_pipeline.turn_taking.voice_activity import HISTORY_BOUNDS_FRAMES

HELD_SAMPLES = (8, 5, 2, 2, 2)  # of each convolution's input, between two pieces
WINDOWS = 2  # that overlap


class Affine(nn.Module):
    """x @ weight + bias, with the weights (in, out) as ONNX Runtime multiplies and quantises them."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Buffer(_copied(weight)), nn.Buffer(_copied(bias))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        return x @ self.weight + self.bias


class PieceEncoder(nn.Module):
    """The CPC encoder over the next piece of a stream.

    A convolution starts with as many samples of silence as it holds later, so that its outputs are as many in
    every piece. That is one too many at the start of the stream: it becomes zero, as the padding is, and the
    features begin with one of frame -1, which the recurrent net does not see.

    Raises:
        InputError: the recurrent net is not one LSTM.
    """

    def __init__(self, encoder: CPCEncoder) -> None:
        super().__init__()
        self.width, self.dim = encoder.config.hiddenEncoder, encoder.dim
        self.filters, self.norms = nn.ModuleList(), nn.ModuleList()
        for i in range(len(STRIDES)):
            conv, norm = getattr(encoder.gEncoder, f"conv{i}"), getattr(encoder.gEncoder, f"batchNorm{i}")
            self.filters.append(Affine(conv.weight.permute(2, 1, 0).flatten(0, 1), conv.bias))
            shape, weight, bias, eps = norm.terms()
            layer_norm = nn.LayerNorm(shape, eps)
            layer_norm.weight, layer_norm.bias = nn.Parameter(weight), nn.Parameter(bias)
            self.norms.append(layer_norm)
        net: Any = encoder.gAR["baseNet"]
        if net.mode != "LSTM" or net.num_layers > 1:
            raise InputError(f"an encoder with {net.num_layers} {net.mode}; only one LSTM can be exported")
        self.into = Affine(net.weight_ih_l0.T, net.bias_ih_l0 + net.bias_hh_l0)
        self.recurrent = nn.Buffer(_copied(net.weight_hh_l0.T))

    def state(self) -> dict[str, Tensor]:
        """Return the state at the start of a stream: zeros."""
        channels = (1, *(self.width,) * 4)
        held = {f"held_{i}": torch.zeros(n, channels[i]) for i, n in enumerate(HELD_SAMPLES)}
        return {**held, "hidden": torch.zeros(1, self.dim), "cell": torch.zeros(1, self.dim)}

    def forward(
        self, x: Tensor, goes_on: Tensor, state: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the features (P, dim) of frames -1 to P - 2 of this piece, and the next state.

        Args:
            x: (P * 160, 1) samples.
            goes_on: () whether pieces came before.
        """
        new = {}
        for i, (stride, held) in enumerate(zip(STRIDES, HELD_SAMPLES, strict=True)):
            x = torch.cat([state[f"held_{i}"], x])
            new[f"held_{i}"] = x[-held:]
            n = (len(x) - held) // stride
            rows = x[: (n + 1) * stride].reshape(n + 1, -1)
            x = self.norms[i](self.filters[i](torch.cat([rows[:-1], rows[1:]], dim=1))).relu()
            x = x * (goes_on | (torch.arange(n) > 0))[:, None]
        h, c, features = state["hidden"], state["cell"], []
        for t, gates in enumerate(self.into(x).split(1)):
            i, f, g, o = (gates + h @ self.recurrent).chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            if t == 0:
                c, h = c * goes_on, h * goes_on
            features.append(h)
        return torch.cat(features), {**new, "hidden": h, "cell": c}


class PieceLayer(nn.Module):
    """A layer of the network over the next frames of both windows."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.heads = layer.heads
        self.norm_attention, self.norm_feedforward = layer.norm_attention, layer.norm_feedforward
        self.query_key_value, self.out = _affine(layer.query_key_value), _affine(layer.attention_out)
        width = self.out.weight.shape[0]
        for tensor in (self.query_key_value.weight, self.query_key_value.bias):  # the scale of the attention
            tensor[..., :width] *= (width // self.heads) ** -0.5
        self.feedforward_in, self.feedforward_out = map(
            _affine, (layer.feedforward_in, layer.feedforward_out)
        )

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, unseen: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the output (2, P, width), and the keys and values of these frames as in the caches.

        Args:
            x: (2, P, width).
            keys, values: (2, heads, width / heads, context).
            unseen: (2, 1, P, 1, context + P), -inf where a frame must not look, else 0.
        """
        context = keys.shape[-1]
        parts = self.query_key_value(self.norm_attention(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = parts.permute(2, 0, 3, 4, 1).unbind(0)  # (2, heads, width / heads, P)
        # Row by row, because ONNX Runtime copies a matrix that it multiplies several rows with.
        q = q.mT[..., None, :]
        weights = torch.cat([q @ keys[:, :, None], q @ k[:, :, None]], dim=-1) + unseen
        weights = weights.softmax(-1)  # (2, heads, P, 1, context + P)
        y = weights[..., :context] @ values[:, :, None].mT + weights[..., context:] @ v[:, :, None].mT
        y = y.squeeze(3)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.feedforward_out(F.gelu(self.feedforward_in(self.norm_feedforward(x)))), k, v


class PieceModel(nn.Module):
    """Encoder, running level, activity history and network over the next piece of a stream.

    Args:
        frames: P, of a piece.
        context: frames of a window, an even number.
    """

    def __init__(self, encoder: CPCEncoder, network: ProjectionModel, frames: int, context: int) -> None:
        super().__init__()
        self.config, self.frames, self.context = network.config, frames, context
        self.encoder = PieceEncoder(encoder)
        self.feature = _affine(network.feature) if isinstance(network.feature, nn.Linear) else nn.Identity()
        self.voice_activity, self.history = _affine(network.voice_activity), _affine(network.history)
        self.norm_activity, self.norm, self.head = network.norm_activity, network.norm, _affine(network.head)
        self.layers = nn.ModuleList(map(PieceLayer, network.layers))
        self.positions = nn.Buffer(positions(context, network.config.width, torch.device("cpu")))

    def state(self) -> dict[str, Tensor]:
        """Return the state at the start of a stream: zeros."""
        heads, size = self.config.heads, self.config.width // self.config.heads
        state = {
            "frame": torch.zeros(1, dtype=torch.int64),
            "peaks": torch.zeros(3, 1),
            "spoken": torch.zeros(LONGEST_FRAMES, 2, dtype=torch.int32),
            **self.encoder.state(),
        }
        for i in range(len(self.layers)):
            for name in (f"keys_{i}", f"values_{i}"):
                state[name] = torch.zeros(WINDOWS, heads, size, self.context)
        return state

    def forward(self, samples: Tensor, va: Tensor, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the predictions (P,) by name, the next state, and what to write into the caches.

        The frames are those of numbers ``frame`` - 1 to ``frame`` + P - 2: what a feature needs ends in the
        next frame. The first one of a stream is nothing.

        Args:
            samples: (2, P * 160) at 16 kHz.
            va: (P, 2) uint8 of the frames that come out.
            state: as :meth:`state`.
        """
        frame = state["frame"]
        t = frame - 1 + torch.arange(self.frames)
        mix, peaks = self._level(samples, state["peaks"])
        features, new = self.encoder(mix.reshape(-1, 1), frame > 0, state)
        va = va.int() * (t >= 0)[:, None]  # onnxruntime 1.17 multiplies no uint8
        history, spoken = _history(va, state["spoken"])
        x = self.feature(features.half().float())
        x = x + self.norm_activity(self.voice_activity(va.float()) + self.history(history))

        # A window starts every half context, in turn in the first and in the second place of the caches.
        half = self.context // 2
        place = torch.remainder(t - half * torch.arange(WINDOWS)[:, None], self.context)
        unseen = self._unseen(t - place, place)
        x = x + self.positions[place]
        caches = {}
        for i, layer in enumerate(self.layers):
            x, caches[f"new_keys_{i}"], caches[f"new_values_{i}"] = layer(
                x, state[f"keys_{i}"], state[f"values_{i}"], unseen
            )
        older = (place[0] < half) & (t >= half)  # the window that is in its second half
        logits = self.head(self.norm(torch.where(older[:, None], x[1], x[0])))
        new = {"frame": frame + self.frames, "peaks": peaks, "spoken": spoken, **new}
        return {
            **outputs(self.config.model, va, logits),
            **{f"next_{name}": value for name, value in new.items()},
            "place": place,
            **caches,
        }

    def _level(self, samples: Tensor, peaks: Tensor) -> tuple[Tensor, Tensor]:
        """Mix the channels as ``RunningLevel`` does; ``peaks`` (3, 1) so far of both channels and the mix."""
        channels, channel_peaks = _levelled(samples.unflatten(1, (-1, HOP_SAMPLES)), peaks[:2])
        mix, mix_peak = _levelled(channels.mean(0, keepdim=True), peaks[2:])
        return mix, torch.cat([channel_peaks, mix_peak])

    def _unseen(self, start: Tensor, place: Tensor) -> Tensor:
        """Return -inf (2, 1, P, 1, context + P) where a frame must not look: before its window, and ahead."""
        cached = (torch.arange(self.context) < place[:, :1, None]) & (start == start[:, :1])[..., None]
        i = torch.arange(self.frames)
        new = (i <= i[:, None]) & (start[:, :, None] == start[:, None])
        return torch.where(torch.cat([cached, new], dim=2), 0.0, -torch.inf)[:, None, :, None]


def _affine(linear: nn.Linear) -> Affine:
    return Affine(linear.weight.T, linear.bias)


def _copied(weight: Tensor) -> Tensor:
    return weight.detach().clone(memory_format=torch.contiguous_format)


def _levelled(frames: Tensor, peak: Tensor) -> tuple[Tensor, Tensor]:
    """Divide frames (channels, P, 160) by the peaks so far; return them and the last peaks (channels, 1)."""
    i = torch.arange(frames.shape[1])
    peaks = torch.where(i <= i[:, None], frames.abs().amax(2)[:, None], 0.0).amax(2).maximum(peak)
    gains = torch.where(peaks > QUIET_PEAK, 1 / peaks, 1.0)
    return frames * gains[..., None], peaks[:, -1:]


def _history(va: Tensor, spoken: Tensor) -> tuple[Tensor, Tensor]:
    """Return the activity history (P, 5), and the frames active up to each of the last 6,000 (6000, 2)."""
    n = len(va)
    spoken = torch.cat([spoken, spoken[-1:] + va.cumsum(0, dtype=torch.int32)])
    up_to = [spoken[LONGEST_FRAMES - bound :][:n] for bound in HISTORY_BOUNDS_FRAMES]
    periods = [up_to[0], *(later - earlier for earlier, later in pairwise(up_to))]
    a, b = torch.stack(periods, dim=1).float().unbind(2)
    return torch.where(a + b > 0, a / (a + b), 0.5), spoken[n:]

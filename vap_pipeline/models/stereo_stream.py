"""The stereo model live: keys and values are kept over a fixed context, so a frame always costs the same.

ALiBi knows only how old a key is, so the window slides: a stream gives the numbers of the model run offline
with the same limit of context.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vap_pipeline.io.errors import InputError
from vap_pipeline.models.config import frames_of
from vap_pipeline.models.downsample import Downsample
from vap_pipeline.models.layers import alibi_slopes, attention_bias
from vap_pipeline.models.stereo import Outputs, StereoModel

STEP_FRAMES = 16  # computed at once; the buffers hold so many more than the context


class StereoStream:
    """A stereo model that is given one conversation piece by piece.

    Args:
        model: in evaluation mode.
        context_s: how far back every attention looks; the model's own limit if None.

    Raises:
        InputError: no limit of context is known, or the model's positions are not ALiBi.
    """

    def __init__(self, model: StereoModel, context_s: float | None = None) -> None:
        config, trunk = model.config, model.trunk
        context = frames_of(context_s or config.context_s, config.rate_hz)
        if context is None:
            raise InputError("the model has no limit of context; give one in seconds to run it live")
        if not config.alibi:
            raise InputError("a stereo model with sinusoidal positions cannot run live; train it with alibi")
        self.model, self.context_frames = model, context
        self._resample = _Resample(trunk.downsample, config.input_dim)
        device = next(model.parameters()).device
        slots = context + STEP_FRAMES - 1
        shape = (2, config.heads, slots, config.width // config.heads)
        self._clock = _Clock(context, slots, alibi_slopes(config.heads, device))
        self._caches = [_Cache(self._clock, shape, trunk.scale) for _ in range(trunk.attentions)]

    @torch.inference_mode()
    def step(self, features: Tensor) -> Outputs:
        """Return the outputs of the frames that are complete now.

        Args:
            features: the next (2, n, dim) of both channels at 100 Hz.

        Returns:
            logits (m, outputs) and voice activity (m, 2); at r Hz m is about n·r/100, and may be 0.
        """
        parts = []
        for x in self._resample(features).split(STEP_FRAMES, dim=1):
            self._clock.advance(x.shape[1])
            parts.append(self.model.read(self.model.trunk.transform(x, self._caches)))
        return Outputs(*(torch.cat(rows, dim=1)[0] for rows in zip(*parts, strict=True)))


class _Clock:
    """What the caches of all layers share: where the newest frames go, and what each query may see.

    Slots are used in turn. The softmax does not depend on their order, only on the frame that each holds.
    """

    def __init__(self, context_frames: int, slots: int, slopes: Tensor) -> None:
        self.context_frames, self.slopes, self.now = context_frames, slopes, 0
        self.held = torch.full((slots,), -context_frames, device=slopes.device)  # too old to be seen
        self.places = self.bias = slopes

    def advance(self, frames: int) -> None:
        """Make room for the next frames, at most ``STEP_FRAMES``."""
        numbers = torch.arange(self.now, self.now + frames, device=self.held.device)
        self.places = numbers % len(self.held)
        self.held[self.places] = numbers
        self.bias = attention_bias(numbers[:, None] - self.held, self.slopes, self.context_frames)
        self.now += frames


class _Cache:
    """Keys and values of one attention. A call adds those of the newest frames, and attends to all."""

    def __init__(self, clock: _Clock, shape: tuple[int, ...], scale: float) -> None:
        self.clock, self.scale = clock, scale
        self.keys = torch.zeros(shape, device=clock.slopes.device)
        self.values = torch.zeros_like(self.keys)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.keys.index_copy_(2, self.clock.places, k)
        self.values.index_copy_(2, self.clock.places, v)
        return F.scaled_dot_product_attention(q, self.keys, self.values, self.clock.bias, scale=self.scale)


class _Resample:
    """The down-sampling of a stream; it holds the features that later frames still need."""

    def __init__(self, module: torch.nn.Module, input_dim: int) -> None:
        self.module, self.held = module, torch.zeros(2, 0, input_dim)
        if isinstance(module, Downsample):
            self.held = module.convolution.weight.new_zeros(2, module.kernel - 1, input_dim)

    def __call__(self, features: Tensor) -> Tensor:
        if not isinstance(self.module, Downsample):
            return self.module(features)
        kernel, stride = self.module.kernel, self.module.stride
        x = torch.cat([self.held, features], dim=1)
        frames = max(0, (x.shape[1] - kernel) // stride + 1)
        self.held = x[:, frames * stride :].clone()
        if not frames:
            return x.new_zeros(2, 0, self.module.convolution.out_channels)
        return self.module.valid(x)

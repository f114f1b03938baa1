"""The stereo model: both speakers' channels in, no voice activity; one layer a channel, then joint layers.

Ekstedt & Skantze, "How Much Does Prosody Help Turn-taking?" (SIGDIAL 2022, arXiv 2209.05161), and the
published model of that line of work; docs/definitions.md, "Stereo model".
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from vap_pipeline.models.config import ModelConfig, frames_of
from vap_pipeline.models.downsample import downsample
from vap_pipeline.models.layers import Attend, Layer, StereoLayer, positions, window_attention
from vap_pipeline.turn_taking.projection import OUTPUTS


class Hidden(NamedTuple):
    """What the trunk makes of B examples."""

    joint: Tensor  # (B, T, width) of both channels
    first: Tensor  # (B, 2, T, width) of either channel after its own layer
    last: Tensor  # (B, 2, T, width) of either channel after the last stereo layer


class Outputs(NamedTuple):
    """What the model says of B examples."""

    logits: Tensor  # (B, T, outputs) of the objective
    voice_activity: Tensor  # (B, T, 2) logits: A, B speaks in this frame


class StereoTrunk(nn.Module):
    """Down-sampling, a self-attention layer for a channel, stereo layers, and the combination of the two.

    Both channels have the same weights, except in the combination.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, sizes = config.width, (config.width, config.heads, config.feedforward, config.dropout)
        self.downsample = downsample(config.input_dim, width, config.rate_hz, config.kernel_frames)
        self.channel_layer = Layer(*sizes, bias=False, inner_dropout=True)
        self.stereo_layers = nn.ModuleList(StereoLayer(*sizes) for _ in range(config.layers - 1))
        self.combine_a = nn.Linear(width, width, bias=False)
        self.combine_b = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)

    @property
    def scale(self) -> float:
        """The factor of the scores q·k: one over the root of the width, not of the width of a head."""
        return self.config.width**-0.5

    @property
    def attentions(self) -> int:
        """How many attentions :meth:`transform` takes."""
        return 1 + 2 * len(self.stereo_layers)

    def forward(self, features: Tensor, context_frames: int | None = None) -> Hidden:
        """Run the trunk on windows.

        Args:
            features: (B, 2, T, dim) at 100 Hz.
            context_frames: how many frames every attention looks back, at the model's rate; None for all.
        """
        config = self.config
        x = self.downsample(features.flatten(0, 1))
        frames = x.shape[1]
        if not config.alibi:
            x = x + positions(frames, config.width, x.device)
        attend = window_attention(
            frames,
            config.heads,
            x.device,
            alibi=config.alibi,
            context_frames=context_frames,
            scale=self.scale,
        )
        return self.transform(x, [attend] * self.attentions)

    def transform(self, x: Tensor, attend: Sequence[Attend]) -> Hidden:
        """Run the layers on down-sampled features (2·B, T, width), A and B of an example being neighbours.

        Args:
            attend: the attention of the channel's layer; then, layer by layer, self- and cross-attention.
        """
        x = first = self.channel_layer(x, attend[0])
        for i, layer in enumerate(self.stereo_layers):
            x = layer(x, attend[1 + 2 * i], attend[2 + 2 * i])
        first, last = first.unflatten(0, (-1, 2)), x.unflatten(0, (-1, 2))
        joint = F.gelu(self.norm(self.combine_a(last[:, 0]))) + F.gelu(self.norm(self.combine_b(last[:, 1])))
        return Hidden(joint, first, last)


class StereoModel(nn.Module):
    """The trunk, a linear head of any objective, and one for the voice activity of the present frame."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = StereoTrunk(config)
        self.head = nn.Linear(config.width, OUTPUTS[config.model])
        self.activity_head = nn.Linear(config.width, 1)

    def forward(self, features: Tensor, context_s: float | None = None) -> Outputs:
        """Return the outputs for T frames at the model's rate.

        Args:
            features: (B, 2, T at 100 Hz, dim) of either channel.
            context_s: how far back attention looks; the model's own limit if None.
        """
        context_frames = frames_of(context_s or self.config.context_s, self.config.rate_hz)
        return self.read(self.trunk(features, context_frames))

    def read(self, hidden: Hidden) -> Outputs:
        """Apply the heads."""
        channels = hidden.first if self.config.activity_layer == "first" else hidden.last
        return Outputs(self.head(hidden.joint), self.activity_head(channels).squeeze(-1).transpose(1, 2))

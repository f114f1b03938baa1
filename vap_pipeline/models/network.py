"""The projection model: a causal transformer over features, voice activity and its history."""

from torch import Tensor, nn

from vap_pipeline.models.config import ModelConfig
from vap_pipeline.models.downsample import downsample
from vap_pipeline.models.layers import Dropout, Layer, positions, window_attention
from vap_pipeline.turn_taking.frame_rates import activity_at, at_frame_ends
from vap_pipeline.turn_taking.projection import OUTPUTS

__all__ = ["ModelConfig", "ProjectionModel", "positions"]


class ProjectionModel(nn.Module):
    """Feature + LayerNorm(Linear(va) + Linear(history)) + positions; causal layers; a linear head.

    With the trunk ``timing`` the feature is left out: a baseline that says what the audio adds.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        if config.trunk == "mono":
            self.feature = downsample(config.input_dim, width, config.rate_hz, config.kernel_frames)
        self.voice_activity = nn.Linear(2, width)
        self.history = nn.Linear(5, width)
        self.norm_activity = nn.LayerNorm(width)
        self.dropout: nn.Dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(
            Layer(width, config.heads, config.feedforward, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, OUTPUTS[config.model])

    def forward(self, features: Tensor | None, va: Tensor, history: Tensor) -> Tensor:
        """Return the logits (B, T at the model's rate, outputs).

        The logits of a frame depend on the input up to the end of that frame alone.

        Args:
            features: (B, T, dim) at 100 Hz; not read by ``timing``.
            va, history: (B, T, 2) and (B, T, 5) at 100 Hz. A frame gets the history at its end.
        """
        config = self.config
        va, history = activity_at(va, config.rate_hz), at_frame_ends(history, config.rate_hz)
        x = self.norm_activity(self.voice_activity(va) + self.history(history))
        if config.trunk == "mono":
            x = self.feature(features) + x
        frames = x.shape[1]
        if not config.alibi:
            x = x + positions(frames, config.width, x.device)
        x = self.dropout(x)
        attend = window_attention(
            frames, config.heads, x.device, alibi=config.alibi, context_frames=config.context_frames
        )
        for layer in self.layers:
            x = layer(x, attend)
        return self.head(self.norm(x))

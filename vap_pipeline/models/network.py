"""The projection model: a causal transformer over features, voice activity and its history."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vap_pipeline.settings.fields import setting
from vap_pipeline.settings.train import ModelSettings
from vap_pipeline.turn_taking.projection import MODELS, OUTPUTS


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ModelSettings):
    """All that rebuilds a network: its sizes, what it predicts, and the width of its input features.

    Raises:
        InputError: the model is unknown, or the sizes do not go together.
    """

    model: str = setting("discrete", "what the model predicts", choices=MODELS)
    input_dim: int = setting(256, "width of the features", least=1)


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
    """

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.norm_feedforward = nn.LayerNorm(width)
        self.feedforward_in = nn.Linear(width, feedforward)
        self.feedforward_out = nn.Linear(feedforward, width)
        self.dropout: nn.Dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, width) to (B, T, width)."""
        x = x + self.dropout(self.attention(self.norm_attention(x)))
        return x + self.dropout(self.feedforward_out(F.gelu(self.feedforward_in(self.norm_feedforward(x)))))

    def attention(self, x: Tensor) -> Tensor:
        parts = self.query_key_value(x).unflatten(-1, (3, self.heads, -1)).unbind(2)  # (B, T, heads, …)
        q, k, v = (part.transpose(1, 2) for part in parts)
        x = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.attention_out(x.transpose(1, 2).flatten(-2))


class ProjectionModel(nn.Module):
    """Feature + LayerNorm(Linear(va) + Linear(history)) + positions; causal layers; a linear head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.feature = nn.Linear(config.input_dim, width) if config.input_dim != width else nn.Identity()
        self.voice_activity = nn.Linear(2, width)
        self.history = nn.Linear(5, width)
        self.norm_activity = nn.LayerNorm(width)
        self.dropout: nn.Dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(
            Layer(width, config.heads, config.feedforward, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, OUTPUTS[config.model])

    def forward(self, features: Tensor, va: Tensor, history: Tensor) -> Tensor:
        """Return the logits (B, T, outputs) of features (B, T, dim), va (B, T, 2) and history (B, T, 5).

        The logits of frame t depend on frames 0 to t alone.
        """
        x = self.feature(features) + self.norm_activity(self.voice_activity(va) + self.history(history))
        x = self.dropout(x + positions(x.shape[1], x.shape[2], x.device))
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def positions(frames: int, width: int, device: torch.device) -> Tensor:
    """Return the sinusoidal positions (frames, width) of "Attention is all you need", section 3.5."""
    frequency = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10000.0) / width))
    angle = torch.arange(frames, device=device)[:, None] * frequency
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)

"""Learned causal down-sampling: features at 100 Hz to the frames of a model at a lower rate."""

import torch.nn.functional as F
from torch import Tensor, nn

from vap_pipeline.turn_taking.frame_rates import stride

# Published kernels: 50 and 20 Hz of the older models; 10 and 5 Hz of the real-time models, whose kernel is
# their stride (5 at 20 Hz, too). 25 and 12.5 Hz are not published and follow 50 and 20 Hz: 2·stride + 1.
KERNEL_FRAMES = {50.0: 5, 25.0: 9, 20.0: 11, 12.5: 17, 10.0: 10, 5.0: 20}


def kernel_of(rate_hz: float) -> int:
    """Return how many frames at 100 Hz a frame is computed from, unless a model says otherwise.

    Raises:
        InputError: no such rate.
    """
    stride(rate_hz)
    return KERNEL_FRAMES.get(rate_hz, 1)


def downsample(input_dim: int, width: int, rate_hz: float, kernel: int) -> nn.Module:
    """Return the module from features (N, T, input_dim) at 100 Hz to (N, ⌈T / stride⌉, width).

    At 100 Hz there is no convolution: the features stay as they are; if their width differs, a linear map
    changes it.
    """
    if stride(rate_hz) == 1:
        return nn.Linear(input_dim, width) if input_dim != width else nn.Identity()
    return Downsample(input_dim, width, kernel, stride(rate_hz))


class Downsample(nn.Module):
    """A strided convolution that sees no later frame, LayerNorm and GELU.

    Output i is computed from the inputs i·stride − kernel + 1 to i·stride; before the first, inputs are 0.
    """

    def __init__(self, input_dim: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(input_dim, width, kernel, stride)
        self.norm = nn.LayerNorm(width)
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, T, input_dim) to (N, ⌈T / stride⌉, width)."""
        return self.valid(F.pad(x, (0, 0, self.kernel - 1, 0)))

    def valid(self, x: Tensor) -> Tensor:
        """Map (N, T, input_dim) to (N, ⌊(T − kernel) / stride⌋ + 1, width), without padding."""
        return F.gelu(self.norm(self.convolution(x.transpose(1, 2)).transpose(1, 2)))

"""The CPC encoder on audio as it is heard: a few frames at a time, for one signal.

So few outputs cost less to compute than the weights cost to read. So nothing here saves products, as
:class:`CPCEncoder` does with three filters for two; each weight is read once.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vap_pipeline.encoders.cpc import PADDINGS, STRIDES, CPCEncoder

FEW_FRAMES = 4  # up to which torch's own LSTM takes longer to start than they take


class LiveEncoder:
    """Features of a signal that comes in pieces of any length.

    The same numbers as those of :meth:`CPCEncoder.stream`, up to rounding.
    """

    def __init__(self, encoder: CPCEncoder) -> None:
        self._recurrent: Any = encoder.gAR["baseNet"]
        self._hidden: Any = None
        self._dim = encoder.dim
        filters: Any = encoder.gEncoder
        self._layers: list[Any] = []
        self._held: list[Tensor] = []  # of each layer, the end of its input, (values,)
        for i, (stride, padding) in enumerate(zip(STRIDES, PADDINGS, strict=True)):
            conv, norm = getattr(filters, f"conv{i}"), getattr(filters, f"batchNorm{i}")
            weight = conv.weight.permute(2, 1, 0).flatten(0, 1).contiguous()  # (two strides of values, width)
            self._layers.append((stride * conv.in_channels, weight, conv.bias, norm.terms()))
            self._held.append(weight.new_zeros(padding * conv.in_channels))

    @torch.inference_mode()
    def push(self, audio: Tensor) -> Tensor:
        """Return the next features (frames, dim) after audio (samples,) at 16 kHz has come."""
        x = audio
        for i, (hop, weight, bias, norm) in enumerate(self._layers):
            x = torch.cat([self._held[i], x.flatten()])
            n = max(len(x) // hop - 1, 0)
            self._held[i] = x[n * hop :]
            if not n:
                return audio.new_zeros(0, self._dim)
            x = F.layer_norm(torch.addmm(bias, x.unfold(0, 2 * hop, hop), weight), *norm).relu_()
        return self._recur(x)

    def _recur(self, x: Tensor) -> Tensor:
        net = self._recurrent
        if net.mode != "LSTM" or net.num_layers > 1 or len(x) > FEW_FRAMES:
            x, self._hidden = net(x, self._hidden)
            return x
        h, c = self._hidden or x.new_zeros(2, 1, net.hidden_size)
        weights = net.weight_ih_l0, net.weight_hh_l0, net.bias_ih_l0, net.bias_hh_l0
        out = []
        for frame in x.split(1):
            h, c = torch.lstm_cell(frame, (h, c), *weights)
            out.append(h)
        self._hidden = h, c
        return torch.cat(out)

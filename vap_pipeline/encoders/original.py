"""The encoder run by the original package, ``cpc_audio``, where that is installed; for comparison."""

from collections.abc import Iterable, Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from vap_pipeline.audio.rates import HOP_SAMPLES
from vap_pipeline.encoders.cpc import CPCEncoder
from vap_pipeline.io.errors import InputError

CONTEXT_FRAMES = 2  # at both ends of a piece, which the cut may have changed: a frame sees 465 samples


class OriginalEncoder(nn.Module):
    """The original modules with the weights of ``encoder``.

    Raises:
        InputError: the package is not installed.
    """

    def __init__(self, encoder: CPCEncoder) -> None:
        super().__init__()
        try:
            from cpc.model import CPCAR, CPCModel
            from cpc.model import CPCEncoder as Convolutions
        except ImportError as error:
            raise InputError(
                f"backend cpc_audio: the package is not installed ({error}); "
                "pip install git+https://github.com/facebookresearch/CPC_audio, or use --backend native"
            ) from error
        config = encoder.config
        self.dim = config.hiddenGar
        self.model = CPCModel(
            Convolutions(config.hiddenEncoder, config.normMode),
            CPCAR(config.hiddenEncoder, config.hiddenGar, False, config.nLevelsGRU, mode=config.arMode),
        )
        self.model.load_state_dict(encoder.state_dict())
        self.eval()

    @torch.inference_mode()
    def forward(self, audio: Tensor) -> Tensor:
        """Encode whole signals: (batch, samples) to (batch, frames, dim)."""
        return self.model(audio[:, None], None)[0]

    def stream(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """Encode one signal that comes in pieces (samples,); yield features (frames, dim)."""
        encode, recur = self.model.gEncoder, self.model.gAR.baseNet
        held, done, hidden = encode.conv0.weight.new_zeros(0), 0, None  # done: frames of held already yielded
        for piece in chain(pieces, [None]):
            if piece is not None:
                held = torch.cat([held, piece.to(held)])
            end = len(held) // HOP_SAMPLES - (CONTEXT_FRAMES if piece is not None else 0)
            if end > done:
                with torch.inference_mode():
                    x = encode(held[None, None])[:, :, done:end]
                    x, hidden = recur(x.transpose(1, 2), hidden)
                yield x[0]
                kept = max(end - CONTEXT_FRAMES, 0)
                held, done = held[kept * HOP_SAMPLES :], end - kept

"""How ``vap-pretrain`` trains an encoder, and how large it is: the section ``pretrain``."""

from dataclasses import dataclass
from typing import ClassVar

from vap_pipeline.settings.fields import Section, seed, setting

WINDOW_FRAMES = 128  # 1.28 s
RECURRENT = ("LSTM", "GRU", "RNN")


@dataclass(frozen=True)
class PretrainSettings(Section):
    """How an encoder is trained.

    Raises:
        InputError: a value has the wrong type or is out of range.
    """

    NAME: ClassVar[str] = "pretrain"
    steps: int = setting(10_000, "training steps", least=1)
    speakers: int = setting(4, "speakers in a batch", least=1)
    windows: int = setting(4, "windows of 1.28 s per speaker", least=1)
    negatives: int = setting(64, "negative frames per speaker for the contrastive loss", least=1)
    ahead: int = setting(12, "how many future frames to predict", least=1, below=WINDOW_FRAMES)
    learning_rate: float = setting(5e-4, "highest learning rate of AdamW; it falls as a cosine", above=0)
    weight_decay: float = setting(0.01, "AdamW's weight decay", least=0)
    seed: int = seed("random seed of weights, windows and negatives")
    width: int | None = setting(None, "channels of the convolutions (256)", least=2, most=4096)
    dim: int | None = setting(None, "width of recurrent net and features (256)", least=1, most=4096)
    levels: int | None = setting(None, "layers of the recurrent net (1)", least=1, most=16)
    recurrent: str | None = setting(None, "recurrent net: LSTM, GRU or RNN (LSTM)", choices=RECURRENT)

    def sizes(self) -> dict[str, int | str]:
        """Return the sizes that are given, by their names in a checkpoint's ``config``."""
        names = {"width": "hiddenEncoder", "dim": "hiddenGar", "levels": "nLevelsGRU", "recurrent": "arMode"}
        return {key: getattr(self, name) for name, key in names.items() if getattr(self, name) is not None}

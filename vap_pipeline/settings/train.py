"""How a model is trained, and how large it is: the sections ``train`` and ``model``."""

from dataclasses import dataclass
from typing import ClassVar

from vap_pipeline.io.errors import InputError
from vap_pipeline.settings.fields import Section, seed, setting


@dataclass(frozen=True)
class TrainSettings(Section):
    """How a model is trained; the defaults are the paper's.

    Raises:
        InputError: a value has the wrong type or is out of range.
    """

    NAME: ClassVar[str] = "train"
    batch: int = setting(50, "windows in a step, over all processes", least=1)
    learning_rate: float = setting(3.63e-4, "constant learning rate of AdamW", above=0)
    betas: tuple[float, float] = setting((0.9, 0.999), "AdamW's two betas")
    weight_decay: float = setting(0.001, "AdamW's weight decay", least=0)
    epochs: int = setting(100, "passes over the training windows at most", least=1)
    checks_per_epoch: int = setting(2, "validation checks in an epoch", least=1)
    patience: int = setting(20, "checks without a better S/H weighted F1 before training stops", least=1)
    swap: float = setting(0.5, "probability of swapping a window's speakers", least=0, most=1)
    seed: int = seed("random seed; the fold is added to it")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"train.betas is {self.betas}; both must be at least 0 and less than 1")


@dataclass(frozen=True)
class ModelSettings(Section):
    """The sizes of a model; the defaults are the paper's.

    Raises:
        InputError: a value has the wrong type or is out of range, or the sizes do not go together.
    """

    NAME: ClassVar[str] = "model"
    width: int = setting(256, "width of the transformer", least=2, most=1 << 14)
    layers: int = setting(4, "transformer layers", least=1, most=200)
    heads: int = setting(4, "attention heads", least=1, most=1 << 10)
    feedforward: int = setting(768, "width of the feed-forward nets", least=1, most=1 << 16)
    dropout: float = setting(0.1, "dropout", least=0, below=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads or self.width % 2:
            raise InputError(
                f"model.width is {self.width}; it must be even and a multiple of the {self.heads} heads"
            )

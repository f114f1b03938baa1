"""The settings of a training run: what they are called, their defaults, and how the user gives them."""

import argparse
import math
from dataclasses import dataclass, field, fields
from typing import Any

from vap_pipeline.io.errors import InputError
from vap_pipeline.runtime import command


def _setting(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained; the defaults are the paper's."""

    batch: int = _setting(50, "windows in a step, over all processes")
    learning_rate: float = _setting(3.63e-4, "constant learning rate of AdamW")
    betas: tuple[float, ...] = _setting((0.9, 0.999), "AdamW's two betas")
    weight_decay: float = _setting(0.001, "AdamW's weight decay")
    epochs: int = _setting(100, "passes over the training windows, where nothing stops it before")
    checks_per_epoch: int = _setting(2, "validation checks in an epoch")
    patience: int = _setting(20, "checks without a better S/H weighted F1 after which training ends")
    swap: float = _setting(0.5, "probability with which a window's speakers are swapped")
    seed: int = _setting(0, "the run's seed is this plus the fold")

    def __post_init__(self) -> None:
        for name in ("batch", "epochs", "checks_per_epoch", "patience"):
            if getattr(self, name) < 1:
                raise InputError(f"train: {name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf or not 0 <= self.weight_decay < math.inf:
            raise InputError("train: learning_rate must be positive and weight_decay not negative")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"train: betas must be two numbers in [0, 1), not {self.betas}")
        if not 0 <= self.swap <= 1:
            raise InputError(f"train: swap is a probability, not {self.swap}")
        command.check_seed("train: seed", self.seed)


# The sizes of the model that are the user's to choose: model.ModelConfig without what the run itself decides.
MODEL_SIZES: dict[str, tuple[type, str]] = {
    "width": (int, "width of the transformer (256)"),
    "layers": (int, "its layers (4)"),
    "heads": (int, "attention heads (4)"),
    "feedforward": (int, "width of the feed-forward nets (768)"),
    "dropout": (float, "dropout (0.1)"),
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every setting; a flag that is not given is None."""
    group = parser.add_argument_group("training (default: the corpus's section `train`, then the paper's)")
    for each in fields(TrainConfig):
        number: Any = {"nargs": 2, "type": float} if each.name == "betas" else {"type": each.type}
        help = f"{each.metadata['help']} ({_show(each.default)})"
        group.add_argument("--" + each.name.replace("_", "-"), metavar="N", help=help, **number)
    group = parser.add_argument_group("model (default: the corpus's section `model`, then the paper's)")
    for name, (type_, help) in MODEL_SIZES.items():
        group.add_argument("--" + name, type=type_, metavar="N", help=help)


def train_config(args: argparse.Namespace, corpus: dict[str, Any]) -> TrainConfig:
    """The training settings from flags, then the corpus's settings, then the defaults."""
    types = {each.name: _numbers if each.name == "betas" else each.type for each in fields(TrainConfig)}
    return TrainConfig(**command.section("train", types, args, corpus))


def model_sizes(args: argparse.Namespace, corpus: dict[str, Any]) -> dict[str, Any]:
    """The model's sizes that flags or the corpus's settings give, by their names in ``ModelConfig``."""
    return command.section("model", {name: type_ for name, (type_, _) in MODEL_SIZES.items()}, args, corpus)


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _show(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)

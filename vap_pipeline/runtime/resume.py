"""What a run needs to go on after it was stopped, in one file that is replaced in one piece.

``resume.safetensors`` holds the tensors (weights, the optimizer's moments) and, as JSON in its header, the
settings of the run and how far it has come. Nothing in it is a pickle.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import nn

from vap_pipeline.io import files
from vap_pipeline.io.tensors import Tensors, digest, parse, unpack

RESUME = "resume.safetensors"

MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what AdamW keeps of a parameter

P = TypeVar("P", bound="Progress")


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0  # steps made
    run_id: str = ""  # in Weights & Biases
    history: list[dict[str, float]] = field(default_factory=list)  # rows of what was measured

    def parts(self) -> set[str]:
        """The parts of the state that hold tensors by now."""
        return {"model", "optimizer"} if self.step else {"model"}

    def check(self, last_step: int) -> None:
        """Raise ValueError where no run of ``last_step`` steps can have come to this."""
        for name, default in vars(type(self)()).items():
            value = getattr(self, name)
            if type(value) not in ((float, type(None)) if default is None else (type(default),)):
                raise ValueError(f"{name} is {value!r:.50}")
        if not 0 <= self.step <= last_step or not re.fullmatch("[0-9a-f]{8}|", self.run_id):
            raise ValueError(f"step {self.step} of {last_step}, run {self.run_id:.50}")
        for row in self.history:
            right = type(row) is dict and all(type(value) in (int, float) for value in row.values())
            if not right or type(row.get("step")) is not int or not 0 <= row["step"] <= self.step:
                raise ValueError(f"its history has {row!r:.50}")


def save(folder: str, settings: dict[str, Any], progress: Progress, parts: dict[str, Tensors]) -> None:
    """Replace the state in ``folder``; a kill while saving leaves the one before.

    Raises:
        InputError: it cannot be written.
    """
    tensors = {
        f"{part}.{name}": tensor.detach().cpu().contiguous()
        for part, named in parts.items()
        for name, tensor in named.items()
    }
    header = {"settings": json.dumps(settings), "progress": json.dumps(asdict(progress))}
    header["sha256"] = digest(header, tensors)
    files.write(f"{folder}/{RESUME}", safetensors.torch.save(tensors, header))


def load(
    folder: str,
    settings: dict[str, Any],
    kind: type[P],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    check: Callable[[P], None],
) -> tuple[P, dict[str, Tensors]] | str:
    """Put the state in ``folder`` into ``model`` and ``optimizer``; return how far it is and all its tensors.

    Where there is none for a run of these ``settings``, say so in words and change nothing. That of another
    run, which the new one would replace, is kept under a name of its own.

    Args:
        check: raises ValueError where no run can have come to what the state says.

    Raises:
        InputError: it cannot be kept.
    """
    path = f"{folder}/{RESUME}"
    if not files.exists(path):
        return f"no state in {folder}"
    content = files.read(path)
    try:
        tensors, header = unpack(content)
        if header.pop("sha256", None) != digest(header, tensors):
            return f"{path} is damaged (it is not as it was written)"
        saved, so_far = parse(header["settings"]), json.loads(header["progress"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return f"{path} is damaged ({error})"
    if changed := differences(saved, json.loads(json.dumps(settings))):
        kept = f"{folder}/resume.{hashlib.sha256(header['settings'].encode()).hexdigest()[:8]}.safetensors"
        files.write(kept, content)
        return f"{path} is of another run, and kept as {kept}: {changed:.500}"
    parts: dict[str, Tensors] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    try:
        progress = kind(**so_far)
        check(progress)
        _check_tensors(parts, progress, model)
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
        return f"{path} is damaged ({files.reason(error)})"
    model.load_state_dict(parts["model"])
    for name, tensor in parts.get("optimizer", {}).items():
        parameter, key = model.get_parameter(name.rpartition(".")[0]), name.rpartition(".")[2]
        # AdamW counts its steps where the parameter lies, as a scalar; the moments lie there anyway.
        optimizer.state[parameter][key] = tensor.to(parameter.device)
    return progress, parts


def _check_tensors(parts: dict[str, Tensors], progress: Progress, model: nn.Module) -> None:
    """Raise ValueError unless the tensors are those that a run of ``model`` has kept by now."""
    weights = model.state_dict()
    moments = {
        f"{name}.{key}": torch.zeros(()) if key == "step" else parameter
        for name, parameter in model.named_parameters()
        for key in MOMENTS
    }
    known = {"model": weights, "best": weights, "optimizer": moments}
    if parts.keys() != progress.parts():
        raise ValueError(f"it holds {', '.join(parts)}")
    for part in parts:
        tensors = known[part]
        for name in sorted(parts[part].keys() | tensors.keys()):
            found, like = parts[part].get(name), tensors.get(name)
            if found is None or like is None or found.shape != like.shape or found.dtype != like.dtype:
                raise ValueError(f"its {part} is of another network: {name}")
            if not torch.isfinite(found).all():
                raise ValueError(f"its {part} holds no numbers: {name}")
            # With float16 the scaler leaves out steps.
            if part == "optimizer" and name.endswith(".step") and not 1 <= float(found) <= progress.step:
                raise ValueError(f"its optimizer has made {float(found)} of {progress.step} steps")


def settings_of(folder: str) -> dict[str, Any]:
    """Return the settings of the run whose state is in ``folder``; none where there is no such state."""
    path = f"{folder}/{RESUME}"
    try:
        _, header = unpack(files.read(path)) if files.exists(path) else ({}, {})
        return parse(header["settings"])
    except (ValueError, KeyError, TypeError):
        return {}


def how_to_go_on(folder: str) -> str:
    """Return what to say of a run in ``folder`` that was stopped."""
    if files.exists(f"{folder}/{RESUME}"):
        return f"its state is in {folder}, start the same command with --resume to go on"
    return "nothing was trained yet, start the same command again"


def moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """Return the optimizer's state, by the names of the parameters of ``model``."""
    return {
        f"{name}.{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def differences(saved: Any, wanted: Any, name: str = "") -> str:
    """Say in words what differs between two nests of settings; empty where nothing does."""
    if isinstance(saved, Mapping) and isinstance(wanted, Mapping):
        keys = sorted(saved.keys() | wanted.keys())
        found = [differences(saved.get(key), wanted.get(key), f"{name}.{key}".lstrip(".")) for key in keys]
        return ", ".join(each for each in found if each)
    return "" if saved == wanted else f"{name} was {saved}, is {wanted}"

"""The state of a run, from which it continues after a stop: one file, replaced as a whole.

``resume.safetensors`` holds the tensors (weights and the optimizer's moments) and, as JSON in its header, the
settings and the progress of the run.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypeVar

import safetensors.torch
import torch
from torch import nn

from vap_pipeline.io import files
from vap_pipeline.io.differences import differences
from vap_pipeline.io.tensors import Tensors, digest, unpack

RESUME = "resume.safetensors"

P = TypeVar("P", bound="Progress")


@dataclass
class Progress:
    """How far a run is."""

    step: int = 0  # number of steps made
    run_id: str = ""  # in Weights & Biases
    history: list[dict[str, float]] = field(default_factory=list)  # rows of measures
    finished: bool = False


class State(NamedTuple):
    """A state file: settings and progress of a run, and its tensors by part, such as model and optimizer."""

    settings: dict[str, Any]
    progress: dict[str, Any]
    parts: dict[str, Tensors]


def save(folder: str, settings: dict[str, Any], progress: Progress, parts: dict[str, Tensors]) -> None:
    """Replace the state in ``folder``; a kill during it leaves the previous one.

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


def read(folder: str) -> State | None:
    """Return the state in ``folder``, or None if there is no file.

    Raises:
        ValueError: the file is damaged.
    """
    path = f"{folder}/{RESUME}"
    if not files.exists(path):
        return None
    tensors, header = unpack(files.read(path))
    if header.pop("sha256", None) != digest(header, tensors):
        raise ValueError("its checksum is wrong")
    parts: dict[str, Tensors] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    return State(json.loads(header["settings"]), json.loads(header["progress"]), parts)


def load(
    folder: str,
    settings: dict[str, Any],
    kind: type[P],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    may_differ: Iterable[str] = (),
) -> tuple[P, dict[str, Tensors]] | str:
    """Put the state in ``folder`` into ``model`` and ``optimizer``.

    Args:
        settings: of the run that is to continue.
        may_differ: settings, such as ``train.epochs``, that need not be those of the state.

    Returns:
        The progress and all tensors by part; or, where no run of these settings can continue, the reason in
        words.
    """
    path = f"{folder}/{RESUME}"
    try:
        state = read(folder)
        if state is None:
            return f"no state in {folder}"
        if differences(state.settings, settings, ignored=may_differ):
            return f"{path} is of another run"
        progress = kind(**state.progress)
        model.load_state_dict(state.parts["model"])
        for name, tensor in state.parts.get("optimizer", {}).items():
            parameter, key = model.get_parameter(name.rpartition(".")[0]), name.rpartition(".")[2]
            # AdamW counts its steps in a scalar where the parameter is.
            optimizer.state[parameter][key] = tensor.to(parameter.device)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        return f"{path} is damaged ({files.reason(error)})"
    return progress, state.parts


def set_aside(
    folder: str, settings: dict[str, Any], may_differ: Iterable[str] = (), finished_too: bool = False
) -> str:
    """Keep the state of another run, which a new one would overwrite, under a name of its own.

    Args:
        settings: of the new run.
        may_differ: settings, such as ``train.epochs``, that do not make it another run.
        finished_too: keep the state of a finished run as well.

    Returns:
        What was found and done, in words; empty if there was nothing to keep.

    Raises:
        InputError: it cannot be kept.
    """
    try:
        state = read(folder)
    except (ValueError, KeyError, TypeError):
        return ""  # damaged: nothing can continue from it
    if state is None or not state.progress.get("step"):
        return ""
    if state.progress.get("finished") and not finished_too:
        return ""
    changed = differences(state.settings, settings, ignored=may_differ)
    if not changed:
        step = state.progress["step"]
        return f"{folder} holds this run at step {step}: starting again; --resume would continue it"
    name = hashlib.sha256(json.dumps(state.settings).encode()).hexdigest()[:8]
    kept = f"{folder}/resume.{name}.safetensors"
    files.write(kept, files.read(f"{folder}/{RESUME}"))
    return f"the state of another run in {folder} ({changed}) is kept as {kept}"


def settings_of(folder: str) -> dict[str, Any]:
    """Return the settings of the run whose state is in ``folder``; empty if there is no usable state."""
    try:
        state = read(folder)
    except (ValueError, KeyError, TypeError):
        return {}
    return state.settings if state else {}


def moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """Return the optimizer's state, by the names of the parameters of ``model``."""
    return {
        f"{name}.{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }

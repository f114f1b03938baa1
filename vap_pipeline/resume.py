"""What a run needs to go on after it was stopped, in one file that is replaced in one piece.

``resume.safetensors`` holds the tensors (weights, the optimizer's moments) and, as JSON in its header, the
settings of the run and how far it has come. Nothing in it is a pickle.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from vap_pipeline import files

RESUME = "resume.safetensors"

Tensors = dict[str, Tensor]


def save(folder: str, settings: dict[str, Any], progress: dict[str, Any], parts: dict[str, Tensors]) -> None:
    """Replace the state in ``folder``; a kill while saving leaves the one before.

    Raises:
        InputError: it cannot be written.
    """
    tensors = {
        f"{part}.{name}": tensor.detach().cpu().contiguous()
        for part, named in parts.items()
        for name, tensor in named.items()
    }
    header = {"settings": json.dumps(settings), "progress": json.dumps(progress)}
    header["sha256"] = digest(header, tensors)
    files.write(f"{folder}/{RESUME}", safetensors.torch.save(tensors, header))


def load(folder: str, settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensors]] | str:
    """Read the state in ``folder``, or say in words why there is none for a run of these ``settings``.

    That of another run, which the new one would replace, is kept under a name of its own.

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
        saved, progress = json.loads(header["settings"]), dict(json.loads(header["progress"]))
    except (ValueError, KeyError, TypeError) as error:
        return f"{path} is damaged ({error})"
    if changed := differences(saved, json.loads(json.dumps(settings))):
        kept = f"{folder}/resume.{hashlib.sha256(header['settings'].encode()).hexdigest()[:8]}.safetensors"
        files.write(kept, content)
        return f"{path} is of another run, and kept as {kept}: {changed}"
    parts: dict[str, Tensors] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    return progress, parts


def how_to_go_on(folder: str) -> str:
    """Return what to say of a run in ``folder`` that was stopped."""
    if files.exists(f"{folder}/{RESUME}"):
        return f"its state is in {folder}, start the same command with --resume to go on"
    return "nothing was trained yet, start the same command again"


def unpack(content: bytes) -> tuple[Tensors, dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Raises:
        ValueError: it is damaged, or another file.
    """
    try:
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except safetensors.SafetensorError as error:
        raise ValueError(f"no safetensors file: {error}") from error
    return tensors, header.get("__metadata__", {})


def digest(header: dict[str, Any], tensors: Tensors) -> str:
    """SHA-256 of all that a file holds."""
    sha256 = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        sha256.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        sha256.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """Return the optimizer's state, by the names of the parameters of ``model``."""
    return {
        f"{name}.{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def restore_moments(tensors: Tensors, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put what :func:`moments` returned back into the optimizer."""
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        parameter, _, key = name.rpartition(".")
        # AdamW counts its steps where the parameter lies, as a scalar; the moments lie there anyway.
        optimizer.state[parameters[parameter]][key] = tensor.to(parameters[parameter].device)


def differences(saved: Any, wanted: Any, name: str = "") -> str:
    """Say in words what differs between two nests of settings; empty where nothing does."""
    if isinstance(saved, Mapping) and isinstance(wanted, Mapping):
        keys = sorted(saved.keys() | wanted.keys())
        found = [differences(saved.get(key), wanted.get(key), f"{name}.{key}".lstrip(".")) for key in keys]
        return ", ".join(each for each in found if each)
    return "" if saved == wanted else f"{name} was {saved}, is {wanted}"

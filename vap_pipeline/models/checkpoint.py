"""A trained model on disk: ``model.safetensors`` with its configuration, and ``config.json`` to read."""

import json
from dataclasses import asdict
from typing import Any

import safetensors.torch
import torch

from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError
from vap_pipeline.io.tensors import digest, parse, unpack
from vap_pipeline.models.network import ModelConfig, ProjectionModel
from vap_pipeline.runtime.command import check_seed

WEIGHTS = "model.safetensors"


KINDS = {"corpus": str, "fold": int, "seed": int, "model": dict, "store": dict, "data": dict}


def save(model: ProjectionModel, config: dict[str, Any], folder: str) -> None:
    """Write ``model.safetensors`` with ``config`` and the model's sizes in its header, and ``config.json``.

    The former is all that :func:`load` reads, so that a kill between the two leaves a model that can be used;
    the latter is the same configuration for people and other programs.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    config = config | {"model": asdict(model.config)}
    described = json.dumps(config | {"sha256": digest(config, tensors)}, indent=2)
    files.write(f"{folder}/{WEIGHTS}", safetensors.torch.save(tensors, {"config": described}))
    files.write(f"{folder}/config.json", (described + "\n").encode())


def load(folder: str) -> tuple[ProjectionModel, dict[str, Any]]:
    """Read what :func:`save` wrote: the model, in evaluation mode on the CPU, and its configuration.

    Raises:
        InputError: the file is missing or damaged, or no checkpoint of a model.
    """
    path = f"{folder}/{WEIGHTS}"
    content = files.read(path)
    try:
        tensors, header = unpack(content)
        config = parse(header["config"])
        if config.pop("sha256") != digest(config, tensors):
            raise ValueError("it is not as it was written")
        _check(config)
        with torch.device("meta"):  # the sizes are believed only where the tensors bear them out
            model = ProjectionModel(ModelConfig(**config["model"]))
        if any(tensor.dtype != torch.float32 for tensor in tensors.values()):
            raise ValueError("its weights are not float32")
        model.load_state_dict(tensors, assign=True)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{path}: damaged, or no checkpoint ({reason}); train the model again") from error
    return model.eval(), config


def _check(config: dict[str, Any]) -> None:
    """Raise ValueError where something that later stages read is of another kind than training wrote."""
    for key, kind in KINDS.items():
        if key in config and type(config[key]) is not kind:
            raise ValueError(f"{key} is {config[key]!r:.50}")
    check_seed("its seed", config.get("seed", 0))

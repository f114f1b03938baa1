"""A trained model on disk: ``model.safetensors`` with its configuration, and ``config.json`` to read."""

import json
from dataclasses import asdict
from typing import Any

import safetensors.torch
import torch

from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError
from vap_pipeline.io.tensors import digest, unpack
from vap_pipeline.models.build import Model, build
from vap_pipeline.models.config import ModelConfig

WEIGHTS = "model.safetensors"


def save(model: Model, config: dict[str, Any], folder: str) -> None:
    """Write ``model.safetensors`` with ``config`` and the model's sizes in its header, and ``config.json``.

    :func:`load` reads only the former, so a kill between the two leaves a usable model. The latter holds the
    same configuration for people and other programs.

    Args:
        config: all that describes the model, as JSON.
        folder: a folder, or any fsspec path.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    config = config | {"model": asdict(model.config)}
    described = json.dumps(config | {"sha256": digest(config, tensors)}, indent=2)
    files.write(f"{folder}/{WEIGHTS}", safetensors.torch.save(tensors, {"config": described}))
    files.write(f"{folder}/config.json", (described + "\n").encode())


def load(folder: str) -> tuple[Any, dict[str, Any]]:
    """Read a checkpoint that :func:`save` wrote.

    Returns:
        The model, of any trunk, in evaluation mode on the CPU, and its configuration.

    Raises:
        InputError: the file is missing or damaged, or not a checkpoint.
    """
    path = f"{folder}/{WEIGHTS}"
    content = files.read(path)
    try:
        tensors, header = unpack(content)
        config = json.loads(header["config"])
        if config.pop("sha256") != digest(config, tensors):
            raise ValueError("its checksum is wrong")
        with torch.device("meta"):  # allocates nothing: the tensors of the file become the weights
            model = build(ModelConfig(**config["model"]))
        if any(tensor.dtype != torch.float32 for tensor in tensors.values()):
            raise ValueError("its weights are not float32")
        model.load_state_dict(tensors, assign=True)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{path}: damaged, or not a checkpoint ({reason}); train the model again") from error
    return model.eval(), config

"""Tensors in safetensors files, with a SHA-256 over all that a file holds."""

import hashlib
import json
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

MOST_SECTIONS = 100  # in the settings of a run; there are some ten


Tensors = dict[str, Tensor]


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


def parse(settings: str) -> dict[str, Any]:
    """Return settings from their JSON.

    Raises:
        ValueError: it is none, or nested beyond what settings are.
    """
    if settings.count("{") + settings.count("[") > MOST_SECTIONS:
        raise ValueError("settings nested without end")
    return dict(json.loads(settings))


def digest(header: dict[str, Any], tensors: Tensors) -> str:
    """SHA-256 of all that a file holds."""
    sha256 = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        sha256.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        sha256.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()

"""Tensors in safetensors files, with a SHA-256 over everything that a file holds."""

import hashlib
import json
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

Tensors = dict[str, Tensor]


def unpack(content: bytes) -> tuple[Tensors, dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Raises:
        ValueError: it is damaged, or a file of another kind.
    """
    try:
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except safetensors.SafetensorError as error:
        raise ValueError(f"not a safetensors file: {error}") from error
    return tensors, header.get("__metadata__", {})


def digest(header: dict[str, Any], tensors: Tensors) -> str:
    """Return the SHA-256 of a header and of tensors with their names, types and shapes."""
    sha256 = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        sha256.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        sha256.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()

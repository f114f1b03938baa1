"""The weights of the encoder: the published checkpoint, other files, or random ones from a seed."""

import contextlib
import hashlib
import io
import json
import logging
import re
import time
import urllib.request
from dataclasses import asdict, fields
from http.client import HTTPException
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from vap_pipeline.encoders.cpc import STRIDES, Config, CPCEncoder
from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError
from vap_pipeline.io.tensors import unpack

SHIPPED = {"telephone-small": Path(__file__).with_name("telephone-small.safetensors")}
PUBLISHED = "60k_epoch4-d0f474de.pt"
URL = f"https://dl.fbaipublicfiles.com/librilight/CPC_checkpoints/{PUBLISHED}"
TIMEOUT_S = 20  # without an answer
TRIES = 3
PAUSE_S = 3.0  # between two tries

log = logging.getLogger(__name__)


def load(weights: str, seed: int = 0, download: bool = False) -> tuple[CPCEncoder, dict[str, Any]]:
    """Return the encoder and its description in a store: ``weights`` (a name), ``sha256``, ``config``.

    Args:
        weights: a checkpoint file (``.pt``, or ``.safetensors`` as vap-pretrain writes it),
            ``60k_epoch4-d0f474de.pt`` for the published one, also in torch.hub's folder, ``telephone-small``
            for the small ones in this package, or ``random``.
        seed: of random weights.
        download: fetch the published checkpoint if it is missing.

    Raises:
        InputError: the file is missing, is not a checkpoint of this network, or its SHA-256 does not start
            with the digits at the end of its name.
    """
    if weights == "random":
        encoder = random(seed)
        digest = hashlib.sha256()
        for name, tensor in encoder.state_dict().items():
            digest.update(name.encode() + tensor.numpy().tobytes())
        return encoder, _description(_name(weights, seed), digest.hexdigest(), encoder)
    path = _locate(weights, download)
    sha256 = files.sha256(path)
    promised = re.search(r"-([0-9a-f]{8,64})\.pt$", path.name)
    if promised and not sha256.startswith(promised[1]):
        raise InputError(
            f"{path}: damaged or another file: its SHA-256 starts with {sha256[:8]}, not {promised[1]}; "
            f"remove it and {'fetch it again with --download' if path.name == PUBLISHED else 'get it again'}"
        )
    encoder = _read(path)
    return encoder, _description(_name(weights), sha256, encoder)


def described(weights: str, seed: int = 0) -> dict[str, str]:
    """Return the name of weights and, if their file is on this machine, its SHA-256, as :func:`load` does."""
    description = {"weights": _name(weights, seed)}
    if weights != "random":
        with contextlib.suppress(InputError):
            description["sha256"] = files.sha256(_locate(weights, download=False))
    return description


def random(seed: int, config: Config | None = None) -> CPCEncoder:
    """Return an untrained encoder, drawn from ``seed`` alone, whose features still follow the speech.

    With torch's initial weights, features vary by 2 % of their level. Here the first filters are louder than
    their biases, the filters above have zero mean, which cancels what all channels share, and the input of
    the recurrent net is strong.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        encoder = CPCEncoder(config)
        encoder.get_parameter("gEncoder.conv0.weight").mul_(10)
        for i in range(1, len(STRIDES)):
            weight = encoder.get_parameter(f"gEncoder.conv{i}.weight")
            weight.sub_(weight.mean((1, 2), keepdim=True))
            encoder.get_parameter(f"gEncoder.conv{i}.bias").zero_()
        into_recurrent = encoder.get_parameter("gAR.baseNet.weight_ih_l0")
        into_recurrent.sub_(into_recurrent.mean(1, keepdim=True)).mul_(8)
        return encoder.eval()


def save(encoder: CPCEncoder, path: str | Path) -> None:
    """Write an encoder: to ``.pt`` in the format of the published checkpoint, else as safetensors.

    A safetensors file has float16 tensors of the same names, and the configuration as JSON in its header.

    Raises:
        InputError: the file cannot be written.
    """
    config, tensors = asdict(encoder.config), encoder.state_dict()
    if str(path).endswith(".pt"):
        content = io.BytesIO()
        torch.save({"config": config, "weights": tensors}, content)
        files.write(path, content.getvalue())
        return
    halves = {name: tensor.half().contiguous() for name, tensor in tensors.items()}
    files.write(path, safetensors.torch.save(halves, {"config": json.dumps(config)}))


def _name(weights: str, seed: int = 0) -> str:
    return f"random-seed{seed}" if weights == "random" else SHIPPED.get(weights, Path(weights)).name


def _description(name: str, sha256: str, encoder: CPCEncoder) -> dict[str, Any]:
    return {"weights": name, "sha256": sha256, "config": asdict(encoder.config)}


def _locate(weights: str, download: bool) -> Path:
    path = SHIPPED.get(weights, Path(weights))
    if path.exists():
        return path
    if path.name != PUBLISHED:
        known = ", ".join((*SHIPPED, PUBLISHED))
        raise InputError(f"{weights}: no such weights; give a checkpoint file, {known}, or random")
    kept = Path(torch.hub.get_dir(), "checkpoints", PUBLISHED)
    if kept.exists():
        return kept
    if not download:
        raise InputError(
            f"{weights}: not on this machine; add --download to fetch it, or fetch {URL} elsewhere and put "
            f"it at {kept}, or use --weights telephone-small, the small encoder in this package"
        )
    download_with_retries(URL, kept)
    return kept


def download_with_retries(url: str, target: Path) -> None:
    """Fetch ``url`` to ``target``, whose name ends in the first digits of the file's SHA-256.

    Raises:
        InputError: no try brought the right file, or it cannot be written; nothing is kept.
    """
    promised = target.stem.rpartition("-")[2]
    for left in reversed(range(TRIES)):
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
                content = response.read()
            if not hashlib.sha256(content).hexdigest().startswith(promised):
                raise OSError(f"the SHA-256 of the file does not start with {promised}")
            break
        except (OSError, HTTPException) as error:
            if not left:
                raise InputError(
                    f"{url}: cannot be fetched ({error}); fetch it on a machine with a network and put "
                    f"it at {target}"
                ) from error
            log.info("%s: cannot be fetched (%s); trying again in %g s", url, error, PAUSE_S)
            time.sleep(PAUSE_S)
    files.write(target, content)


def _read(path: Path) -> CPCEncoder:
    try:
        if path.suffix == ".safetensors":
            tensors, header = unpack(files.read(path))
            settings = json.loads(header["config"])
        else:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            settings, tensors = checkpoint["config"], checkpoint["weights"]
        config = Config(**{f.name: settings[f.name] for f in fields(Config) if f.name in settings})
        with torch.device("meta"):  # no memory and no random numbers for weights that are replaced
            encoder = CPCEncoder(config)
        # A checkpoint may hold more than the network, such as the parts of a training criterion.
        own = {name: t.float() for name, t in tensors.items() if name.startswith(("gEncoder.", "gAR."))}
        encoder.load_state_dict(own, assign=True)
        for name, tensor in own.items():
            if not tensor.isfinite().all():
                raise ValueError(f"{name} has values that are NaN or infinite")
    except Exception as error:  # a damaged file can raise anything
        reason = files.reason(error)[:250]
        raise InputError(f"{path}: not a CPC checkpoint ({reason}); give another file") from error
    return encoder.eval()

"""The encoder's weights: the published checkpoint, another in its format, or random ones from a seed."""

import contextlib
import hashlib
import io
import json
import re
import zipfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from vap_pipeline.encoders.cpc import STRIDES, Config, CPCEncoder
from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError

SHIPPED = {"telephone-small": Path(__file__).with_name("telephone-small.safetensors")}
PUBLISHED = "60k_epoch4-d0f474de.pt"
URL = f"https://dl.fbaipublicfiles.com/librilight/CPC_checkpoints/{PUBLISHED}"
TIMEOUT_S = 20


def load(weights: str, seed: int = 0, download: bool = False) -> tuple[CPCEncoder, dict[str, Any]]:
    """Return the encoder and what a store says of it: ``weights`` (a name), ``sha256``, ``config``.

    Args:
        weights: a checkpoint file (``.pt``, or ``.safetensors`` as vap-pretrain writes it),
            ``60k_epoch4-d0f474de.pt`` for the published one wherever torch.hub keeps it, ``telephone-small``
            for the small ones that come with this package, or ``random``.
        seed: of random weights.
        download: fetch the published checkpoint where it is absent.

    Raises:
        InputError: no such file, not the one its name promises (the hex digits before ``.pt`` are the start
            of its SHA-256), or not a checkpoint of this network.
    """
    if weights == "random":
        encoder = random(seed)
        digest = hashlib.sha256()
        for name, tensor in encoder.state_dict().items():
            digest.update(name.encode() + tensor.numpy().tobytes())
        return encoder, _description(name_of(weights, seed), digest.hexdigest(), encoder)
    path = _locate(weights, download)
    sha256 = files.sha256(path)
    promised = re.search(r"-([0-9a-f]{8,64})\.pt$", path.name)
    if promised and not sha256.startswith(promised[1]):
        raise InputError(
            f"{path}: damaged or another file: its SHA-256 starts with {sha256[:8]}, not {promised[1]}; "
            f"remove it and {'fetch it again with --download' if path.name == PUBLISHED else 'get it again'}"
        )
    encoder = _read(path)
    return encoder, _description(name_of(weights), sha256, encoder)


def name_of(weights: str, seed: int = 0) -> str:
    """Return what a store calls the weights that :func:`load` is asked for."""
    return f"random-seed{seed}" if weights == "random" else SHIPPED.get(weights, Path(weights)).name


def described(weights: str, seed: int = 0) -> dict[str, str]:
    """Return what a store must say of the weights that :func:`load` is asked for.

    Their name; and, where their file is on this machine, its SHA-256.
    """
    found = {"weights": name_of(weights, seed)}
    if weights != "random":
        with contextlib.suppress(InputError):
            found["sha256"] = files.sha256(_locate(weights, download=False))
    return found


def random(seed: int, config: Config | None = None) -> CPCEncoder:
    """Return an untrained encoder, drawn from ``seed`` alone, through which speech still shows.

    With torch's initial weights every layer mostly passes on what all its inputs share, and features vary by
    2 % of their level. So the first filters are louder, which lets them tell speech from silence against
    their biases; the filters above have zero mean, which cancels the shared part; and the recurrent net's
    input is strong enough to move it.
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
    """Write an encoder's weights: to ``.pt`` in the format of the published checkpoint, else as safetensors.

    The latter hold float16 tensors under the same names, and the configuration as JSON in the header.

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


def _is_plain(tensor: Any) -> bool:
    """Whether it is a tensor of floats that are all there, not one of them that stands for many."""
    if not isinstance(tensor, torch.Tensor) or tensor.is_nested or tensor.device.type != "cpu":
        return False
    if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return False
    return tensor.layout == torch.strided and tensor.nbytes <= tensor.untyped_storage().nbytes()


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
            f"it at {kept}, or use --weights telephone-small, which is small"
        )
    _download(kept)
    return kept


def _download(target: Path) -> None:
    import socket

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)  # torch.hub waits for ever
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(URL, str(target), hash_prefix=target.stem.rpartition("-")[2])
    except (OSError, RuntimeError) as error:  # no network, or not the file that was meant
        raise InputError(
            f"{URL}: cannot be fetched ({error}); fetch it on a machine with a network and put it at {target}"
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _check_archive(path: Path) -> None:
    """Raise ValueError where a few bytes stand for many: torch writes its parts as they are, each once."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
        stored = all(part.compress_type == zipfile.ZIP_STORED for part in parts)
        if not stored or sum(part.file_size for part in parts) > path.stat().st_size:
            raise ValueError("its parts are compressed")


def _read(path: Path) -> CPCEncoder:
    try:
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, "pt") as file:
                described = dict(json.loads(file.metadata()["config"]))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        else:
            _check_archive(path)
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            described, tensors = dict(checkpoint["config"]), dict(checkpoint["weights"])
    except Exception as error:  # whatever a file of any content makes the unpickler raise
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a CPC checkpoint ({reason}); give another file") from error
    try:
        config = Config(**{f.name: described[f.name] for f in fields(Config) if f.name in described})
        with torch.device("meta"):  # the sizes are believed only where the tensors bear them out
            encoder = CPCEncoder(config)
    except ValueError as error:
        raise InputError(f"{path}: a network of another kind: {error}") from error
    # Other parts of a checkpoint, such as a training criterion, may lie beside the two that make the network.
    own = {name: t for name, t in tensors.items() if str(name).startswith(("gEncoder.", "gAR."))}
    expected = encoder.state_dict()
    for name in sorted(own.keys() ^ expected.keys()):
        raise InputError(
            f"{path}: its config {'lacks' if name in own else 'promises'} the tensor {name}, "
            f"its weights {'hold' if name in own else 'lack'} it; give an undamaged checkpoint"
        )
    for name, tensor in own.items():
        shape = tuple(expected[name].shape)
        if not _is_plain(tensor) or tuple(tensor.shape) != shape:
            raise InputError(f"{path}: {name} has the wrong shape, expected {shape}; give another checkpoint")
        if not torch.isfinite(tensor).all():
            raise InputError(
                f"{path}: {name} holds numbers that are not finite; give an undamaged checkpoint"
            )
    encoder.load_state_dict({name: tensor.float().contiguous() for name, tensor in own.items()}, assign=True)
    return encoder.eval()

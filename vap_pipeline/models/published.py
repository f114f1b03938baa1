"""Checkpoints that others published: a torch file in, the stereo model and its encoder out.

The names and shapes are those of docs/definitions.md, "Published checkpoints". There are two lines: the older
one, whose files hold the CPC encoder, and the real-time one, whose files do not. The latter reads voice
activity after the first layer.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vap_pipeline.encoders.cpc import Config, CPCEncoder
from vap_pipeline.io.errors import InputError
from vap_pipeline.models.config import ModelConfig
from vap_pipeline.models.layers import alibi_slopes
from vap_pipeline.models.stereo import StereoModel
from vap_pipeline.turn_taking.frame_rates import RATES_HZ

Tensors = dict[str, Tensor]

LIGHTNING_PREFIX = "net."
ENCODER_PREFIX = "encoder.encoder."
CONVOLUTION = "encoder.downsample.1.weight"
KNOWN = (ENCODER_PREFIX, "objective.")  # read by other means
CODEBOOK = "objective.codebook.emb.weight"
OLDER_LINE_HZ = {5: 50.0, 11: 20.0}  # by kernel
REAL_TIME_LINE_HZ = {5: 20.0, 10: 10.0, 20: 5.0}

LAYER = {
    "norm_attention.weight": ["ln_self_attn.weight"],
    "norm_attention.bias": ["ln_self_attn.bias"],
    "query_key_value.weight": ["mha.query.weight", "mha.key.weight", "mha.value.weight"],
    "attention_out.weight": ["mha.proj.weight"],
    "norm_feedforward.weight": ["ln_ffnetwork.weight"],
    "norm_feedforward.bias": ["ln_ffnetwork.bias"],
    "feedforward_in.weight": ["ffnetwork.0.weight"],
    "feedforward_out.weight": ["ffnetwork.3.weight"],
}
CROSS = {
    "norm_cross.weight": ["ln_src_attn.weight"],
    "norm_cross.bias": ["ln_src_attn.bias"],
    "cross_query.weight": ["mha_cross.query.weight"],
    "cross_key_value.weight": ["mha_cross.key.weight", "mha_cross.value.weight"],
    "cross_out.weight": ["mha_cross.proj.weight"],
}
REST = {
    "trunk.combine_a.weight": ["ar.combinator.h0_a.weight"],
    "trunk.combine_b.weight": ["ar.combinator.h0_b.weight"],
    "trunk.norm.weight": ["ar.combinator.ln.weight"],
    "trunk.norm.bias": ["ar.combinator.ln.bias"],
    "head.weight": ["vap_head.weight"],
    "head.bias": ["vap_head.bias"],
    "activity_head.weight": ["va_classifier.weight"],
    "activity_head.bias": ["va_classifier.bias"],
}
DOWNSAMPLE = {
    "trunk.downsample.convolution.weight": [CONVOLUTION],
    "trunk.downsample.convolution.bias": ["encoder.downsample.1.bias"],
    "trunk.downsample.norm.weight": ["encoder.downsample.2.ln.weight"],
    "trunk.downsample.norm.bias": ["encoder.downsample.2.ln.bias"],
}


class Published(NamedTuple):
    """A published checkpoint.

    Attributes:
        model: the stereo model, in evaluation mode.
        encoder: CPC, if its weights are in the file; None if they are those of the official checkpoint.
        rate_from: where the frame rate was taken from, to show to the user.
        unused: names of tensors that are not part of the stereo model, such as other heads.
    """

    model: StereoModel
    encoder: CPCEncoder | None
    rate_from: str
    unused: tuple[str, ...]


def load(path: str | Path, frame_rate_hz: float | None = None) -> Published:
    """Read a published checkpoint of the stereo model, ``.pt`` or Lightning's ``.ckpt``.

    Args:
        frame_rate_hz: of the model; if None, it follows from the shapes, the parts and the name of the file.

    Raises:
        InputError: the file is missing, not of a stereo model, or does not fit the frame rate.
    """
    tensors = _read(Path(path))
    real_time = not any(name.startswith(ENCODER_PREFIX) for name in tensors)
    try:
        encoder = None if real_time else _encoder(tensors)
        config, rate_from = _config(Path(path), tensors, real_time, frame_rate_hz)
        with torch.device("meta"):
            model = StereoModel(config)
        _check_slopes(tensors, config.heads)
        _check_codebook(tensors)
        sources = _sources(config)
        joined = {name: torch.cat([tensors[part] for part in parts]) for name, parts in sources.items()}
        model.load_state_dict(joined, assign=True)
    except KeyError as error:
        raise InputError(f"{path}: not a stereo model: {error.args[0]} is missing; give another") from error
    except (InputError, ValueError, IndexError, TypeError, RuntimeError) as error:  # shapes of any kind
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{path}: not a published stereo model ({reason}); give another file") from error
    other = tensors.keys() - {name for names in sources.values() for name in names}
    unused = (name for name in sorted(other) if not name.startswith(KNOWN) and not _is_slope(name))
    return Published(model.eval(), encoder, rate_from, tuple(unused))


def _read(path: Path) -> Tensors:
    """Return the tensors of a file under the names of the published state dict."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of any content makes the unpickler raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise InputError(f"{path}: not a file of tensors saved by torch ({reason}); give another") from error
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if any(name.startswith(LIGHTNING_PREFIX) for name in tensors):
        tensors = {
            name.removeprefix(LIGHTNING_PREFIX).replace("vap_head.projection_head.", "vap_head."): tensor
            for name, tensor in tensors.items()
            if name.startswith(LIGHTNING_PREFIX)
        }
    if not tensors:
        raise InputError(f"{path}: no tensors in it; give a published checkpoint")
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"{path}: {name} is not finite; give an undamaged checkpoint")
    return {name: tensor.float().contiguous() for name, tensor in tensors.items()}


def _config(path: Path, tensors: Tensors, real_time: bool, rate_hz: float | None) -> tuple[ModelConfig, str]:
    """Return the sizes that follow from the shapes, and where the frame rate was taken from."""
    kernel = tensors[CONVOLUTION].shape[2] if CONVOLUTION in tensors else 1
    if rate_hz is not None:
        rate_from = "as given"
    elif named := [rate for rate in _rates_in(path.name) if rate in RATES_HZ]:
        rate_hz, rate_from = named[0], "from the file's name"
    elif kernel == 1:
        rate_hz, rate_from = 100.0, "there is no convolution"
    else:
        known = REAL_TIME_LINE_HZ if real_time else OLDER_LINE_HZ
        line = "real-time" if real_time else "older"
        if kernel not in known:
            raise ValueError(f"kernel {kernel} is of no known frame rate; give --frame-rate")
        rate_hz, rate_from = known[kernel], f"kernel {kernel} in a file of the {line} line"
    if rate_hz not in RATES_HZ or (rate_hz == 100) != (kernel == 1):
        raise ValueError(f"a convolution of kernel {kernel} does not fit {rate_hz:g} Hz; check --frame-rate")
    width, heads = tensors["ar.combinator.h0_a.weight"].shape[0], len(tensors["ar_channel.layers.0.mha.m"])
    outputs = tensors["vap_head.weight"].shape[0]
    if outputs != 256:
        raise ValueError(f"its head has {outputs} outputs, not the 256 of the discrete objective")
    if "ar_channel.layers.1.mha.m" in tensors:
        raise ValueError("it has more than one layer a channel")
    config = ModelConfig(
        trunk="stereo",
        model="discrete",
        input_dim=tensors[CONVOLUTION].shape[1] if CONVOLUTION in tensors else width,
        width=width,
        layers=1 + _count(tensors, "ar.layers."),
        heads=heads,
        feedforward=tensors["ar_channel.layers.0.ffnetwork.0.weight"].shape[0],
        frame_rate_hz=rate_hz,
        kernel=kernel,
        positions="alibi",
        activity_layer="first" if real_time else "last",
    )
    return config, f"{rate_hz:g} Hz: {rate_from}"


def _rates_in(name: str) -> list[float]:
    return [float(number) for number in re.findall(r"(?<![\d.])(\d+(?:\.\d+)?) ?hz", name, re.IGNORECASE)]


def _count(names: Iterable[str], prefix: str) -> int:
    """Number of layers under ``prefix``, numbered from 0."""
    numbers = {name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)}
    return len(numbers)


def _sources(config: ModelConfig) -> dict[str, list[str]]:
    """Return, by the names of :class:`StereoModel`, the published tensors that are joined to make it."""
    names = dict(REST)
    if config.rate_hz < 100:
        names |= DOWNSAMPLE
    layers = [("trunk.channel_layer.", "ar_channel.layers.0.", LAYER)]
    for i in range(config.layers - 1):
        layers.append((f"trunk.stereo_layers.{i}.", f"ar.layers.{i}.", LAYER | CROSS))
    for ours, theirs, parts in layers:
        names |= {ours + name: [theirs + source for source in sources] for name, sources in parts.items()}
    return names


def _encoder(tensors: Tensors) -> CPCEncoder:
    own = {
        name.removeprefix(ENCODER_PREFIX): tensor
        for name, tensor in tensors.items()
        if name.startswith((f"{ENCODER_PREFIX}gEncoder.", f"{ENCODER_PREFIX}gAR."))
    }
    config = Config(
        hiddenEncoder=own["gEncoder.conv0.weight"].shape[0],
        hiddenGar=own["gAR.baseNet.weight_hh_l0"].shape[1],
        nLevelsGRU=sum(name.startswith("gAR.baseNet.weight_hh_l") for name in own),
    )
    with torch.device("meta"):
        encoder = CPCEncoder(config)
    encoder.load_state_dict(own, assign=True)
    return encoder.eval()


def _is_slope(name: str) -> bool:
    return name.endswith((".mha.m", ".mha_cross.m"))


def _check_slopes(tensors: Tensors, heads: int) -> None:
    expected = alibi_slopes(heads)
    for name, tensor in tensors.items():
        if _is_slope(name) and not torch.allclose(tensor.flatten(), expected):
            raise ValueError(f"{name} holds other slopes than ALiBi's")


def _check_codebook(tensors: Tensors) -> None:
    """Raise ValueError if the file numbers the classes differently; a table of other things is ignored."""
    bits = (torch.arange(256)[:, None] >> torch.arange(8) & 1).float()
    table = tensors.get(CODEBOOK, bits)
    if torch.isin(table, torch.tensor([0.0, 1.0])).all() and not torch.equal(table, bits):
        raise ValueError(f"{CODEBOOK} numbers the classes differently")

"""Load a trained model of any kind, with its encoder."""

from pathlib import Path
from typing import Any

from vap_pipeline.encoders import cpc_weights
from vap_pipeline.encoders.cpc import CPCEncoder
from vap_pipeline.io.errors import InputError
from vap_pipeline.models import checkpoint, published
from vap_pipeline.predict.predictor import Predictor
from vap_pipeline.predict.stereo import StereoPredictor

PUBLISHED_SUFFIXES = (".pt", ".ckpt")
SHIPPED = {"sample-discrete": Path(checkpoint.__file__).with_name("sample-discrete")}


def load(
    model: str | Path, weights: str | None = None, frame_rate_hz: float | None = None
) -> Predictor | StereoPredictor:
    """Load a trained model and its encoder.

    Args:
        model: the folder of a checkpoint that vap-train or vap-import wrote, a published file of the stereo
            model (``.pt`` or ``.ckpt``), or ``sample-discrete``, a small model in the package that was
            trained on synthetic calls alone.
        weights: the encoder's weights; None for those that the checkpoint names, found beside it, in the
            package or in torch.hub's cache.
        frame_rate_hz: of a published file, if neither its name nor its shapes tell.

    Raises:
        InputError: no checkpoint, or a damaged one, or its encoder's weights are not on this machine.
    """
    path = str(SHIPPED.get(str(model), model))
    if path.endswith(PUBLISHED_SUFFIXES):
        file = published.load(path, frame_rate_hz)
        encoder, name = file.encoder, "in the file"
        if encoder is None:
            encoder, facts = cpc_weights.load(weights or cpc_weights.PUBLISHED)
            name = facts["weights"]
        return StereoPredictor(f"{path} ({file.rate_from})", file.model, {}, encoder, name)
    network, config = checkpoint.load(path)
    encoder, name = _encoder(path, config, weights)
    trunk = network.config.trunk
    if trunk == "stereo":
        return StereoPredictor(str(model), network, config, encoder, name)
    if trunk != "mono" or network.config.rate_hz != 100 or network.config.alibi:
        raise InputError(f"{path}: a {trunk} model of this kind cannot be used for prediction yet")
    return Predictor(str(model), network, config, encoder, name)


def _encoder(folder: str, config: dict[str, Any], weights: str | None) -> tuple[CPCEncoder, str]:
    """Return the encoder that a checkpoint names, and the name of its weights."""
    wanted = config["store"]["encoder"]
    name, seed = wanted["weights"], 0
    shipped = {path.name: key for key, path in cpc_weights.SHIPPED.items()}
    if weights is None and name.startswith("random-seed"):
        weights, seed = "random", int(name.removeprefix("random-seed"))
    if weights is None:
        beside = Path(folder, name)
        weights = str(beside) if beside.is_file() else shipped.get(name, name)
    try:
        encoder, facts = cpc_weights.load(weights, seed)
    except InputError as error:
        raise InputError(f"{error} (or give the encoder's weights with --weights)") from error
    if facts["sha256"] != wanted.get("sha256", facts["sha256"]):
        raise InputError(
            f"{folder}: trained on features of {name}, but {weights} has another SHA-256; give the same "
            "weights with --weights"
        )
    return encoder, name

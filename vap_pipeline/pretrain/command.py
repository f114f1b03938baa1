"""Pretrain an encoder on the speech of corpora and write its model card; probe encoders."""

import argparse
import logging
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from vap_pipeline.artefacts import manifest
from vap_pipeline.audio.rates import SAMPLE_RATE_HZ
from vap_pipeline.encoders import cpc_weights
from vap_pipeline.encoders.cpc import Config, CPCEncoder
from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError
from vap_pipeline.pretrain.batches import WINDOW_SAMPLES
from vap_pipeline.pretrain.loop import Progress, pretrain
from vap_pipeline.pretrain.pitch import log_mel
from vap_pipeline.pretrain.probe import probe, table
from vap_pipeline.pretrain.speech import Stretch, digest, stretches
from vap_pipeline.settings.pretrain import PretrainSettings

SHORTEST_S = 2.0  # shorter stretches of speech are left out

Places = Iterable[tuple[Path, Path]]  # the folders of a manifest and of its audio

log = logging.getLogger(__name__)


def train_encoder(
    args: argparse.Namespace, name: str, places: Places, settings: PretrainSettings, folder: str
) -> None:
    """Train an encoder, and write it to ``folder`` with a card that says how good it is.

    Args:
        args: of the command line: ``init``, ``download``, ``resume`` and ``workers``.
        name: of the corpora together.

    Raises:
        InputError: weights, manifests or audio cannot be read, or training fails.
    """
    if args.init:
        encoder, start = cpc_weights.load(args.init, download=args.download)
    else:
        encoder = cpc_weights.random(settings.seed, Config(**settings.sizes()))  # type: ignore[arg-type]
        start = {"weights": f"random-seed{settings.seed}"}
    training, held_back = (_speech(places, split) for split in ("train", "test"))
    if not training:
        raise InputError(
            f"{name}: nobody speaks for {SHORTEST_S:g} s without a pause in the training conversations; "
            "give other conversations"
        )
    sizes = ("width", "dim", "levels", "recurrent")
    described = {
        "corpus": name,
        "start": start,
        "encoder": asdict(encoder.config),
        "pretrain": {key: value for key, value in asdict(settings).items() if key not in sizes},
        "data": {"training": digest(training), "held_back": digest(held_back)},
    }
    workers = 4 * torch.cuda.is_available() if args.workers is None else args.workers
    progress = pretrain(
        encoder, training, held_back, settings, described, folder, args.resume, workers, track=True
    )
    if PartialState().is_main_process:
        try:
            measured = _measure({f"this, {encoder.dim} wide": encoder.cpu()}, held_back, settings.seed)
        except InputError as error:  # the run is worth keeping without
            measured = f"not measured: {error}\n"
        card = _card(described, progress, training, held_back, measured)
        files.write(f"{folder}/card.md", card.encode())
        log.info("%s%s", measured, folder)


def _card(
    settings: dict[str, Any],
    progress: Progress,
    training: list[Stretch],
    held_back: list[Stretch],
    measured: str,
) -> str:
    """Return the model card: the encoder's speech, training and measured quality, in Markdown."""
    config, sizes = settings["pretrain"], settings["encoder"]
    heard_h = progress.step * config["speakers"] * config["windows"] * WINDOW_SAMPLES / SAMPLE_RATE_HZ / 3600
    checks = [row for row in progress.history if "held_back_loss" in row]
    result = "not measured"
    if checks:
        result = (
            f"loss {checks[-1]['held_back_loss']:.3f}; future frames recognised: "
            f"{checks[-1]['held_back_accuracy']:.1%} (by chance {1 / (1 + config['negatives']):.1%})"
        )
    return f"""\
# CPC encoder, trained on {settings["corpus"]}

- **Network:** five convolutions of {sizes["hiddenEncoder"]} channels, {sizes["arMode"]} {sizes["hiddenGar"]}
  wide, {sizes["nLevelsGRU"]} deep; 100 features a second of 16 kHz audio.
- **Speech:** {settings["corpus"]}: {_amount(training)}; held back: {_amount(held_back)}.
- **Training:** contrastive predictive coding from {settings["start"]["weights"]}, {progress.step} steps of
  {config["speakers"]} x {config["windows"]} windows of 1.28 s, {heard_h:.1f} h heard in all;
  {config["negatives"]} negatives of the same speaker, {config["ahead"]} frames ahead; AdamW,
  {config["learning_rate"]:g}, cosine; seed {config["seed"]}.
- **On held-back conversations:** {result}.

Linear probes of single frames on held-back conversations; phones on synthetic speech:

{measured}"""


def _amount(stretches: list[Stretch]) -> str:
    hours = sum(stretch.end_s - stretch.start_s for stretch in stretches) / 3600
    return f"{hours:.2f} h of {len({stretch.speaker for stretch in stretches})} speakers"


def probe_encoders(weights: list[str], places: Places, split: str, seed: int) -> str:
    """Return the table of the probes of encoders, as Markdown.

    Args:
        weights: checkpoints, as :func:`cpc_weights.load` takes them.
        split: of the speech to probe with: test, train or all.
        seed: of random weights and probes.
    """
    encoders = {name: cpc_weights.load(name, seed)[0] for name in weights}
    return _measure(encoders, _speech(places, split), seed)


def _speech(places: Places, split: str) -> list[Stretch]:
    read = [(manifest.read(folder), audio) for folder, audio in places]
    return [s for listed, audio in read for s in stretches(listed, audio, listed.select(split), SHORTEST_S)]


def _measure(encoders: dict[str, CPCEncoder], held_back: list[Stretch], seed: int) -> str:
    """Return the table of ``encoders``, of random weights of the same shapes, and of log-mel features."""
    configs = dict.fromkeys(encoder.config for encoder in encoders.values())
    random = {_shape(config): cpc_weights.random(seed, config) for config in configs or [Config()]}
    return table(probe({**encoders, **random, "log-mel": log_mel}, held_back, seed))


def _shape(config: Any) -> str:
    levels = f" x {config.nLevelsGRU}" if config.nLevelsGRU > 1 else ""
    return f"random, {config.hiddenEncoder} and {config.arMode} {config.hiddenGar}{levels}"

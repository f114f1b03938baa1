"""Train on one fold: open the store, check it against the manifest, and start the training loop."""

import argparse
import logging
import tempfile
from dataclasses import asdict, replace

import torch
from accelerate import PartialState

from vap_pipeline.artefacts import manifest
from vap_pipeline.artefacts.store import Store, check_store, open_store
from vap_pipeline.artefacts.windows import Windows
from vap_pipeline.encoders.cpc_weights import described
from vap_pipeline.io.errors import InputError
from vap_pipeline.models.checkpoint import load
from vap_pipeline.models.network import ModelConfig
from vap_pipeline.settings.corpus import Corpus
from vap_pipeline.settings.train import ModelSettings, TrainSettings
from vap_pipeline.train.loop import train
from vap_pipeline.turn_taking.events import lengths
from vap_pipeline.turn_taking.projection import bins

log = logging.getLogger(__name__)


def train_fold(
    args: argparse.Namespace, corpus: Corpus, config: TrainSettings, sizes: ModelSettings, folder: str
) -> None:
    """Train a model on every fold but one, and validate it on that one.

    Args:
        args: of the command line.
        folder: of the checkpoint.

    Raises:
        InputError: the store and the manifest do not belong together, or training fails.
    """
    model, fold = args.model, args.fold
    ModelConfig(model=model, **asdict(sizes))  # refuses an unknown model before anything is read
    bins(model, lengths(corpus.events).look_ahead)
    listed = manifest.read(args.manifest or corpus.manifest_folder)
    opened = _open(corpus, args.store)
    sets = [listed.training_set(fold), listed.validation_set(fold)]
    check_store(listed, opened, [*sets[0], *sets[1]])
    training, validation = (Windows(opened, names, corpus.events) for names in sets)
    for windows, purpose in ((training, "train"), (validation, "validate")):
        if not len(windows):
            raise InputError(
                f"fold {fold}: its conversations to {purpose} on hold no window of "
                f"{corpus.events.window_s:g} s; give the corpus longer conversations"
            )
    config = replace(config, seed=config.seed + fold)
    network = ModelConfig(model=model, input_dim=opened.dim, **asdict(sizes))
    settings = {
        "corpus": corpus.name,
        "fold": fold,
        "seed": config.seed,
        "model": asdict(network),
        "train": asdict(config),
        "events": corpus.events.described(),
        "store": opened.description,
        "data": {"training": training.digest(), "validation": validation.digest()},
    }
    workers = (4 if torch.cuda.is_available() else 0) if args.workers is None else args.workers
    if args.fast_dev_run:
        once = replace(config, epochs=1, checks_per_epoch=1)
        with tempfile.TemporaryDirectory() as kept:
            train(training, validation, network, once, settings, kept, workers=workers, first_batch_only=True)
            if PartialState().is_main_process:  # the only process that writes
                load(kept)
        log.info("fast-dev-run: one batch was trained on, checked, saved and loaded; nothing is kept")
        return
    progress = train(
        *(training, validation, network, config, settings, folder),
        resumed=args.resume,
        workers=workers,
        track=True,
    )
    best = progress.history[progress.best_row]
    log.info("best at step %d: %s", best["step"], {k: round(v, 4) for k, v in best.items() if k != "step"})
    log.info("%s", folder)


def _open(corpus: Corpus, store: str | None) -> Store:
    """Open a store; the corpus's own must be made with the weights that its settings name."""
    weights = corpus.extract.weights
    if store or not weights:
        return open_store(store or corpus.store)
    return open_store(corpus.store, {"encoder": described(weights, corpus.extract.seed)})

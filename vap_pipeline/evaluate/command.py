"""Score one checkpoint: check that it, the store and the manifest belong together, and write the scores."""

import argparse
import logging
from typing import Any

import numpy as np
import torch

from vap_pipeline.artefacts import manifest, score_files
from vap_pipeline.artefacts.store import Store, check_store, open_store
from vap_pipeline.artefacts.windows import Windows
from vap_pipeline.evaluate.score import best_thresholds, evaluate
from vap_pipeline.io.differences import differences
from vap_pipeline.io.errors import InputError
from vap_pipeline.models.checkpoint import load
from vap_pipeline.models.network import ProjectionModel
from vap_pipeline.runtime import resume
from vap_pipeline.settings.corpus import Corpus
from vap_pipeline.settings.events import EventSettings, recorded
from vap_pipeline.settings.fields import given_flags, override
from vap_pipeline.turn_taking.published import COLUMNS
from vap_pipeline.turn_taking.scores import numbered

log = logging.getLogger(__name__)


def score_checkpoint(corpus: Corpus, args: argparse.Namespace) -> None:
    """Score a checkpoint on the corpus's test set and write the files of its scores.

    Args:
        args: the flags of ``vap-evaluate score``. Event settings given as flags may differ from those of
            training: the thresholds are then computed on the validation set.

    Raises:
        InputError: the checkpoint, the store and the manifest do not belong together, or cannot be read.
    """
    if args.checkpoint is None and (args.model is None or args.fold is None):
        raise InputError("no model selected; give --model and --fold, or --checkpoint")
    events = override(corpus.events, args)
    folder = args.checkpoint or corpus.checkpoint(args.model, args.fold)
    network, config = _load(folder, args.model, args.fold)
    name, fold, seed = network.config.model, config["fold"], config["seed"]
    same_events = _same_events(folder, config, events, by_flags=bool(given_flags(args, EventSettings)))
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        network.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {device}: {str(error).splitlines()[0]}") from error

    store = open_store(args.store or corpus.store, expect=config["store"])
    listed = manifest.read(args.manifest or corpus.manifest_folder)
    sets = {"validation": listed.validation_set(fold), "test": listed.test_set()}
    _check_sets(corpus.name, fold, sets, store)
    check_store(listed, store, [*sets["validation"], *sets["test"]])
    validation, test = (Windows(store, names, events) for names in sets.values())
    best = _noted_thresholds(folder, config, validation, corpus.name) if same_events else None
    if best is None:
        best = best_thresholds(network, validation, seed)
    evaluation = evaluate(network, test, best, seed)
    path = args.out or corpus.scores(name, fold)
    identity = {"corpus": corpus.name, "model": name, "fold": fold, "seed": seed}
    rows = [identity | row for row in evaluation.rows]
    score_files.write(path, rows, evaluation.events, evaluation.timeline, store.weights, events.described())
    values = {row["metric"]: row["value"] for row in evaluation.rows if row["level"] == "frame"}
    shown = [
        f"{column} {values[metric]:.3f} ({metric})" for column, metric in COLUMNS.items() if metric in values
    ]
    log.info("%s: %s", path, ", ".join(shown))


def _load(folder: str, model: str | None, fold: int | None) -> tuple[ProjectionModel, dict[str, Any]]:
    """Load a checkpoint, and refuse one that is not the wanted one or is out of date."""
    network, config = load(folder)
    if missing := {"fold", "seed", "store"} - config.keys():
        raise InputError(f"{folder}: its config does not say {min(missing)}; train the model again")
    later = resume.settings_of(folder)
    if changed := differences({key: config.get(key) for key in later}, later):
        raise InputError(
            f"{folder}: another training has begun in this folder since its model was saved ({changed}); "
            f"continue it with vap-train --resume, or remove {folder}/{resume.RESUME} to score the model"
        )
    for flag, given, trained in ("--model", model, network.config.model), ("--fold", fold, config["fold"]):
        if given is not None and given != trained:
            raise InputError(f"{folder}: {flag} {given} was given, but this checkpoint is of {trained}")
    return network, config


def _same_events(folder: str, config: dict[str, Any], events: EventSettings, by_flags: bool) -> bool:
    """Whether a checkpoint, whose thresholds depend on them, was trained with these event settings.

    Raises:
        InputError: the settings do not fit the checkpoint.
    """
    trained = recorded(config.get("events"), folder)
    changed = differences(trained.described(), events.described(), "events")
    if not changed:
        return True
    windows = ("window_s", "hop_s", "horizon_s")
    if any(getattr(trained, name) != getattr(events, name) for name in windows):
        raise InputError(f"{folder}: trained with other windows ({changed}); train the model again")
    if not by_flags:
        raise InputError(
            f"{folder}: trained with other event settings ({changed}); train the model again, or give the "
            "settings as flags to score it with thresholds computed on the validation set"
        )
    log.info("event settings differ from those of training: %s", changed)
    return False


def _check_sets(corpus: str, fold: int, sets: dict[str, list[str]], store: Store) -> None:
    for which, names in sets.items():
        missing = [name for name in names if name not in store]
        if missing:
            raise InputError(
                f"{store.path}: {len(missing)} of the {len(names)} conversations of the {which} set are "
                f"missing, such as {missing[0]}; run vap-extract, or take them out of the manifest"
            )
        if not names:
            raise InputError(
                f"{corpus}: the {which} set of fold {fold} has no conversations; make the manifest again "
                "with vap-manifest and another --test or --folds"
            )


def _noted_thresholds(
    folder: str, config: dict[str, Any], validation: Windows, corpus: str
) -> np.ndarray | None:
    """Return the thresholds that training measured on the validation set, None if it did not.

    Raises:
        InputError: the validation set has changed since, or the thresholds are damaged.
    """
    trained_on = config.get("data", {}).get("validation")
    same_set = trained_on == validation.digest()
    if config.get("corpus") == corpus and trained_on is not None and not same_set:
        raise InputError(
            f"{folder}: the conversations of fold {config['fold']} have changed since training; train the "
            "model again"
        )
    if not same_set or not config.get("thresholds"):
        return None
    try:
        return numbered(config["thresholds"])
    except ValueError as error:
        raise InputError(f"{folder}: its thresholds are damaged ({error}); train the model again") from error

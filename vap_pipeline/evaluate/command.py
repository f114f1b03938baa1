"""Score one checkpoint: check that it, the store and the manifest belong together, and write the scores."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vap_pipeline.artefacts import manifest, score_files
from vap_pipeline.artefacts.store import Store, check_store, open_store
from vap_pipeline.artefacts.windows import Windows
from vap_pipeline.evaluate.score import best_thresholds, evaluate
from vap_pipeline.io.errors import InputError
from vap_pipeline.models.checkpoint import load
from vap_pipeline.models.network import ProjectionModel
from vap_pipeline.runtime import resume
from vap_pipeline.settings.corpus import Corpus
from vap_pipeline.settings.events import EventSettings, recorded
from vap_pipeline.turn_taking.published import COLUMNS
from vap_pipeline.turn_taking.scores import numbered

log = logging.getLogger(__name__)


def score_checkpoint(
    corpus: Corpus,
    events: EventSettings,
    other_events: bool,
    *,
    model: str | None,
    fold: int | None,
    checkpoint: str | None,
    store: str | None,
    manifest_folder: Path | None,
    out: str | None,
    device: str | None,
) -> None:
    """Score a checkpoint on the corpus's test set and write the files of its scores.

    Args:
        events: what counts as an event.
        other_events: the user asked for ``events`` by flags, so they may differ from those of training; the
            thresholds are then found on the validation set.
        model, fold, checkpoint: which checkpoint: the first two, or its folder.
        store, manifest_folder, out, device: None for the corpus's own places, and for a GPU if there is one.

    Raises:
        InputError: the checkpoint, the store and the manifest do not belong together, or cannot be read.
    """
    if checkpoint is None and (model is None or fold is None):
        raise InputError("no model selected; give --model and --fold, or --checkpoint")
    folder = checkpoint or corpus.checkpoint(str(model), int(fold or 0))
    network, config = _load(folder, model, fold)
    name, fold, seed = network.config.model, config["fold"], config["seed"]
    trained = recorded(config.get("events"), folder)
    _check_events(folder, trained, events, other_events)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        network.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {device}: {str(error).splitlines()[0]}") from error

    opened = open_store(store or corpus.store, expect=config["store"])
    listed = manifest.read(manifest_folder or corpus.manifest_folder)
    sets = {"validation": listed.validation_set(fold), "test": listed.test_set()}
    _check_sets(corpus.name, fold, sets, opened)
    check_store(listed, opened, [*sets["validation"], *sets["test"]])
    validation, test = (Windows(opened, names, events) for names in sets.values())
    best = _thresholds(
        folder,
        config,
        network,
        validation,
        corpus.name,
        same_events=trained.described() == events.described(),
    )
    evaluation = evaluate(network, test, best, seed)
    path = out or corpus.scores(name, fold)
    identity = {"corpus": corpus.name, "model": name, "fold": fold, "seed": seed}
    rows = [identity | row for row in evaluation.rows]
    score_files.write(path, rows, evaluation.events, evaluation.timeline, opened.weights, events.described())
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
    if changed := resume.differences({key: config.get(key) for key in later}, later):
        raise InputError(
            f"{folder}: another training has begun in this folder since its model was saved ({changed}); "
            f"continue it with vap-train --resume, or remove {folder}/{resume.RESUME} to score the model"
        )
    for flag, given, trained in ("--model", model, network.config.model), ("--fold", fold, config["fold"]):
        if given is not None and given != trained:
            raise InputError(f"{folder}: {flag} {given} was given, but this checkpoint is of {trained}")
    return network, config


def _check_events(folder: str, trained: EventSettings, asked: EventSettings, by_flags: bool) -> None:
    """Refuse event settings that do not fit a checkpoint, whose thresholds depend on them."""
    changed = resume.differences(trained.described(), asked.described(), "events")
    if not changed:
        return
    windows = ("window_s", "hop_s", "horizon_s")
    if any(getattr(trained, name) != getattr(asked, name) for name in windows):
        raise InputError(f"{folder}: trained with other windows ({changed}); train the model again")
    if not by_flags:
        raise InputError(
            f"{folder}: trained with other event settings ({changed}); train the model again, or give the "
            "settings as flags to score it with thresholds that are found on the validation set"
        )
    log.info("event settings differ from those of training: %s", changed)


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


def _thresholds(
    folder: str,
    config: dict[str, Any],
    model: ProjectionModel,
    validation: Windows,
    corpus: str,
    same_events: bool,
) -> np.ndarray:
    """Return the thresholds that training measured on the validation set, or find them there."""
    trained_on, digest = config.get("data", {}).get("validation"), validation.digest()
    if config.get("corpus") == corpus and trained_on not in (None, digest):
        raise InputError(
            f"{folder}: the conversations of fold {config['fold']} have changed since training; train the "
            "model again"
        )
    noted = config.get("thresholds") if trained_on == digest and same_events else None
    if not noted:
        return best_thresholds(model, validation, config["seed"])
    try:
        return numbered(noted)
    except ValueError as error:
        raise InputError(f"{folder}: its thresholds are damaged ({error}); train the model again") from error

"""Read the scores of all models and folds, compare them, and write the report."""

import json
import logging
import re

import pyarrow as pa

from vap_pipeline.artefacts import score_files
from vap_pipeline.io import files, parquet
from vap_pipeline.io.differences import differences
from vap_pipeline.io.errors import InputError
from vap_pipeline.report import figures, table
from vap_pipeline.report.anova import REFERENCE, compare
from vap_pipeline.settings.corpus import Corpus

log = logging.getLogger(__name__)

Run = tuple[str, int]  # model and fold


def write_report(corpus: Corpus, folder: str, out: str) -> str:
    """Write the report of the scores in ``folder`` to ``out``; return its tables as Markdown.

    Raises:
        InputError: scores are missing, damaged, or do not belong together, or a file cannot be written.
    """
    paths = find(folder, corpus.name, corpus.models, corpus.folds)
    tables = {run: score_files.read_scores(path) for run, path in paths.items()}
    _check(paths, tables)
    scores = pa.concat_tables(tables.values())
    encoders = {(t.schema.metadata or {}).get(b"encoder", b"unknown").decode() for t in tables.values()}
    curves = figures.curves(paths, tables)
    comparison = compare(scores)
    text = table.report(corpus.name, sorted(encoders), scores, comparison)
    shown = next((run for run in paths if run[0] == REFERENCE), next(iter(paths)))
    contents: dict[str, bytes] = {
        "anova.parquet": parquet.encode(comparison),
        "metrics.json": (json.dumps(table.metrics(scores, comparison), indent=2) + "\n").encode(),
        "precision_recall.csv": figures.points(curves),
        "precision_recall.png": figures.precision_recall(corpus.name, curves),
        "timeline.png": figures.timeline(corpus.name, *shown, paths[shown], tables[shown]),
        "table.md": text.encode(),
    }
    for name, content in contents.items():
        files.write(f"{out}/{name}", content)
    log.info("written: %s", ", ".join(f"{out}/{name}" for name in contents))
    return text


def _check(paths: dict[Run, str], tables: dict[Run, pa.Table]) -> None:
    """Refuse files of other models and folds than their names say, and scores of different event settings."""
    first = next(iter(tables))
    expected = score_files.event_settings(tables[first], paths[first])
    for run, scores in tables.items():
        model, fold = scores["model"][0].as_py(), scores["fold"][0].as_py()
        if (model, fold) != run:
            raise InputError(f"{paths[run]}: scores of {model} on fold {fold}; {score_files.CURE}")
        if changed := differences(expected, score_files.event_settings(scores, paths[run]), "events"):
            raise InputError(
                f"{paths[run]}: scored with other event settings than {paths[first]} ({changed}); score all "
                "models with the same settings"
            )


def find(
    folder: str, corpus: str, models: list[str] | None = None, folds: list[int] | None = None
) -> dict[Run, str]:
    """Return the files of scores below ``folder`` by model and fold, in the order of these.

    Without ``models`` or ``folds``, those of all files are taken.

    Raises:
        InputError: a model's scores on a fold are missing; the message says how to make them.
    """
    fs, inner = files.filesystem(folder)
    with files.reading(folder):
        listed = fs.glob(f"{inner}/*/fold-*.parquet")
    scores, folds_seen = {}, set()
    for path in listed:
        if match := re.search(r"([^/\\]+)[/\\]fold-(\d+)(\.events)?\.parquet$", path):
            folds_seen.add(int(match[2]))  # also if a kill has left events without their scores
            if not match[3]:
                scores[match[1], int(match[2])] = f"{folder}/{match[1]}/fold-{match[2]}.parquet"
    models = models or sorted({model for model, _ in scores}, key=lambda model: (model != REFERENCE, model))
    folds = folds or sorted(folds_seen)
    wanted = [(model, fold) for model in models for fold in folds]
    missing = [run for run in wanted if run not in scores]
    if missing or not wanted:
        model, fold = missing[0] if missing else (REFERENCE, 0)
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise InputError(
            f"{folder}: no scores of {model} on fold {fold}{others}; run `vap-evaluate score --corpus "
            f"{corpus} --model {model} --fold {fold}`, or take it out of the corpus's `models` and `folds`"
        )
    return {run: scores[run] for run in wanted}

"""``vap-anova``: compare the models over the folds, and write the report."""

import argparse
import json
import logging
import re
import warnings
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vap_pipeline import command, files, parquet
from vap_pipeline.errors import InputError
from vap_pipeline.evaluate import tables
from vap_pipeline.scores import LEVELS, METRICS

log = logging.getLogger(__name__)

REFERENCE = "discrete"  # the model that the others are compared with

COMPARISON = pa.schema(
    [("metric", pa.string()), ("level", pa.string()), ("model", pa.string()), ("folds", pa.int64())]
    + [(name, pa.float64()) for name in ("mean", "sd", "F")]
    + [
        ("df_between", pa.int64()),
        ("df_within", pa.int64()),
        ("p", pa.float64()),
        ("difference", pa.float64()),
    ]
    + [
        (f"{number}_{kind}{correction}", pa.float64())
        for kind in ("unpaired", "paired")
        for number, correction in (("t", ""), ("p", ""), ("p", "_holm"))
    ]
)

DESCRIPTION = """\
Compare the models over the folds: a one-way ANOVA per score, then t-tests of the discrete model against each
other, unpaired as published and paired, raw and corrected for their number (Holm).

reads   scores/CORPUS/MODEL/fold-K.parquet, …events.parquet, …timeline.parquet of all models and folds
writes  table.md                means and deviations in the layout of the paper's Table 1, and the tests
        anova.parquet           the same, a row per score, level and model
        metrics.json            the means, for `dvc metrics show`
        precision_recall.png    the four tasks, a curve per model; the points in precision_recall.csv
        timeline.png            half a minute of one conversation, as the discrete model sees it"""


def main(argv: list[str] | None = None) -> int:
    """Run ``vap-anova`` and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="vap-anova",
        description=DESCRIPTION,
        epilog="example: vap-anova --corpus sample",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_corpus(parser)
    parser.add_argument("--scores", metavar="DIR", help="folder of the scores (default: scores/CORPUS)")
    parser.add_argument("--out", metavar="DIR", help="folder of the report (default: reports/CORPUS)")
    return command.run(_run, parser, argv)


def _run(args: argparse.Namespace) -> None:
    settings = command.read_corpus(args.params, args.corpus)
    corpus = settings["name"]
    folder, out = args.scores or f"scores/{corpus}", args.out or f"reports/{corpus}"
    models, folds = (command.pick(None, settings, each, default=[]) for each in ("models", "folds"))
    if not all(type(model) is str for model in models):
        raise InputError(f"setting models is {models!r}, not a list of names; mend params.yaml")
    if not all(type(fold) is int for fold in folds):
        raise InputError(f"setting folds is {folds!r}, not a list of whole numbers; mend params.yaml")
    paths = find(folder, corpus, models, folds)
    found = {run: tables.read_scores(path) for run, path in paths.items()}
    for run, each in found.items():
        if (of := (each["model"][0].as_py(), each["fold"][0].as_py())) != run:
            raise InputError(f"{paths[run]}: scores of {of[0]} on fold {of[1]}; {tables.CURE}")
    scores = pa.concat_tables(found.values())
    encoders = {(each.schema.metadata or {}).get(b"encoder", b"unknown").decode() for each in found.values()}

    from vap_pipeline.evaluate import figures, report

    curves = figures.curves(paths, found)
    comparison = compare(scores)
    table = report.table(corpus, sorted(encoders), scores, comparison)
    timeline = next((run for run in paths if run[0] == REFERENCE), next(iter(paths)))
    written: dict[str, bytes] = {
        "anova.parquet": parquet.encode(comparison),
        "metrics.json": (json.dumps(report.metrics(scores, comparison), indent=2) + "\n").encode(),
        "precision_recall.csv": figures.points(curves),
        "precision_recall.png": figures.precision_recall(corpus, curves),
        "timeline.png": figures.timeline(corpus, *timeline, paths[timeline], found[timeline]),
        "table.md": table.encode(),
    }
    for name, content in written.items():
        files.write(f"{out}/{name}", content)
    command.show(table)
    log.info("written: %s", ", ".join(f"{out}/{name}" for name in written))


def find(
    folder: str, corpus: str, models: list[str] | None = None, folds: list[int] | None = None
) -> dict[tuple[str, int], str]:
    """Return the files of scores below ``folder`` by model and fold, in the order of these.

    Where ``models`` or ``folds`` is not given, those that any file is of are taken.

    Raises:
        InputError: a model's scores on a fold are missing; the message says how to make them.
    """
    fs, inner = fsspec.core.url_to_fs(folder)
    try:
        listed = fs.glob(f"{inner}/*/fold-*.parquet")
    except Exception as error:  # remote file systems have errors of their own
        raise InputError(f"{folder}: cannot be read ({files.reason(error)})") from error
    found, scored = {}, set()
    for path in listed:
        if match := re.search(r"([^/\\]+)[/\\]fold-(\d+)(\.events)?\.parquet$", path):
            scored.add(int(match[2]))  # also where a kill has left events without their scores
            if not match[3]:
                found[match[1], int(match[2])] = f"{folder}/{match[1]}/fold-{match[2]}.parquet"
    models = models or sorted({model for model, _ in found}, key=lambda model: (model != REFERENCE, model))
    folds = folds or sorted(scored)
    wanted = [(model, fold) for model in models for fold in folds]
    missing = [run for run in wanted if run not in found]
    if missing or not wanted:
        model, fold = missing[0] if missing else (REFERENCE, 0)
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise InputError(
            f"{folder}: no scores of {model} on fold {fold}{others}; run `vap-evaluate score --corpus "
            f"{corpus} --model {model} --fold {fold}`, or take it out of the corpus's `models` and `folds`"
        )
    return {run: found[run] for run in wanted}


def compare(scores: pa.Table, reference: str = REFERENCE) -> pa.Table:
    """Compare the models on each score.

    The folds are the same for every model, so the t-tests are made paired too. The published ones are
    unpaired, with the variances taken as equal. Holm's correction is for the comparisons of one score. Losses
    of different models are of different things and are not compared.

    Args:
        scores: the rows of all models and folds, with the columns of files of scores.

    Returns:
        A row per metric, level and model: ``folds``, ``mean``, ``sd`` (of a sample, n − 1); the ANOVA's
        ``F``, ``df_between``, ``df_within`` and ``p``, the same for all models; and of ``reference`` against
        this model ``difference`` of the means, ``t_unpaired``, ``p_unpaired``, ``p_unpaired_holm``,
        ``t_paired``, ``p_paired`` and ``p_paired_holm``. Null where there is nothing to compute it from.
    """
    rows: list[dict[str, Any]] = []
    for metric in (*METRICS, "loss"):
        for level in LEVELS:
            there = scores.filter((pc.field("metric") == metric) & (pc.field("level") == level)).sort_by(
                "fold"
            )
            models = {
                model: there.filter(pc.field("model") == model)["value"].to_numpy()
                for model in there["model"].unique().to_pylist()
            }
            part = [
                {
                    "metric": metric,
                    "level": level,
                    "model": model,
                    "folds": len(values),
                    "mean": values.mean(),
                }
                for model, values in models.items()
            ]
            if min(map(len, models.values()), default=0) > 1:
                for row, values in zip(part, models.values(), strict=True):
                    row["sd"] = values.std(ddof=1)
                if len(models) > 1 and metric != "loss":
                    _test(part, models, reference)
            rows += part
    return pa.Table.from_pylist([_finite(row) for row in rows], COMPARISON)


def _test(rows: list[dict[str, Any]], models: dict[str, np.ndarray], reference: str) -> None:
    """Add the tests to the rows of ``models``, whose values are of the same folds in the same order."""
    from scipy import stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values without any variance, whose F and t are no numbers
        anova = stats.f_oneway(*models.values())
        folds = sum(map(len, models.values()))
        for row in rows:
            row |= {"F": anova.statistic, "p": anova.pvalue}
            row |= {"df_between": len(models) - 1, "df_within": folds - len(models)}
        if reference not in models:
            return
        others = [row for row in rows if row["model"] != reference]
        for row in others:
            row["difference"] = models[reference].mean() - models[row["model"]].mean()
        for kind, test in ("unpaired", stats.ttest_ind), ("paired", stats.ttest_rel):
            results = [test(models[reference], models[row["model"]]) for row in others]
            corrected = holm([result.pvalue for result in results])
            for row, result, p_holm in zip(others, results, corrected, strict=True):
                row |= {f"t_{kind}": result.statistic, f"p_{kind}": result.pvalue, f"p_{kind}_holm": p_holm}


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in row.items()
    }


def holm(p: list[float]) -> list[float]:
    """Correct p values for their number (Holm 1979): the i-th smallest of m times m − i + 1, made rising."""
    values = np.array(p, dtype=float)
    order = np.argsort(values)
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(stepped, 1)
    return corrected.tolist()


if __name__ == "__main__":
    raise SystemExit(main())

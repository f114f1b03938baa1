"""Statistics over the folds: means, a one-way ANOVA per score, and t-tests against one model."""

import logging
import re
import warnings
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError
from vap_pipeline.turn_taking.scores import LEVELS, METRICS

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

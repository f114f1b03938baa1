"""Statistics over the folds: means, a one-way ANOVA per score, and t-tests against one model."""

import warnings
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vap_pipeline.turn_taking.scores import LEVELS, METRICS

REFERENCE = "discrete"  # the model that every other model is compared with

COMPARISON = pa.schema(
    [(name, pa.string()) for name in ("metric", "level", "model")]
    + [("folds", pa.int64())]
    + [(name, pa.float64()) for name in ("mean", "sd", "F")]
    + [(name, pa.int64()) for name in ("df_between", "df_within")]
    + [(name, pa.float64()) for name in ("p", "difference")]
    + [
        (f"{number}_{kind}{correction}", pa.float64())
        for kind in ("unpaired", "paired")
        for number, correction in (("t", ""), ("p", ""), ("p", "_holm"))
    ]
)


def compare(scores: pa.Table, reference: str = REFERENCE) -> pa.Table:
    """Compare the models on each score.

    The folds are the same for every model, so there are paired t-tests too. The published ones are unpaired,
    with equal variances. Holm's correction is for the comparisons of one score. Losses of different models
    measure different things and are not compared.

    A score counts only where both of its labels occur (:func:`defined`). Tests need two folds where it counts
    for every model.

    Args:
        scores: the rows of all models and folds, with the columns of files of scores.

    Returns:
        A row per metric, level and model: ``folds`` (with a defined score), ``mean``, ``sd`` (of a sample,
        n − 1); the ANOVA's ``F``, ``df_between``, ``df_within`` and ``p``, the same for all models; and of
        ``reference`` against this model ``difference`` of the means, ``t_unpaired``, ``p_unpaired``,
        ``p_unpaired_holm``, ``t_paired``, ``p_paired`` and ``p_paired_holm``. Null if it cannot be computed.
    """
    rows: list[dict[str, Any]] = []
    for metric in (*METRICS, "loss"):
        for level in LEVELS:
            is_score = (pc.field("metric") == metric) & (pc.field("level") == level)
            values: dict[str, dict[int, float]] = {}
            for row in scores.filter(is_score).sort_by("fold").to_pylist():
                by_fold = values.setdefault(row["model"], {})
                if defined(row):
                    by_fold[row["fold"]] = row["value"]
            part: list[dict[str, Any]] = []
            for model, by_fold in values.items():
                array = np.array(list(by_fold.values()))
                mean = array.mean() if len(array) else None
                sd = array.std(ddof=1) if len(array) > 1 else None
                name = {"metric": metric, "level": level, "model": model}
                part.append(name | {"folds": len(array), "mean": mean, "sd": sd})
            folds = set.intersection(*map(set, values.values())) if values else set()
            if len(values) > 1 and len(folds) > 1 and metric != "loss":
                same = {m: np.array([v[f] for f in sorted(folds)]) for m, v in values.items()}
                _test(part, same, reference)
            rows += part
    return pa.Table.from_pylist([_finite(row) for row in rows], COMPARISON)


def defined(row: dict[str, Any]) -> bool:
    """Whether a row of scores has a value: a loss always, an F1 only if both labels occur."""
    return row["metric"] == "loss" or bool(row["support_0"] and row["support_1"])


def _test(rows: list[dict[str, Any]], models: dict[str, np.ndarray], reference: str) -> None:
    """Add the tests to the rows; the values of the ``models`` are those of the same folds in order."""
    from scipy import stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values without variance, whose F and t are not defined
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
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}


def holm(p: list[float]) -> list[float]:
    """Correct p values for their number (Holm 1979): the i-th smallest of m times m − i + 1, kept rising."""
    values = np.array(p, dtype=float)
    order = np.argsort(values)
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(stepped, 1)
    return corrected.tolist()

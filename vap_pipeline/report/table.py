"""The report in words and numbers: the paper's Table 1, the tests, and what was scored."""

from typing import Any

import pyarrow as pa

from vap_pipeline.io import markdown
from vap_pipeline.io.markdown import ABSENT
from vap_pipeline.turn_taking.published import COLUMNS, MAJORITY, PUBLISHED, TASK_COLUMNS
from vap_pipeline.turn_taking.scores import majority

LABELS = {
    "f1_hold_shift": ("shift", "hold"),
    "f1_short_long": ("short", "long"),
    "f1_predict_shift": ("before a shift", "non-shift"),
    "f1_predict_backchannel": ("before a backchannel", "non-shift"),
}


def table(corpus: str, encoders: list[str], scores: pa.Table, comparison: pa.Table) -> str:
    """Return the report as Markdown.

    Args:
        corpus: its name; for ``switchboard`` the published rows stand below the measured ones.
        encoders: the weights that the features are from.
        scores: the rows of all files of scores.
        comparison: from :func:`vap_pipeline.report.anova.compare`.
    """
    folds = len(scores["fold"].unique())
    rows = {(row["metric"], row["model"]): row for row in comparison.to_pylist() if row["level"] == "frame"}
    models = list(dict.fromkeys(model for _, model in rows))
    spread = f"mean ± standard deviation over {folds} folds" if folds > 1 else "one fold"
    parts = [
        f"# Turn-taking scores on {corpus}",
        f"Weighted F1 over the frames of the test set, {spread}; in brackets the F1 of shifts alone. "
        f"Features: CPC, weights {', '.join(encoders)}.",
        _scores(models, rows, _majority(scores), PUBLISHED if corpus == "switchboard" else {}),
        "## Is the difference more than the folds' chance?",
        _anova(rows) or "Tests need more than one fold, and more than one model.",
        _comparisons(rows),
        "## What was scored",
        "Every window twice, the second time with the speakers swapped.",
        _supports(scores),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def metrics(scores: pa.Table, comparison: pa.Table) -> dict[str, dict[str, float]]:
    """Return the means as ``{model: {metric: mean}}``, the majority class among the models."""
    found: dict[str, dict[str, float]] = {}
    for row in comparison.to_pylist():
        if row["level"] == "frame" and row["mean"] is not None:
            found.setdefault(row["model"], {})[row["metric"]] = round(row["mean"], 4)
    return found | {MAJORITY: {metric: round(value, 4) for metric, value in _majority(scores).items()}}


def _scores(
    models: list[str],
    rows: dict[tuple[str, str], dict[str, Any]],
    always: dict[str, float],
    published: dict[str, tuple[float | None, ...]],
) -> str:
    lines = []
    for model in (*models, MAJORITY):
        cells = []
        for metric in COLUMNS.values():
            if model == MAJORITY:
                cells.append(_number(always.get(metric)))
            else:
                row = rows.get((metric, model), {})
                sd = row.get("sd")
                cells.append(_number(row.get("mean")) + (f" ± {_number(sd)}" if sd is not None else ""))
        lines.append([model, *cells])
        if model in published:
            lines.append(["*published*", *(f"*{_number(value)}*" for value in published[model])])
    for line in lines:
        line[2] = f"({line[2]})"
    return markdown.table(["model", *COLUMNS], lines)


def _anova(rows: dict[tuple[str, str], dict[str, Any]]) -> str:
    lines = []
    for name, metric in TASK_COLUMNS.items():
        row = next((row for (each, _), row in rows.items() if each == metric and row["F"] is not None), None)
        if row:
            lines.append([name, f"{row['F']:.2f}", f"{row['df_between']}, {row['df_within']}", _p(row["p"])])
    lines_table = markdown.table(["score", "F", "df", "p"], lines)
    return f"One-way ANOVA over the folds' scores.\n\n{lines_table}" if lines else ""


def _comparisons(rows: dict[tuple[str, str], dict[str, Any]]) -> str:
    lines = []
    for name, metric in TASK_COLUMNS.items():
        for (each, model), row in rows.items():
            if each == metric and row["difference"] is not None:
                p = [_p(row[key]) for key in ("p_unpaired", "p_unpaired_holm", "p_paired", "p_paired_holm")]
                lines.append([name, model, f"{row['difference']:+.3f}", *p])
    head = ["score", "discrete against", "difference", "unpaired p", "Holm", "paired p", "Holm"]
    text = (
        "t-tests of the discrete model against each other: unpaired as published, and paired, because the "
        "folds are the same for every model. Beside each p its correction for the number of comparisons of "
        "that score."
    )
    return f"{text}\n\n{markdown.table(head, lines)}" if lines else ""


def _supports(scores: pa.Table) -> str:
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for row in scores.to_pylist():
        first.setdefault((row["metric"], row["level"]), row)
    lines = []
    for name, metric in TASK_COLUMNS.items():
        if (metric, "event") in first:
            event, frame = first[metric, "event"], first[metric, "frame"]
            cells = [
                f"{event[f'support_{label}']:,} ({frame[f'support_{label}']:,} frames)" for label in (1, 0)
            ]
            lines.append([name, f"{LABELS[metric][0]}: {cells[0]}", f"{LABELS[metric][1]}: {cells[1]}"])
    return markdown.table(["score", "label 1", "label 0"], lines)


def _majority(scores: pa.Table) -> dict[str, float]:
    """Each score of always answering with the test set's more frequent label: the mean over the rows."""
    values: dict[str, list[float]] = {}
    for row in scores.to_pylist():
        if row["level"] == "frame" and row["metric"] in COLUMNS.values():
            negative, positive = row["support_0"], row["support_1"]
            if row["metric"] != "f1_shift":
                value = majority(negative, positive)
            else:
                value = 2 * positive / (2 * positive + negative) if positive > negative else 0.0
            values.setdefault(row["metric"], []).append(value)
    return {metric: sum(each) / len(each) for metric, each in values.items()}


def _number(value: float | None) -> str:
    """Three decimals without the leading zero, as in the paper."""
    if value is None:
        return ABSENT
    return f"{value:.3f}".removeprefix("0") if value else "0"


def _p(value: float | None) -> str:
    return ABSENT if value is None else "< .001" if value < 0.001 else _number(value)

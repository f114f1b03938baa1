"""The report in words and numbers: the paper's Table 1, the tests, and the events that were scored."""

from collections import defaultdict
from typing import Any

import pyarrow as pa

from vap_pipeline.io import markdown
from vap_pipeline.io.markdown import ABSENT
from vap_pipeline.report.anova import REFERENCE, defined
from vap_pipeline.turn_taking.published import COLUMNS, MAJORITY, PUBLISHED, TASK_COLUMNS
from vap_pipeline.turn_taking.scores import majority

LABELS = {  # of label 1 and label 0
    "f1_hold_shift": ("shift", "hold"),
    "f1_short_long": ("short", "long"),
    "f1_predict_shift": ("before a shift", "non-shift"),
    "f1_predict_backchannel": ("before a backchannel", "non-shift"),
}
COMPARISONS = (
    f"t-tests of the {REFERENCE} model against each other model: unpaired as published, and paired, because "
    "the folds are the same for every model. Beside each p is its value after Holm's correction for the "
    f"number of comparisons. A positive difference means that the {REFERENCE} model scores higher; a p below "
    ".05 is commonly called significant."
)
HOW_TO_READ = (
    "Each score is a weighted F1 from 0 to 1, higher is better. A model is useful if it beats the majority "
    "class, which always predicts the more frequent label. In files "
)


Rows = list[dict[str, Any]]


def report(corpus: str, encoders: list[str], scores: pa.Table, comparison: pa.Table) -> str:
    """Return the report as Markdown.

    Args:
        corpus: its name; for ``switchboard`` the published rows stand below the measured ones.
        encoders: names of the weights that the features are from.
        scores: the rows of all files of scores.
        comparison: from :func:`vap_pipeline.report.anova.compare`.
    """
    folds = len(scores["fold"].unique())
    rows = _of_frames(comparison)
    spread = f"mean ± standard deviation over {folds} folds" if folds > 1 else "one fold"
    names = ", ".join(f"{column} is `{metric}`" for column, metric in COLUMNS.items())
    parts = [
        f"# Turn-taking scores on {corpus}",
        f"Weighted F1 over the frames of the test set, {spread}; in brackets the F1 of shifts alone. "
        f"Features: CPC, weights {', '.join(encoders)}.",
        _scores(rows, _majority(scores), PUBLISHED if corpus == "switchboard" else {}),
        f"{HOW_TO_READ}{names}.",
        _notes(_of_frames(scores)),
        "## Is the difference more than chance between folds?",
        _anova(rows) or "Tests need more than one fold, and more than one model.",
        _comparisons(rows),
        "## What was scored",
        "Every window is scored twice, the second time with the speakers swapped.",
        _supports(scores),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def metrics(scores: pa.Table, comparison: pa.Table) -> dict[str, dict[str, float]]:
    """Return the means as ``{model: {metric: mean}}``, the majority class among the models."""
    means: dict[str, dict[str, float]] = {}
    for row in _of_frames(comparison):
        if row["mean"] is not None:
            means.setdefault(row["model"], {})[row["metric"]] = round(row["mean"], 4)
    return means | {MAJORITY: {metric: round(value, 4) for metric, value in _majority(scores).items()}}


def _of_frames(table: pa.Table) -> Rows:
    return [row for row in table.to_pylist() if row["level"] == "frame"]


def _scores(
    rows: Rows, majority_class: dict[str, float], published: dict[str, tuple[float | None, ...]]
) -> str:
    cells = {(row["model"], row["metric"]): _mean(row) for row in rows}
    cells |= {(MAJORITY, metric): _number(value) for metric, value in majority_class.items()}
    lines = []
    for model in dict.fromkeys([*(row["model"] for row in rows), MAJORITY]):
        lines.append([model, *(cells.get((model, metric), ABSENT) for metric in COLUMNS.values())])
        if model in published:
            lines.append(["*published*", *(f"*{_number(value)}*" for value in published[model])])
    for line in lines:
        line[2] = f"({line[2]})"
    return markdown.table(["model", *COLUMNS], lines)


def _mean(row: dict[str, Any]) -> str:
    return _number(row["mean"]) + (f" ± {_number(row['sd'])}" if row["sd"] is not None else "")


def _notes(rows: Rows) -> str:
    """Return a line for each score that some folds cannot have, because one of its labels does not occur."""
    missing: dict[tuple[str, str], set[int]] = defaultdict(set)
    for row in rows:
        for label, name in zip((1, 0), LABELS.get(row["metric"], ()), strict=False):
            if not row[f"support_{label}"]:
                missing[row["metric"], name].add(row["fold"])
    columns = {metric: column for column, metric in COLUMNS.items()}
    lines = [
        f"{ABSENT} {columns[metric]}: fold {', '.join(map(str, sorted(folds)))} has no frames of the label "
        f"“{label}”, so there is nothing to tell apart; means and tests leave it out."
        for (metric, label), folds in missing.items()
    ]
    return "\n".join(lines)


def _anova(rows: Rows) -> str:
    tested = {row["metric"]: row for row in rows if row["F"] is not None}  # the same for all models
    lines = [
        [column, f"{row['F']:.2f}", f"{row['df_between']}, {row['df_within']}", _p(row["p"])]
        for column, metric in TASK_COLUMNS.items()
        if (row := tested.get(metric))
    ]
    text = (
        "One-way ANOVA over the folds' scores: a small p means that not all models score alike, beyond the "
        "differences between folds."
    )
    return f"{text}\n\n{markdown.table(['score', 'F', 'df', 'p'], lines)}" if lines else ""


def _comparisons(rows: Rows) -> str:
    tests = ("p_unpaired", "p_unpaired_holm", "p_paired", "p_paired_holm")
    lines = [
        [column, row["model"], f"{row['difference']:+.3f}", *(_p(row[test]) for test in tests)]
        for column, metric in TASK_COLUMNS.items()
        for row in rows
        if row["metric"] == metric and row["difference"] is not None
    ]
    head = ["score", f"{REFERENCE} against", "difference", "unpaired p", "Holm", "paired p", "Holm"]
    return f"{COMPARISONS}\n\n{markdown.table(head, lines)}" if lines else ""


def _supports(scores: pa.Table) -> str:
    first = {(row["metric"], row["level"]): row for row in reversed(scores.to_pylist())}
    lines = []
    for column, metric in TASK_COLUMNS.items():
        if (metric, "event") in first:
            event, frame = first[metric, "event"], first[metric, "frame"]
            cells = [
                f"{name}: {event[f'support_{label}']:,} ({frame[f'support_{label}']:,} frames)"
                for label, name in zip((1, 0), LABELS[metric], strict=True)
            ]
            lines.append([column, *cells])
    return markdown.table(["score", "label 1", "label 0"], lines)


def _majority(scores: pa.Table) -> dict[str, float]:
    """Return each score of always predicting the test set's more frequent label: the mean over the rows."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in _of_frames(scores):
        if row["metric"] in COLUMNS.values() and defined(row):
            negative, positive = row["support_0"], row["support_1"]
            if row["metric"] != "f1_shift":
                value = majority(negative, positive)
            else:
                value = 2 * positive / (2 * positive + negative) if positive > negative else 0.0
            values[row["metric"]].append(value)
    return {metric: sum(parts) / len(parts) for metric, parts in values.items()}


def _number(value: float | None) -> str:
    """Return three decimals without the leading zero, as in the paper."""
    if value is None:
        return ABSENT
    return f"{value:.3f}".removeprefix("0") if value else "0"


def _p(value: float | None) -> str:
    return ABSENT if value is None else "< .001" if value < 0.001 else _number(value)

"""The files of a scored model: its scores, and beside them its events and a stretch of one conversation.

They are written and read here. What is read is held against what a model can have scored, and the scores
against the events: the three may have been copied, or half of them overwritten.
"""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vap_pipeline.artefacts.manifest import LONGEST_NAME
from vap_pipeline.audio.rates import LONGEST_S
from vap_pipeline.io import files, parquet
from vap_pipeline.io.errors import InputError
from vap_pipeline.turn_taking import scores
from vap_pipeline.turn_taking.scores import LEVELS, METRICS, TASKS, THRESHOLDS

CURE = "run vap-evaluate score again"
NEVER_EMPTY = ("corpus", "model", "fold", "seed", "metric", "level", "value")  # a loss has no support
# A row of a file of scores.
SCHEMA = pa.schema(
    [
        ("corpus", pa.string()),
        ("model", pa.string()),
        ("fold", pa.int32()),
        ("seed", pa.int64()),
        ("metric", pa.string()),
        ("level", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
        ("support_0", pa.int64()),
        ("support_1", pa.int64()),
    ]
)
# Of the events; Switchboard's 135 conversations for testing give 32,000 with 740,000 frames.
MOST_EVENTS, MOST_FRAMES = 3_000_000, 30_000_000
MOST_OF_TIMELINE = 10_000  # frames
# As of scores.collect, and where the region lies in the conversation, in seconds.
EVENTS = pa.schema(
    [
        ("conversation", pa.string()),
        ("window", pa.int32()),
        ("swapped", pa.bool_()),
        ("task", pa.string()),
        ("label", pa.int8()),
        ("speaker", pa.int8()),
        ("start", pa.int16()),
        ("end", pa.int16()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("probability", pa.float32()),
        ("probabilities", pa.list_(pa.float32())),
    ]
)
# Frames one after the other; p_bc is NaN of a model that does not tell.
TIMELINE = pa.schema(
    [("conversation", pa.string()), ("frame", pa.int32())]
    + [(name, pa.uint8()) for name in ("va_0", "va_1")]
    + [(name, pa.float32()) for name in ("p_0", "p_1", "p_bc_0", "p_bc_1")]
)


def write(
    path: str,
    rows: list[dict[str, Any]],
    events: pa.Table,
    timeline: pa.Table,
    encoder: str,
    event_settings: dict[str, Any],
) -> None:
    """Write scores to ``path``, and the events and the timeline beside it.

    Args:
        rows: of ``SCHEMA``.
        events, timeline: tables of ``EVENTS`` and ``TIMELINE``.
        encoder: the name of the weights that the features are from; it lies in the metadata of the scores,
            beside the checksums of events and timeline.

    Raises:
        InputError: a file cannot be written.
    """
    beside = {"events": parquet.encode(events), "timeline": parquet.encode(timeline)}
    described = {"encoder": encoder, "event_settings": json.dumps(event_settings)}
    described |= {name: parquet.stamp(content) for name, content in beside.items()}
    table = pa.Table.from_pylist(rows, SCHEMA).replace_schema_metadata(described)
    contents: dict[str | Path, bytes] = {_beside(path, name): each for name, each in beside.items()}
    files.write_together(contents | {path: parquet.encode(table)})


def read_scores(path: str) -> pa.Table:
    """Read the scores of one run, a table of ``SCHEMA``; ``encoder`` is in its metadata.

    Raises:
        InputError: they are missing or damaged, or no scores.
    """
    table = parquet.read(path, SCHEMA, 2 * len(METRICS) + 1, CURE)
    _refuse(path, _score_fault(table))
    return table


def read_events(path: str, of: pa.Table) -> pa.Table:
    """Read the events beside ``path``, a table of ``EVENTS``.

    Args:
        of: the scores, which must be those of the events.

    Raises:
        InputError: they are missing or damaged, or of other scores.
    """
    supports = {"event": 0, "frame": 0}
    for row in of.to_pylist():
        if row["metric"] not in ("f1_shift", "loss"):
            supports[row["level"]] += row["support_0"] + row["support_1"]
    most = min(supports["event"], MOST_EVENTS)
    table = parquet.read(_beside(path, "events"), EVENTS, most, CURE, min(supports["frame"], MOST_FRAMES))
    _refuse(_beside(path, "events"), _beside_fault(table, "events", of) or _event_fault(table, of))
    return table


def read_timeline(path: str, of: pa.Table) -> pa.Table:
    """Read the stretch of a conversation beside ``path``, a table of ``TIMELINE``.

    Args:
        of: the scores, which must be those of the same evaluation.

    Raises:
        InputError: it is missing or damaged, or of other scores.
    """
    table = parquet.read(_beside(path, "timeline"), TIMELINE, MOST_OF_TIMELINE, CURE)
    _refuse(_beside(path, "timeline"), _beside_fault(table, "timeline", of) or _timeline_fault(table))
    return table


def _beside(path: str, what: str) -> str:
    return f"{path.removesuffix('.parquet')}.{what}.parquet"


def _beside_fault(table: pa.Table, what: str, of: pa.Table) -> str:
    written = (of.schema.metadata or {}).get(what.encode(), b"none")
    return "" if table.schema.metadata[b"sha256"] == written else f"{what} of other scores"


def _refuse(path: str, fault: str) -> None:
    if fault:
        raise InputError(f"{path}: {fault}; {CURE}")


def _score_fault(table: pa.Table) -> str:
    """Say what is wrong with rows of scores; nothing where they may be of one run."""
    rows = table.to_pylist()
    if not rows or any(row[name] is None for row in rows for name in NEVER_EMPTY):
        return "no rows, or empty cells"
    if len({(row["metric"], row["level"]) for row in rows}) < len(rows):
        return "a score stands there twice"
    if len({tuple(row[name] for name in ("corpus", "model", "fold", "seed")) for row in rows}) > 1:
        return "scores of more than one run"
    if [row["level"] for row in rows if row["metric"] == "loss"] != ["frame"]:
        return "not one loss"
    for row in rows:
        value, threshold = row["value"], row["threshold"]
        supports = [row[name] for name in ("support_0", "support_1")]
        if row["metric"] == "loss":
            right = math.isfinite(value)
        else:  # an F1 is NaN where there is nothing to score
            right = not (value < 0 or value > 1) and None not in (threshold, *supports)
            right = right and THRESHOLDS[0] <= np.float32(threshold) <= THRESHOLDS[-1] and min(supports) >= 0
        if not right:
            return f"{row['metric']} is {value} of {supports} at {threshold}"
    encoder = (table.schema.metadata or {}).get(b"encoder", b"").decode(errors="replace")
    return "" if encoder.isprintable() and "\ufffd" not in encoder else "the name of its encoder is no text"


def _event_fault(events: pa.Table, of: pa.Table) -> str:
    """Say what is wrong with events; nothing where they may have made the scores ``of``."""
    lists = events["probabilities"].combine_chunks()
    values = lists.flatten()
    if any(column.null_count for column in (*events.columns, values)):
        return "empty cells"
    for name, allowed in ("task", TASKS), ("label", (0, 1)), ("speaker", (0, 1)):
        if others := set(events[name].unique().to_pylist()) - set(allowed):
            return f"a {name} {others.pop()!r}"
    if not (_shares(values) and _shares(events["probability"])) or 0 in lists.value_lengths().to_numpy():
        return "probabilities that are none"
    start_s, end_s = (events[name].to_numpy() for name in ("start_s", "end_s"))
    if not ((start_s >= 0) & (start_s < end_s) & (end_s <= LONGEST_S)).all():
        return "times that are none"
    return "" if _made(of, scores.count(events)) else "events of other scores than those beside them"


def _made(table: pa.Table, counts: np.ndarray) -> bool:
    """Whether the scores in ``table`` follow from ``counts``."""
    found = {(row["metric"], row["level"]): row for row in table.to_pylist() if row["metric"] != "loss"}
    best = np.zeros((len(TASKS), len(LEVELS)), np.int64)
    for (task, name), (level, kind) in itertools.product(enumerate(TASKS), enumerate(LEVELS)):
        if row := found.get((f"f1_{name}", kind)):
            best[task, level] = round(100 * row["threshold"]) - 1
    made = {(row["metric"], row["level"]): row for row in scores.scores(counts, best)}
    return found.keys() == made.keys() and all(
        np.isclose(found[each][name], made[each][name], rtol=1e-6, equal_nan=True)
        for each in made
        for name in ("value", "threshold", "support_0", "support_1")
    )


def _timeline_fault(table: pa.Table) -> str:
    """Say what is wrong with a timeline; nothing where it may be one."""
    names, frames = table["conversation"].unique().to_pylist(), table["frame"].to_numpy()
    if any(column.null_count for column in table.columns) or len(names) != 1 or len(table) < 2:
        return "empty cells, or not one conversation"
    if len(names[0]) > LONGEST_NAME or not names[0].isprintable():
        return "the name of its conversation is none"
    if frames[0] < 0 or (np.diff(frames) != 1).any():
        return "its frames are not one after the other"
    if any(set(table[name].unique().to_pylist()) - {0, 1} for name in ("va_0", "va_1")):
        return "a voice activity that is none"
    told = ("p_0", "p_1") if np.isnan(table["p_bc_0"].to_numpy()).all() else TIMELINE.names[-4:]
    return "" if all(_shares(table[name]) for name in told) else "probabilities that are none"


def _shares(values: pa.ChunkedArray | pa.Array) -> bool:
    """Whether all are numbers from 0 to 1."""
    share = values.to_numpy()
    return bool(((share >= 0) & (share <= 1)).all())

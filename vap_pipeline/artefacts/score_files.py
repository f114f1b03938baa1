"""The files of a scored model: its scores, and beside them its events and a stretch of one conversation.

The scores hold checksums of the two files beside them, so that files of different runs are noticed.
"""

import json
from typing import Any

import pyarrow as pa

from vap_pipeline.io import files, parquet
from vap_pipeline.io.errors import InputError
from vap_pipeline.settings.events import recorded

CURE = "run vap-evaluate score again"
SCORES = pa.schema(
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
# The columns of scores.collect, and the place of the region in the conversation in seconds.
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
# Successive frames; p_bc is NaN if the model does not predict backchannels.
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
        rows: of ``SCORES``.
        events, timeline: tables of ``EVENTS`` and ``TIMELINE``.
        encoder: name of the weights that the features are from.
        event_settings: what counted as an event. Both are in the metadata of the scores.

    Raises:
        InputError: a file cannot be written.
    """
    beside = {"events": parquet.encode(events), "timeline": parquet.encode(timeline)}
    described = {"encoder": encoder, "event_settings": json.dumps(event_settings)}
    described |= {name: parquet.stamp(content) for name, content in beside.items()}
    table = pa.Table.from_pylist(rows, SCORES).replace_schema_metadata(described)
    contents: dict[str | Any, bytes] = {_beside(path, name): content for name, content in beside.items()}
    files.write_together(contents | {path: parquet.encode(table)})


def read_scores(path: str) -> pa.Table:
    """Read the scores of one run, a table of ``SCORES``, with ``encoder`` in its metadata.

    Raises:
        InputError: the file is missing, damaged, empty, or holds scores of several runs.
    """
    table = parquet.read(path, SCORES, CURE)
    runs = {tuple(row[key] for key in ("corpus", "model", "fold", "seed")) for row in table.to_pylist()}
    if len(runs) != 1:
        raise InputError(f"{path}: scores of {len(runs)} runs, expected one; {CURE}")
    return table


def event_settings(scores: pa.Table, path: str) -> dict[str, Any]:
    """Return the event settings of the scores in ``path``; older files have the paper's."""
    described = (scores.schema.metadata or {}).get(b"event_settings", b"{}")
    return recorded(json.loads(described), path).described()


def read_beside(path: str, kind: str, scores: pa.Table) -> pa.Table:
    """Read the ``events`` or the ``timeline`` beside ``path``, a table of ``EVENTS`` or ``TIMELINE``.

    Args:
        scores: in ``path``, to which the table must belong.

    Raises:
        InputError: the file is missing or damaged, or belongs to other scores.
    """
    table = parquet.read(_beside(path, kind), {"events": EVENTS, "timeline": TIMELINE}[kind], CURE)
    if table.schema.metadata[b"sha256"] != (scores.schema.metadata or {}).get(kind.encode()):
        raise InputError(f"{_beside(path, kind)}: {kind} of other scores than those in {path}; {CURE}")
    return table


def _beside(path: str, kind: str) -> str:
    return f"{path.removesuffix('.parquet')}.{kind}.parquet"

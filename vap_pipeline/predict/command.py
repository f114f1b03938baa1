"""Predict recording after recording, and write what was asked for."""

import argparse
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from tqdm import tqdm

from vap_pipeline.artefacts import manifest
from vap_pipeline.audio.recording import open_recording
from vap_pipeline.audio.vad import voice_activity_of
from vap_pipeline.io import files, parquet
from vap_pipeline.io.errors import InputError
from vap_pipeline.predict.events import Event, predicted_events
from vap_pipeline.predict.exports import FORMATS, tiers
from vap_pipeline.predict.predictor import Predictor, load
from vap_pipeline.turn_taking.voice_activity import frames

SUFFIXES = (".sph", ".wav", ".flac", ".mp3", ".ogg", ".opus")
FIGURE_S = 30.0

log = logging.getLogger(__name__)


def predict_all(args: argparse.Namespace) -> int:
    """Predict every recording of the command line; return how many could not be.

    Raises:
        InputError: the model or the manifest cannot be read; or there is one recording, and it cannot.
    """
    paths = list(_recordings(args.recordings))
    predictor = load(args.model, args.weights)
    known = _known(args.manifest) if args.manifest else None
    failed = 0
    for path in tqdm(paths, "recordings", unit="", disable=None if len(paths) > 1 else True):
        try:
            _predict(path, predictor, known, args)
        except InputError as error:
            if len(paths) == 1:
                raise
            failed += 1
            log.info("left out: %s", error)
    return failed


def _recordings(given: list[str]) -> Iterator[Path]:
    for path in map(Path, given):
        if not path.is_dir():
            yield path
            continue
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        if not inside:
            raise InputError(f"{path}: no audio below it ({', '.join(SUFFIXES)}); check the path")
        yield from inside


def _known(folder: Path) -> dict[str, np.ndarray]:
    """Return the voice activity of a manifest's conversations, by the path of the audio and by name."""
    corpus = manifest.read(folder)
    names = {c.conversation: Path(c.audio).name for c in corpus.conversations}
    known = dict(corpus.activity(names))
    return known | {names[name]: va for name, va in known.items()}


def _predict(
    path: Path, predictor: Predictor, known: dict[str, np.ndarray] | None, args: argparse.Namespace
) -> None:
    recording = open_recording(path)
    n = frames(recording.duration_s)
    va = voice_activity_of(recording, n) if known is None else _listed(path, n, known)
    table = predictor.predict(recording, va, args.level, args.context)
    table = table.add_column(0, "conversation", pa.array([path.stem] * len(table)))
    p, p_bc = _pair(table, "p"), _pair(table, "p_bc") if "p_bc_a" in table.column_names else None
    events = predicted_events(va, p, p_bc, predictor.backchannel_threshold, predictor.events)
    base = f"{args.out or 'predictions'}/{path.stem}"
    written = [_write(base, table, args.csv)]
    if args.events:
        written.append(_write(f"{base}.events", _as_table(path.stem, events), args.csv))
    for name in args.export:
        suffix, writer = FORMATS[name]
        content = writer(tiers(va, events), recording.duration_s).encode()
        files.write(f"{base}{suffix}", content)
        written.append(f"{base}{suffix}")
    if args.figure is not None:
        from vap_pipeline.predict.figure import figure

        stretch = args.figure or (0.0, FIGURE_S)
        files.write(f"{base}.png", figure(path.stem, table, events, *stretch))
        written.append(f"{base}.png")
    log.info("%s", ", ".join(written))


def _pair(table: pa.Table, name: str) -> np.ndarray:
    return np.stack([table[f"{name}_{speaker}"].to_numpy() for speaker in "ab"], axis=1)


def _listed(path: Path, n: int, known: dict[str, np.ndarray]) -> np.ndarray:
    va = known.get(path.name, known.get(path.stem))
    if va is None:
        raise InputError(f"{path}: not in the manifest; leave out --manifest, or add it there")
    if abs(len(va) - n) > 1:
        raise InputError(
            f"{path}: has {n} frames of 10 ms, but {len(va)} in the manifest; make the manifest again"
        )
    return np.pad(va[:n], ((0, n - len(va[:n])), (0, 0)))


def _as_table(conversation: str, events: list[Event]) -> pa.Table:
    columns = zip(*events, strict=True) if events else [[] for _ in Event._fields]
    types = (pa.string(), pa.int8(), pa.float64(), pa.float64(), pa.float32(), pa.string(), pa.float32())
    arrays = [pa.array(list(column), kind) for column, kind in zip(columns, types, strict=True)]
    table = pa.table(dict(zip(Event._fields, arrays, strict=True)))
    return table.add_column(0, "conversation", pa.array([conversation] * len(table), pa.string()))


def _write(base: str, table: pa.Table, as_csv: bool) -> str:
    files.write(f"{base}.parquet", parquet.encode(table))
    if as_csv:
        content = io.BytesIO()
        pyarrow.csv.write_csv(table, content, pyarrow.csv.WriteOptions(quoting_style="needed"))
        files.write(f"{base}.csv", content.getvalue())
    return f"{base}.parquet"

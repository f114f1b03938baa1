"""Predict recording after recording, and write what was asked for."""

import argparse
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch
from tqdm import tqdm

from vap_pipeline.artefacts import manifest
from vap_pipeline.audio.headers import SUFFIXES, read_header
from vap_pipeline.audio.rates import SAMPLE_RATE_HZ
from vap_pipeline.audio.recording import open_recording, whole
from vap_pipeline.io import files, parquet
from vap_pipeline.io.errors import InputError
from vap_pipeline.predict.events import Event, predicted_events
from vap_pipeline.predict.exports import FORMATS, tiers
from vap_pipeline.predict.loading import load
from vap_pipeline.predict.predictor import Predictor
from vap_pipeline.predict.stereo import StereoPredictor
from vap_pipeline.turn_taking.frame_rates import held, stride
from vap_pipeline.turn_taking.voice_activity import frames

FIGURE_S = 30.0

log = logging.getLogger(__name__)


def predict_all(args: argparse.Namespace) -> int:
    """Predict every recording of the command line; return how many could not be.

    Raises:
        InputError: the model or the manifest cannot be read; or there is one recording, and it cannot.
    """
    paths = list(_recordings(args.recordings))
    predictor = load(args.model, args.weights, args.frame_rate)
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
    path: Path,
    predictor: Predictor | StereoPredictor,
    known: dict[str, np.ndarray] | None,
    args: argparse.Namespace,
) -> None:
    if not args.mono and read_header(path).channels == 1:
        raise InputError(f"{path}: one channel; give --mono to take it as one speaker, the other silent")
    recording = open_recording(path, mono=args.mono)
    listed = None if known is None else _listed(path, frames(recording.duration_s), known)
    table = predictor.predict(recording, listed, args.level, args.context)
    table = table.add_column(0, "conversation", pa.array([path.stem] * len(table)))
    va = np.repeat(_pair(table, "va"), stride(predictor.rate_hz), axis=0)
    p, p_bc = (_held(table, name, predictor.rate_hz) for name in ("p", "p_bc"))
    assert p is not None
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
    if args.page:
        from vap_pipeline.views.page import write_page

        samples = whole(recording).T.numpy()
        notes = f"model {predictor.name}, encoder {predictor.weights}"
        rows = [event._asdict() for event in events]
        write_page(
            f"{base}.html", f"Predictions for {path.stem}", samples, SAMPLE_RATE_HZ, table, rows, notes
        )
        written.append(f"{base}.html")
    log.info("%s", ", ".join(written))


def _held(table: pa.Table, name: str, rate_hz: float) -> np.ndarray | None:
    """Return a pair of columns (frames, 2) at 100 Hz; None if the model does not define them."""
    if f"{name}_a" not in table.column_names:
        return None
    values = torch.from_numpy(_pair(table, name))
    return held(values, rate_hz, len(values) * stride(rate_hz)).numpy()


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

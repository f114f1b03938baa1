"""One HTML file to look at and listen to: waveforms, voice activity, events and predictions of a recording.

The file needs no network: sound, numbers, program and the waveform library wavesurfer.js (BSD licence, beside
it in ``assets``) are inside.
"""

import base64
import html
import io
import json
from collections.abc import Iterable
from importlib.resources import files as resources
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile

from vap_pipeline.io import files

PEAKS_PER_S = 100
ENTROPY_BITS = 8  # the highest
TOP, MISSING = 254, 255  # the bytes of a column's highest value, and of NaN
MP3_LEVEL = 0.75  # of libsndfile: constant 48 kbit/s at 16 kHz, so that an hour takes 29 MB
MP3_BLOCK_S = 60  # encoded at a time


def write_page(
    path: str,
    title: str,
    samples: np.ndarray,
    rate: int,
    frames: pa.Table,
    events: Iterable[dict[str, Any]],
    notes: str = "",
) -> None:
    """Write the page of a recording.

    Args:
        path: of the HTML file.
        title: above the page.
        samples: (n, 2) float32, at most 48 kHz; they are stored as MP3.
        rate: samples a second: 8,000, 16,000 or another rate of MP3.
        frames: a row per frame: ``time_s``, and any of the other columns of predictions; NaN is a gap.
        events: ``name``, ``speaker`` (0 or 1), ``start_s``, ``end_s``, ``probability``, ``truth`` (what
            happened) and ``error`` (0 to 1, how far the model was from it); the last three may be None.
        notes: one line below the title.

    Raises:
        InputError: the file cannot be written.
    """
    time_s = frames["time_s"].to_numpy()
    columns = {name: _bytes(name, frames[name].to_numpy()) for name in frames.column_names if name in _SCALES}
    data = {
        "duration_s": len(samples) / rate,
        "frame_s": round(float(time_s[1] - time_s[0]), 6) if len(time_s) > 1 else 0.01,
        "audio": _base64(_mp3(samples, rate)),
        "peaks": [_base64(_peaks(channel, rate).tobytes()) for channel in samples.T],
        "columns": {name: _base64(values.tobytes()) for name, values in columns.items()},
        "events": [_plain(event) for event in events],
    }
    parts = {
        "TITLE": html.escape(title),
        "NOTES": html.escape(notes),
        "CSS": _asset("page.css"),
        "WAVESURFER": _asset("wavesurfer.min.js"),
        "DATA": json.dumps(data, allow_nan=False).replace("<", "\\u003c"),  # no name can end the script
        "JS": _asset("page.js"),
        "LICENCE": _asset("wavesurfer.LICENSE"),  # the page is a copy of the library
    }
    pieces = _asset("page.html").split("@")  # text and names of parts in turns
    filled = (parts[piece] if number % 2 else piece for number, piece in enumerate(pieces))
    files.write(path, "".join(filled).encode())


_SCALES = {  # of the columns that are drawn: the value of the byte ``TOP``
    **dict.fromkeys(("va_a", "va_b"), float(TOP)),  # as they are, 0 or 1
    **{f"{name}_{x}": 1.0 for name in ("p", "p_bc", "p_now", "p_future", "vad") for x in "ab"},
    "entropy": float(ENTROPY_BITS),
}


def _bytes(name: str, values: np.ndarray) -> np.ndarray:
    """Return a column as bytes, ``TOP`` for its highest possible value."""
    steps = np.clip(np.rint(values.astype(np.float64) / _SCALES[name] * TOP), 0, TOP)
    return np.where(np.isnan(steps), MISSING, steps).astype(np.uint8)


def _peaks(channel: np.ndarray, rate: int) -> np.ndarray:
    """Return the largest magnitude of every 10 ms, in turns positive and negative, as int8."""
    size = max(rate // PEAKS_PER_S, 1)
    padded = np.pad(np.abs(channel), (0, -len(channel) % size)).reshape(-1, size).max(1)
    signs = np.where(np.arange(len(padded)) % 2, -1, 1)
    return np.rint(np.clip(padded, 0, 1) * 127 * signs).astype(np.int8)


def _mp3(samples: np.ndarray, rate: int) -> bytes:
    content = io.BytesIO()
    how = {
        "format": "MP3",
        "compression_level": MP3_LEVEL,
        "bitrate_mode": "CONSTANT",
    }
    with soundfile.SoundFile(content, "w", rate, 2, **how) as file:
        for start in range(0, len(samples), MP3_BLOCK_S * rate):
            file.write(samples[start : start + MP3_BLOCK_S * rate])
    return content.getvalue()


def _plain(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event with Python's numbers, and None for NaN, which JSON lacks."""
    values = {key: value.item() if isinstance(value, np.generic) else value for key, value in event.items()}
    rounded = {key: round(v, 4) if isinstance(v, float) else v for key, v in values.items()}
    return {key: None if value != value else value for key, value in rounded.items()}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _asset(name: str) -> str:
    return (resources("vap_pipeline.views") / "assets" / name).read_text(encoding="utf-8")

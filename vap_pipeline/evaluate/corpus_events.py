"""The events of a corpus, found from its manifest alone, many conversations at a time."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from vap_pipeline.artefacts import manifest
from vap_pipeline.io import files, parquet
from vap_pipeline.io.errors import InputError
from vap_pipeline.settings.events import FRAME_RATE_HZ, PAPER, EventSettings
from vap_pipeline.turn_taking.events import EVENTS, find_events, lengths, windows

BLOCK_WINDOWS = 500  # at once: enough to keep the processor busy, few enough to stay in its cache


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: a block is too little work to share between threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def write_events(folder: Path, split: str, out: Path, settings: EventSettings = PAPER) -> tuple[Path, Path]:
    """Write the events of the conversations of ``split`` (train, test, all) in the manifest ``folder``.

    Returns:
        The two files written, with columns as of :func:`events`: ``out`` with the events, and beside
        ``events.parquet`` the non-shift regions as ``events.non_shift.parquet``. The settings are in the
        metadata of both.

    Raises:
        InputError: the manifest is broken or has no such conversations, or a file cannot be written.
    """
    if out.is_dir():
        raise InputError(f"{out}: is a folder; give --out a file, such as {out / 'events.parquet'}")
    corpus = manifest.read(folder)
    names = corpus.select(split)
    if not names:
        raise InputError(f"{folder}: no conversation has the split {split}; give another --split")
    conversations = tqdm(corpus.activity(names), "events", len(names), unit=" conversations", disable=None)
    tables = events(conversations, settings)
    paths = (out, out.with_suffix(f".non_shift{out.suffix}"))
    described = {"event_settings": json.dumps(settings.described())}
    joined = [
        pa.concat_tables(parts).replace_schema_metadata(described) for parts in zip(*tables, strict=True)
    ]
    contents = dict(zip(paths, map(parquet.encode, joined), strict=True))
    files.write_together(dict(reversed(contents.items())))  # readers look for the events
    return paths


def events(
    conversations: Iterable[tuple[str, np.ndarray]], settings: EventSettings = PAPER
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Find the events of any number of conversations, about ``BLOCK_WINDOWS`` windows at a time.

    Args:
        conversations: their names and voice activity (frames, 2) uint8.

    Yields:
        Events: ``conversation``, ``window`` (its number in the conversation), ``event``, ``speaker`` (the
        channel; :class:`events.Events` says whose), ``start`` and ``end`` (frames in the window, [start,
        end)), ``start_s`` and ``end_s`` (seconds in the conversation), sorted by conversation, window, event
        and start. Non-shift regions: the same columns without ``event``, a row per maximal stretch of frames.
    """
    names: list[str] = []
    block: list[Tensor] = []
    n_windows = 0
    for name, va in conversations:
        names.append(name)
        block.append(windows(torch.from_numpy(va), settings))
        n_windows += len(block[-1])
        if n_windows >= BLOCK_WINDOWS:
            yield _tables(names, block, settings)
            names, block, n_windows = [], [], 0
    yield _tables(names, block, settings)


def _tables(names: list[str], block: list[Tensor], settings: EventSettings) -> tuple[pa.Table, pa.Table]:
    frames = lengths(settings)
    counts = torch.tensor([len(va) for va in block], dtype=torch.int64)
    conversation = torch.arange(len(block)).repeat_interleave(counts)
    number = torch.arange(len(conversation)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    va = torch.cat(block) if block else torch.zeros(0, frames.window + frames.look_ahead, 2)
    result = find_events(va, settings)

    def table(window: Tensor, start: Tensor, end: Tensor, **columns: np.ndarray | pa.Array) -> pa.Table:
        first = frames.hop * number[window]
        place = {
            "conversation": pa.array(names, pa.string()).take(pa.array(conversation[window].numpy())),
            "window": number[window].numpy().astype(np.int32),
        }
        region = {
            "start": start.numpy().astype(np.int16),
            "end": end.numpy().astype(np.int16),
            "start_s": (first + start).numpy() / FRAME_RATE_HZ,
            "end_s": (first + end).numpy() / FRAME_RATE_HZ,
        }
        return pa.table(place | columns | region)

    edges = F.pad(result.non_shift.transpose(1, 2).to(torch.int8), (1, 1)).diff(dim=2)
    window, speaker, start = (edges == 1).nonzero(as_tuple=True)
    _, _, end = (edges == -1).nonzero(as_tuple=True)
    event = pa.array(EVENTS).take(pa.array(result.event.numpy()))
    return (
        table(result.window, result.start, result.end, event=event, speaker=result.speaker.numpy()),
        table(window, start, end, speaker=speaker.numpy().astype(np.int8)),
    )

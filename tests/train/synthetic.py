"""A small corpus whose features tell what comes next, so that a model can learn it in a few steps."""

from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from vap_pipeline.artefacts import manifest
from vap_pipeline.artefacts.manifest import Conversation, Manifest
from vap_pipeline.artefacts.store import create

DIM = 16


def talk(generator: np.random.Generator, frames: int) -> np.ndarray:
    """Voice activity (frames, 2) of two people who take turns, pause and give backchannels."""
    va = np.zeros((frames, 2), np.uint8)
    at, speaker = 0, 0
    while at < frames:
        turn = int(generator.integers(120, 400))
        va[at : at + turn, speaker] = 1
        if generator.random() < 0.4 and turn > 350:
            middle = at + int(generator.integers(100, turn - 250))
            va[middle : middle + 50, 1 - speaker] = 1
        at += turn + int(generator.integers(20, 80))
        speaker = 1 - speaker if generator.random() < 0.5 else speaker
    va[-1] = 0
    return va


def make(
    folder: Path,
    conversations: int = 6,
    frames: int = 2601,
    folds: int = 3,
    poison: str = "",
    silent: bool = False,
) -> Path:
    """Write ``folder/manifest`` and ``folder/features.zarr``.

    Features are the activity in the projection window's bins, mixed; those of ``poison`` are not numbers.
    """
    generator = np.random.default_rng(0)
    writer = create(
        folder / "features.zarr", {"dim": DIM, "frame_rate": 100, "encoder": {"name": "synthetic"}}
    )
    listed, rows = [], []
    mixing = generator.standard_normal((8, DIM))
    for number in range(conversations):
        name = f"c{number:04}"
        va = talk(generator, frames) * np.uint8(not silent)
        active = np.pad(va, ((1, 200), (0, 0))).cumsum(0)
        ahead = [
            active[1 + b :][:frames] - active[1 + a :][:frames] for a, b in pairwise((0, 20, 60, 120, 200))
        ]
        features = np.concatenate(ahead, 1) / 20 @ mixing + 0.1 * generator.standard_normal((frames, DIM))
        features *= np.nan if name == poison else 1
        writer.write(name, features.astype(np.float16), va, {"number": number})
        listed.append(Conversation(name, "", (frames - 1) / 100, "train", number % folds))
        for channel in (0, 1):
            edges = np.flatnonzero(np.diff(va[:, channel].astype(int), prepend=0, append=0))
            rows.append([(name, channel, a / 100, b / 100) for a, b in edges.reshape(-1, 2).tolist()])
    columns = [dict(zip(manifest.SCHEMA.names, row, strict=True)) for row in chain(*rows)]
    manifest.write(Manifest(listed, pa.Table.from_pylist(columns, manifest.SCHEMA)), folder / "manifest")
    return folder

"""A small corpus with everything but training: manifest, store, and untrained checkpoints."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from vap_pipeline.artefacts import manifest, store
from vap_pipeline.models import checkpoint, network
from vap_pipeline.turn_taking.voice_activity import frames, voice_activity

CONVERSATIONS = [
    ("a", "train", 0),
    ("b", "train", 0),
    ("c", "train", 1),
    ("t", "test", None),
    ("u", "test", None),
]
DURATION_S = 45.0


@dataclass
class Corpus:
    """Where things lie."""

    root: Path
    manifest: Path
    store: Path

    def checkpoint(self, name: str = "discrete", fold: int = 0) -> Path:
        return self.root / "checkpoints" / "small" / name / f"fold-{fold}"


def turns(seed: int) -> list[tuple[int, float, float]]:
    """Turns, gaps, pauses and backchannels: (channel, start_s, end_s)."""
    generator = np.random.default_rng(seed)
    segments, now, speaker = [], 0.0, 0
    while now < DURATION_S - 6:
        end = now + generator.uniform(1.2, 4)
        segments.append((speaker, now, end))
        if end - now > 3.2:
            segments.append((1 - speaker, now + 1.2, now + 1.6))
        now = end + generator.uniform(0.2, 0.6)
        speaker ^= int(generator.random() < 0.5)
    return segments


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("small")
    made = Corpus(root, root / "data_manifest" / "small", root / "data" / "small" / "features.zarr")
    rows = {name: sorted(turns(seed)) for seed, (name, _, _) in enumerate(CONVERSATIONS)}
    table = [(name, *row) for name in rows for row in rows[name]]
    activity = pa.table(
        {key: [row[i] for row in table] for i, key in enumerate(manifest.SCHEMA.names)}, manifest.SCHEMA
    )
    conversations = [
        manifest.Conversation(name, "", DURATION_S, split, fold) for name, split, fold in CONVERSATIONS
    ]
    manifest.write(manifest.Manifest(conversations, activity), made.manifest)
    writer = store.create(
        made.store,
        {"dim": 8, "frame_rate": 100, "encoder": {"name": "random numbers", "weights": "random-seed0"}},
    )
    generator = np.random.default_rng(0)
    for name, segments in rows.items():
        n = frames(DURATION_S)
        va = voice_activity(*(np.array(column) for column in zip(*segments, strict=True)), n)
        writer.write(name, generator.normal(size=(n, 8)).astype(np.float16), va)
    torch.set_num_threads(1)  # the networks are tiny, and tests may run side by side
    torch.manual_seed(0)
    for fold in 0, 1:
        for name in "discrete", "comparative":
            sizes = network.ModelConfig(model=name, input_dim=8, width=16, layers=1, heads=2, feedforward=16)
            described = {"corpus": "small", "fold": fold, "seed": fold, "store": writer.description}
            checkpoint.save(network.ProjectionModel(sizes), described, str(made.checkpoint(name, fold)))
    return made

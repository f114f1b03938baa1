"""Small corpora of noise, and what there is to know of a store on disk."""

import os
import random
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from vap_pipeline.artefacts import manifest
from vap_pipeline.encoders import cpc_weights
from vap_pipeline.encoders.cpc import Config

RATE = 8_000
LAUNCH = [sys.executable, "-m", "vap_pipeline.extract"]


@dataclass
class Corpus:
    """A corpus on disk, small weights, and the command that encodes it."""

    root: Path
    suffix: str = "wav"

    @property
    def store(self) -> Path:
        return self.root / "features.zarr"

    def audio(self, i: int) -> Path:
        return self.root / "audio" / f"c{i:04d}.{self.suffix}"

    def flags(self, **others: object) -> list[str]:
        given = {
            "corpus": "tiny",
            "manifest": self.root / "tiny",
            "audio": self.root / "audio",
            "out": self.store,
            "weights": self.root / "small.pt",
            **others,
        }
        pairs = [(f"--{name.replace('_', '-')}", str(value)) for name, value in given.items()]
        return [text for pair in pairs for text in pair]

    def start(self, *launch: str, **others: object) -> subprocess.Popen[str]:
        """Start the command in a session of its own."""
        command, root = [*(launch or LAUNCH), *self.flags(**others)], Path(__file__).parents[1]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=root, start_new_session=True)


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise (samples, 2)."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((round(seconds * RATE), 2)) * 0.1).astype(np.float32)


def sphere(
    path: Path, codes: np.ndarray, rate: int = RATE, coding: str = "ulaw", order: str = "1", **fields: object
) -> Path:
    """Write a SPHERE file of codes (samples, channels); ``fields`` replace those of the header."""
    header = {
        "sample_rate": rate,
        "channel_count": codes.shape[1],
        "sample_count": len(codes),
        "sample_n_bytes": codes.itemsize,
        **fields,
    }
    lines = [f"{name} -i {value}" for name, value in header.items()]
    lines += [f"sample_byte_format -s{len(order)} {order}", f"sample_coding -s{len(coding)} {coding}"]
    head = "\n".join(["NIST_1A", "   1024", *lines, "end_head\n"]).encode()
    path.write_bytes(head.ljust(1024) + codes.tobytes())
    return path


def corpus(
    root: Path, conversations: int = 4, seconds: float = 12.0, suffix: str = "wav", shift: float = 0.0
) -> Corpus:
    """Write ``conversations`` of noise; in the second one, speech starts ``shift`` later than usual."""
    made = Corpus(root, suffix)
    (root / "audio").mkdir(parents=True, exist_ok=True)
    listed, rows = [], []
    for i in range(conversations):
        name, duration_s = f"c{i:04d}", seconds + i % 5 / 4
        if suffix == "sph":
            codes = np.random.default_rng(i).integers(0, 256, (round(duration_s * RATE), 2), np.uint8)
            sphere(made.audio(i), codes, sample_checksum=int(codes.sum(dtype=int)) % 65_536)
        else:
            soundfile.write(made.audio(i), speech(duration_s, i), RATE, subtype="ULAW")
        split, fold = ("test", None) if i % 4 == 3 else ("train", i % 2)
        listed.append(manifest.Conversation(name, made.audio(i).name, duration_s, split, fold))
        for channel in (0, 1):
            for start in range(3 * channel, int(duration_s) - 3, 6):
                rows.append((name, channel, start + 0.5 + shift * (i == 1), start + 2.25))
    columns = dict(zip(manifest.SCHEMA.names, zip(*rows, strict=True), strict=True))
    manifest.write(manifest.Manifest(listed, pa.table(columns, manifest.SCHEMA)), root / "tiny")
    cpc_weights.save(cpc_weights.random(0, Config(16, 8)), root / "small.pt")
    return made


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def places(folder: Path) -> dict[str, int]:
    """The inode of every shard of features: another one was written anew."""
    return {path.parts[-5]: path.stat().st_ino for path in sorted(folder.glob("*/features/c/0/0"))}


def in_a_namespace(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script where it may mount what it likes, unseen by others, and has no network."""
    tried = subprocess.run(["unshare", "-rmn", "true"], capture_output=True, text=True)
    if tried.returncode:
        reason = f"NOT TESTED: full disks and no network; `unshare -rmn` fails here: {tried.stderr.strip()}"
        warnings.warn(reason, stacklevel=2)  # shown also where reasons of skips are not
        pytest.skip(reason)
    return subprocess.run(
        ["unshare", "-rmn", "bash", "-euc", script],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | environment,
    )


def mutate(content: bytes, choose: random.Random) -> bytes:
    """Return a SPHERE file changed in one of many ways."""
    changed = bytearray(content)
    kind = choose.randrange(7)
    if kind == 0:
        return bytes(changed[: choose.randrange(len(changed))])
    if kind == 1:  # bits of the header
        for _ in range(choose.choice([1, 3, 9])):
            changed[choose.randrange(400)] ^= 1 << choose.randrange(8)
    elif kind == 2:  # bits of the samples
        changed[choose.randrange(1024, len(changed))] ^= 1 << choose.randrange(8)
    elif kind in (3, 4):  # a field of the header
        head, _, rest = bytes(changed).partition(b"end_head")
        lines = head.split(b"\n")
        line = choose.randrange(2, len(lines) - 1)
        value = choose.choice(
            [
                b"-1",
                b"0",
                b"1",
                b"2",
                b"3",
                b"999999999999",
                b"9" * 300,
                b"1e9",
                b"x",
                b"",
                b"\xff\xfe",
                b"8001",
            ]
        )
        lines[line] = b" ".join([*lines[line].split(b" ")[:2], value])
        return b"\n".join(lines) + b"end_head" + rest[len(lines[line]) :]
    elif kind == 5:  # swapped bytes
        even = len(changed) // 2 * 2
        changed[1024:even:2], changed[1025:even:2] = changed[1025:even:2], changed[1024:even:2]
    else:  # a stretch doubled or lost
        at = choose.randrange(len(changed))
        changed[at : at + choose.randrange(3000)] = choose.choice([b"", bytes(3000)])
    return bytes(changed)

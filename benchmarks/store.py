"""The feature store: random windows from it, against one raw file of the same bytes and other layouts.

    python -m benchmarks.store [--rounds 5] [--gigabytes 2] [--folder DIR]

A window is 10 s of features, 1,000 x 256 float16; a batch of 50 is filled in place by all of them alike.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import zarr

from benchmarks import machine
from vap_pipeline.artefacts import store

FRAMES, DIM, WINDOW, BATCH = 30_000, 256, 1_000, 50  # five minutes, as a call of Switchboard's
HOUR = 360_000  # frames
DESCRIPTION = {"dim": DIM, "frame_rate": 100, "encoder": {}, "audio": {}}

Read = Callable[[int, int, np.ndarray], object]  # conversation, first frame, where to


def conversations(count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Random features, one block of them cut anew for each conversation."""
    block = np.random.default_rng(0).standard_normal((FRAMES + count, DIM), np.float32).astype(np.float16)
    for i in range(count):
        yield f"c{i:04d}", block[i : i + FRAMES]


def write_ours(path: Path, count: int) -> Read:
    writer = store.create(path, DESCRIPTION)
    for name, features in conversations(count):
        writer.write(name, features, np.zeros((FRAMES, 2), np.uint8))
    return read_ours(path)


def read_ours(path: Path) -> Read:
    opened = store.open_store(path)
    names = opened.conversations
    return lambda c, start, out: opened.features(names[c], start, start + WINDOW, out=out)


def write_raw(path: Path, count: int) -> Read:
    with path.open("wb") as file:
        for _, features in conversations(count):
            file.write(features.tobytes())
    return read_raw(path)


def read_raw(path: Path) -> Read:
    frames = np.memmap(path, np.float16, "r").reshape(-1, DIM)

    def read(c: int, start: int, out: np.ndarray) -> None:
        out[:] = frames[c * FRAMES + start : c * FRAMES + start + WINDOW]

    return read


def zarr_group(**layout: Any) -> Callable[[Path, int], Read]:
    """A group per conversation, written and read by zarr-python."""

    def write(path: Path, count: int) -> Read:
        root = zarr.create_group(path)
        for name, features in conversations(count):
            array = root.create_array(name, shape=features.shape, dtype="float16", **layout)
            array[:] = features
        arrays: list[Any] = [root[name] for name, _ in conversations(count)]

        def read(c: int, start: int, out: np.ndarray) -> None:
            out[:] = arrays[c][start : start + WINDOW]

        return read

    return write


def zarr_one_array(path: Path, count: int) -> Read:
    """All conversations in one array of uncompressed shards, each shard read at its offset."""
    layout: dict[str, Any] = {"chunks": (WINDOW, DIM), "shards": (FRAMES, DIM), "compressors": None}
    array = zarr.create_array(path, shape=(count * FRAMES, DIM), dtype="float16", **layout)
    for i, (_, features) in enumerate(conversations(count)):
        array[i * FRAMES : (i + 1) * FRAMES] = features

    def read(c: int, start: int, out: np.ndarray) -> None:
        file = os.open(f"{path}/c/{c}/0", os.O_RDONLY)
        os.preadv(file, [out.data], start * DIM * 2)
        os.close(file)

    return read


SHARDED = {"chunks": (WINDOW, DIM), "shards": (FRAMES, DIM)}
LAYOUTS: dict[str, Callable[[Path, int], Read]] = {
    "one raw file, memory-mapped by NumPy": write_raw,
    "group per conversation, uncompressed shards, read at offsets (ours)": write_ours,
    "one array and an index, uncompressed shards, read at offsets": zarr_one_array,
    "group per conversation, uncompressed shards, zarr-python": zarr_group(**SHARDED, compressors=None),
    "group per conversation, zstd shards, zarr-python": zarr_group(**SHARDED),
    "group per conversation, chunks without shards, zarr-python": zarr_group(
        chunks=(WINDOW, DIM), compressors=None
    ),
}


def windows(read: Read, count: int, seed: int, number: int) -> Callable[[], object]:
    """Read ``number`` random windows, other ones each time, batch by batch into one place."""
    rng = np.random.default_rng(seed)
    batch = np.empty((BATCH, WINDOW, DIM), np.float16)

    def work() -> None:
        which, start = rng.integers(count, size=number), rng.integers(FRAMES - WINDOW, size=number)
        for i, (c, s) in enumerate(zip(which.tolist(), start.tolist(), strict=True)):
            read(c, s, batch[i % BATCH])

    return work


def size_of(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def layouts(folder: Path, rounds: int, count: int, number: int = 300) -> str:
    """The table that decided on the layout: warm windows, size and writing, of a small store."""
    works, sizes, writing = {}, {}, {}
    for i, (name, write) in enumerate(LAYOUTS.items()):
        began = time.perf_counter()
        works[name] = windows(write(folder / f"l{i}", count), count, 0, number)
        writing[name] = (time.perf_counter() - began) / count / FRAMES * HOUR
        sizes[name] = size_of(folder / f"l{i}") / count / FRAMES * HOUR / 1e6
    taken = machine.in_turns(works, rounds)
    raw = next(iter(taken.values()))
    rows = [
        [name, number / median(each), machine.ratio(raw, each), sizes[name], writing[name]]
        for name, each in taken.items()
    ]
    head = ["layout", "windows/s", "of raw", "MB/hour", "s to write an hour"]
    return machine.table(head, rows)


class Loaded(torch.utils.data.Dataset[np.ndarray]):
    """Batches of random windows, for a loader's workers."""

    def __init__(self, opener: Callable[[Path], Read], path: Path, count: int, batches: int) -> None:
        self.opener, self.path, self.count, self.batches = opener, path, count, batches
        self.read: Read | None = None

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, i: int) -> np.ndarray:
        self.read = self.read or self.opener(self.path)
        rng = np.random.default_rng(i)
        batch = np.empty((BATCH, WINDOW, DIM), np.float16)
        for row in batch:
            self.read(int(rng.integers(self.count)), int(rng.integers(FRAMES - WINDOW)), row)
        return batch


def large(folder: Path, rounds: int, gigabytes: float) -> tuple[str, list[machine.Row]]:
    """Ours against the raw file: warm, cold, and through a loader's workers."""
    count = max(4, round(gigabytes * 1e9 / (FRAMES * DIM * 2)))
    write_raw(folder / "raw", count)
    write_ours(folder / "ours", count)
    kinds = {"raw": read_raw, "ours": read_ours}

    def rate(key: str, number: int, cold: bool) -> float:
        if cold:  # which no page that is mapped can become: nothing may be open
            machine.drop_cache(folder / key)
        work = windows(kinds[key](folder / key), count, int.from_bytes(os.urandom(4)), number)
        began = time.perf_counter()
        work()
        return number / (time.perf_counter() - began)

    def loaded(key: str, workers: int) -> float:
        data = Loaded(kinds[key], folder / key, count, 40)
        loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=workers)
        batches = iter(loader)
        next(batches)
        began = time.perf_counter()
        seen = sum(1 for _ in batches)
        return seen * BATCH / (time.perf_counter() - began)

    measures: dict[str, Callable[[str], float]] = {
        "warm": lambda key: rate(key, 2_000, cold=False),
        "cold": lambda key: rate(key, 200, cold=True),
        "loader, 1 worker": lambda key: loaded(key, 1),
        "loader, 2 workers": lambda key: loaded(key, 2),
    }
    rows = list[list[Any]]()
    for name, measure in measures.items():
        measure("raw"), measure("ours")
        rates: dict[str, list[float]] = {"raw": [], "ours": []}
        for _ in range(rounds):
            for key, each in rates.items():
                each.append(measure(key))
        rows.append(
            [name, median(rates["raw"]), median(rates["ours"]), machine.ratio(rates["ours"], rates["raw"])]
        )
    ratios = [
        machine.Row(f"store, windows a second, {name}", f"{ours:,.0f}", f"{raw:,.0f}", ratio, "≥ 0.6")
        for name, raw, ours, ratio in rows
    ]
    raw, ours = (size_of(folder / key) / count / FRAMES * HOUR / 1e6 for key in kinds)
    rows.append(["MB per hour of audio", raw, ours, ours / raw])
    ratios.append(machine.Row("store, MB per hour of audio", f"{ours:.0f}", "200", ours / 200, "≤ 1"))
    head = [f"windows/s, {count * FRAMES * DIM * 2 / 1e9:.1f} GB", "raw file", "store", "ratio"]
    return machine.table(head, rows), ratios


def opening(folder: Path, rounds: int) -> tuple[str, machine.Row]:
    """Seconds to open stores of many conversations and ask each for its length."""
    writer = store.create(folder / "one", DESCRIPTION)
    writer.write("c", np.zeros((10, DIM), np.float16), np.zeros((10, 2), np.uint8))
    rows = list[list[Any]]()
    for count in (10, 100, 1_000, 2_438):
        path = folder / f"n{count}"
        store.create(path, DESCRIPTION)
        for i in range(count):
            shutil.copytree(folder / "one/c", path / f"c{i:04d}", copy_function=os.link)

        def lengths(path: Path = path) -> int:
            opened = store.open_store(path)
            return sum(opened.frames(name) for name in opened.conversations)

        opened_s = machine.in_turns({"open": partial(store.open_store, path), "lengths": lengths}, rounds)
        rows.append([str(count), median(opened_s["open"]), median(opened_s["lengths"])])
        shutil.rmtree(path)
    text = machine.table(["conversations", "s to open", "s with every length checked"], rows)
    checked = rows[-1][2]
    row = "store, s to open 2,438 conversations, every length checked", f"{checked:.2f}", "2.00"
    return text, machine.Row(*row, checked / 2, "< 1")


def main(argv: list[str] | None = None) -> list[machine.Row]:
    """Print the tables; return the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of the large store (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where to write, on the disk to be measured")
    args = parser.parse_args(argv)
    print(f"## The store\n\n{machine.name()}")
    works = {"copy": machine.copy()}
    print(
        f"memory copies at {machine.COPY_BYTES / median(machine.in_turns(works, 3)['copy']) / 1e9:.1f} GB/s\n"
    )
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        text, to_open = opening(Path(folder), args.rounds)
        print(text, end="\n\n", flush=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        print(layouts(Path(folder), args.rounds, 16), end="\n\n", flush=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        text, ratios = large(Path(folder), args.rounds, args.gigabytes)
        print(text)
    return [*ratios, to_open]


if __name__ == "__main__":
    main()

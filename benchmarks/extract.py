"""Stage one: audio to features, against the original way and against the machine's matrix products.

    python -m benchmarks.extract [--rounds 5] [--seconds 60] [--hour] [--growth]

The peer is the original network, from its own package where that is installed, else from the same layers as
torch's modules; at one 10 s window at a time, at batches of eight, and at whole conversations. Ours is what
``vap-extract`` runs: as many conversations side by side as there are cores. ``--hour`` measures the memory of
``vap-extract`` over an hour's conversation, ``--growth`` the time for 10, 100 and 1,000 short ones.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import machine
from vap_pipeline.artefacts import manifest, store
from vap_pipeline.audio import recording as audio
from vap_pipeline.audio.rates import SAMPLE_RATE_HZ
from vap_pipeline.encoders.cpc import PADDINGS, STRIDES, Config, CPCEncoder
from vap_pipeline.encoders.cpc_weights import random
from vap_pipeline.encoders.original import OriginalEncoder
from vap_pipeline.extract import run
from vap_pipeline.io.errors import InputError

GFLOP = 1.33  # per second of audio: 1.22 for the convolutions, 0.11 for the recurrent net
WINDOW_S = 10


class Plain(nn.Module):
    """The network as it is usually written: channel-major, Conv1d, a channel norm, ReLU, LSTM."""

    def __init__(self, encoder: CPCEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    @torch.inference_mode()
    def forward(self, signals: Tensor) -> Tensor:
        """Encode (batch, samples) to (batch, frames, dim)."""
        x = signals[:, None]
        for i, (stride, padding) in enumerate(zip(STRIDES, PADDINGS, strict=True)):
            conv = getattr(self.encoder.gEncoder, f"conv{i}")
            norm = getattr(self.encoder.gEncoder, f"batchNorm{i}")
            x = F.conv1d(x, conv.weight, conv.bias, stride=stride, padding=padding)
            mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True)
            x = F.relu((x - mean) * torch.rsqrt(var + 1e-5) * norm.weight + norm.bias)
        return self.encoder.gAR["baseNet"](x.transpose(1, 2))[0]


def peer(encoder: CPCEncoder) -> tuple[str, nn.Module]:
    """The original network, and what to call it."""
    try:
        return "cpc_audio", OriginalEncoder(encoder)
    except InputError:
        return "Conv1d modules", Plain(encoder)


def write_corpus(root: Path, conversations: int, seconds: int) -> list[run.Job]:
    """Write conversations of noise as 8 kHz mu-law SPHERE files; return them as jobs."""
    rng, jobs = np.random.default_rng(0), []
    for i in range(conversations):
        samples = 8_000 * seconds
        head = (
            f"NIST_1A\n   1024\nsample_rate -i 8000\nchannel_count -i 2\nsample_count -i {samples}\n"
            "sample_n_bytes -i 1\nsample_coding -s4 ulaw\nend_head\n"
        )
        path = root / f"c{i}.sph"
        path.write_bytes(head.encode().ljust(1024) + rng.integers(0, 256, 2 * samples, np.uint8).tobytes())
        silence = (np.zeros(0, np.int8), np.zeros(0), np.zeros(0))
        jobs.append(run.Job(f"c{i}", (path,), float(seconds), silence))
    return jobs


def speed(rounds: int, seconds: int, folder: Path) -> tuple[str, list[machine.Row]]:
    """The table of times real time, and its ratios."""
    threads = torch.get_num_threads()
    encoder = random(0)
    who, network = peer(encoder)
    jobs = write_corpus(folder, 2 * threads, seconds)
    recordings = [audio.open_recording(job.audio) for job in jobs]
    signals = [torch.cat(list(audio.pieces(r, audio.gains(r), 100 * seconds, 60))) for r in recordings]
    windows = torch.cat([signal.view(-1, WINDOW_S * SAMPLE_RATE_HZ) for signal in signals])

    def stream(signal: Tensor) -> Tensor:
        return torch.cat(list(encoder.stream(signal.split(run.PIECE_S * SAMPLE_RATE_HZ))))

    def side_by_side() -> None:
        torch.set_num_threads(1)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(stream, signals))
        torch.set_num_threads(threads)

    def whole_command() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            writer = store.create(Path(out, "s.zarr"), {"dim": encoder.dim, "encoder": {}})
            run.extract(jobs, writer, encoder, threads, skip=False)

    works: dict[str, Callable[[], object]] = {
        "machine": machine.matmul(),
        f"{who}, a 10 s window at a time": lambda: [network(window[None]) for window in windows],
        f"{who}, batches of 8 windows": lambda: [network(batch) for batch in windows.split(8)],
        f"{who}, whole conversations": lambda: [network(signal[None]) for signal in signals],
        "ours, one conversation on all cores": lambda: [stream(signal) for signal in signals],
        "ours, a conversation a core": side_by_side,
        "vap-extract: ours, read, mixed, written": whole_command,
    }
    with torch.inference_mode():
        difference = max((network(s[None])[0] - stream(s)).abs().max().item() for s in signals)
    taken = machine.in_turns(works, rounds)
    total_s = seconds * len(jobs)
    limit = [machine.MATMUL_FLOP / s / 1e9 / GFLOP for s in taken.pop("machine")]  # times real time
    rates = {key: [total_s / s for s in each] for key, each in taken.items()}
    best = max((key for key in rates if key.startswith(who)), key=lambda key: median(rates[key]))
    rows = [["float32 matrix products alone", median(limit), 1.0, machine.ratio(limit, rates[best])]]
    for key, each in rates.items():
        rows.append([key, median(each), machine.ratio(each, limit), machine.ratio(each, rates[best])])
    head = ["", "times real time", "of the limit", "to the peer's best"]
    ours = "ours, a conversation a core"

    def against(key: str, target: str) -> machine.Row:
        row = f"stage one, times real time, against {key}", f"{median(rates[ours]):,.0f}"
        return machine.Row(*row, f"{median(rates[key]):,.0f}", machine.ratio(rates[ours], rates[key]), target)

    ratios = [
        machine.Row(
            "stage one, times real time, of matrix products alone",
            *(f"{median(rates[ours]):,.0f}", f"{median(limit):,.0f}"),
            machine.ratio(rates[ours], limit),
            "≥ 0.7",
        ),
        *(against(key, "" if "window at a time" in key else "≥ 3") for key in rates if key.startswith(who)),
    ]
    at_best = 1 + [row.what.partition(" against ")[2] for row in ratios[1:]].index(best)
    ratios[at_best] = ratios[at_best]._replace(target="≥ 1.6, its best")
    text = (
        f"{machine.table(head, rows)}\n\n"
        f"{len(jobs)} conversations of {seconds} s, {rounds} rounds, {threads} threads; "
        f"{GFLOP} GFLOP a second of audio; matrix products at {median(limit) * GFLOP:.0f} GFLOP/s\n"
        f"largest difference of a feature to the peer's: {difference:.1e}"
    )
    return text, ratios


def memory_of_an_hour(folder: Path) -> machine.Row:
    """Peak memory of ``vap-extract`` over one conversation of an hour."""
    (job,) = write_corpus(folder, 1, 3600)
    listed = [manifest.Conversation("c0", job.audio[0].name, 3600.0, "test")]
    empty = pa.Table.from_pylist([], manifest.SCHEMA)
    manifest.write(manifest.Manifest(listed, empty), folder / "hour")
    flags = [
        "--manifest",
        folder / "hour",
        "--audio",
        folder,
        "--out",
        folder / "s.zarr",
        "--weights",
        "random",
    ]
    process = subprocess.Popen([sys.executable, "-m", "vap_pipeline.extract", *map(str, flags)])
    peak = 0.0  # GiB; what the system reports at the end would be no less than our own
    while process.poll() is None:
        if found := re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text()):
            peak = int(found[1]) / 2**20
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(process.returncode)
    stored = sum(file.stat().st_size for file in (folder / "s.zarr").rglob("*") if file.is_file())
    print(f"one hour: peak memory {peak * 1024:,.0f} MiB; {stored / 1e6:,.0f} MB in the store")
    return machine.Row("memory for an hour's conversation, GiB", f"{peak:.2f}", "1.00", peak, "< 1")


def growth(folder: Path) -> tuple[str, machine.Row]:
    """Seconds for 10, 100 and 1,000 conversations of 10 s, with a small network."""
    encoder, rows = random(0, Config(hiddenEncoder=16, hiddenGar=16)), list[list[str | float]]()
    for count in (10, 100, 1_000):
        jobs = write_corpus(folder, count, 10)
        writer = store.create(folder / f"s{count}.zarr", {"dim": encoder.dim, "encoder": {}})
        seconds = []
        for _ in range(2):
            began = time.perf_counter()
            run.extract(jobs, writer, encoder, torch.get_num_threads(), skip=False)
            seconds.append(time.perf_counter() - began)
        rows.append([str(count), *seconds, seconds[0] / count * 1e3])
    head = ["conversations", "s to encode", "s when all is up to date", "ms for one"]
    few, many = (float(row[3]) for row in (rows[0], rows[-1]))
    row = "ms to extract a conversation, of 1,000 against of 10", f"{many:.0f}", f"{few:.0f}"
    return machine.table(head, rows), machine.Row(*row, many / few, "about 1")


def main(argv: list[str] | None = None) -> list[machine.Row]:
    """Print the tables; return the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=60, help="of each conversation (%(default)s)")
    parser.add_argument("--hour", action="store_true", help="also the memory of an hour's conversation")
    parser.add_argument("--growth", action="store_true", help="also 10 to 1,000 conversations")
    args = parser.parse_args(argv)
    print(f"## Stage one: audio to features\n\n{machine.name()}\n")
    with tempfile.TemporaryDirectory() as folder:
        text, ratios = speed(args.rounds, args.seconds, Path(folder))
        print(text, flush=True)
    if args.hour:
        with tempfile.TemporaryDirectory() as folder:
            ratios.append(memory_of_an_hour(Path(folder)))
    if args.growth:
        with tempfile.TemporaryDirectory() as folder:
            text, ratio = growth(Path(folder))
            print(f"\n{text}")
            ratios.append(ratio)
    return ratios


if __name__ == "__main__":
    main()

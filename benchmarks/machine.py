"""What the benchmarks share: the machine's own limits, timing in turns, and tables."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch


def name() -> str:
    """This machine and this day, for the head of a table."""
    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{date.today()}, {os.cpu_count()} cores of {model}, torch {torch.__version__}"


def in_turns(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds that each work took in each round; in turns, so that a busy machine is busy for all of them."""
    for work in works.values():
        work()
    seconds: dict[str, list[float]] = {key: [] for key in works}
    for _ in range(rounds):
        for key, work in works.items():
            start = time.perf_counter()
            work()
            seconds[key].append(time.perf_counter() - start)
    return seconds


class Row(NamedTuple):
    """A line of the summary: what was compared, both sides of it, and what the ratio should be."""

    what: str
    ours: str
    theirs: str
    ratio: float
    target: str


def ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """Median over the rounds of ``of`` / ``to``."""
    return median(a / b for a, b in zip(of, to, strict=True))


MATMUL_FLOP = 8 * 2 * 2048**3


def matmul() -> Callable[[], object]:
    """``MATMUL_FLOP`` of float32 matrix products."""
    a, b = torch.randn(2, 2048, 2048)
    out = torch.empty(2048, 2048)

    def work() -> None:
        for _ in range(8):
            torch.mm(a, b, out=out)

    return work


COPY_BYTES = 8 * 2**28


def copy() -> Callable[[], object]:
    """Copies of ``COPY_BYTES`` within memory."""
    a, b = np.ones(2**28, np.uint8), np.ones(2**28, np.uint8)

    def work() -> None:
        for _ in range(8):
            np.copyto(b, a)

    return work


def drop_cache(path: Path) -> None:
    """Have the files at ``path`` read from the disk next time."""
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            os.fdatasync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(head), *cells]) for i in range(len(head))]
    numbers = [not isinstance(value, str) for value in rows[0]]
    lines = ["| " + " | ".join(h.ljust(w) for h, w in zip(head, widths, strict=True)) + " |"]
    rule = ("-" * (w - 1) + ":" if n else "-" * w for w, n in zip(widths, numbers, strict=True))
    lines.append("| " + " | ".join(rule) + " |")
    for row in cells:
        aligned = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numbers, strict=True))
        lines.append("| " + " | ".join(aligned) + " |")
    return "\n".join(lines)


def summary(rows: Sequence[Row]) -> str:
    """The table of all ratios."""
    return table(["", "ours", "against", "ratio", "target"], rows)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) < 10 else f"{value:,.0f}"
    return str(value)

"""One side of ``benchmarks.live``: a live program on one core, which works when its standard input says so.

    python -m benchmarks.live_side ours CHECKPOINT
    python -m benchmarks.live_side maai ENCODER

For every line that it reads it works through ten seconds of audio and writes a line of JSON: ``pieces``, the
seconds and the processor seconds that each piece took, and the megabytes in use, ``now`` and at the ``peak``.
The first line, written unasked, comes with the first frame, and says what torch alone takes, ``torch``.
"""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

RATE_HZ, BLOCK_S = 16_000, 10
PIECE_S = {"ours": 0.02, "maai": 0.1}
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

Push = Callable[[np.ndarray], object]  # takes a piece (n, 2) and returns something once frames are complete


def signal() -> np.ndarray:
    """Return ten seconds (samples, 2) of noise that comes and goes, as two speakers do."""
    rng = np.random.default_rng(0)
    loud = np.repeat(rng.random((BLOCK_S, 2)) < 0.5, RATE_HZ, axis=0)
    return (rng.standard_normal(loud.shape) * (0.002 + 0.1 * loud)).astype(np.float32)


def ours(checkpoint: str) -> Push:
    """Return the live stream of a checkpoint of ours."""
    import vap_pipeline

    stream = vap_pipeline.load(checkpoint, f"{checkpoint}/encoder.pt").stream(RATE_HZ)
    return lambda piece: len(stream.push(piece)["time_s"])


def maai(encoder: str) -> Push:
    """Return the published real-time program, with weights that are drawn from a seed."""
    from unittest.mock import MagicMock

    for module in ("pyaudio", "pyaudiowpatch", "pygame", "pydub", "fastapi", "pyqtgraph", "PyQt5", "seaborn"):
        sys.modules.setdefault(module, MagicMock())  # sound cards and windows, which nothing here uses
    import torch
    from maai import Maai, MaaiInput

    torch.manual_seed(0)
    with tempfile.NamedTemporaryFile(suffix=".pt") as no_weights:
        torch.save({}, no_weights.name)  # what is missing there keeps its random values
        program = Maai(
            "vap",
            "jp",
            MaaiInput.Zero(),
            MaaiInput.Zero(),
            frame_rate=1 / PIECE_S["maai"],
            context_len_sec=10,
            cpc_model=encoder,
            local_model=no_weights.name,
        )

    def push(piece: np.ndarray) -> bool:
        program.process(piece[:, 0], piece[:, 1])
        if program.result_dict_queue.empty():
            return False
        return bool(program.get_result())

    return push


def main(side: str, path: str) -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the program itself prints goes elsewhere
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    import torch

    torch.set_num_threads(1)
    torch_mb = _in_use_mb()
    push = {"ours": ours, "maai": maai}[side](path)
    pieces = np.split(signal(), round(BLOCK_S / PIECE_S[side]))
    next(piece for piece in pieces if push(piece))
    times: list[tuple[float, float]] = []
    while True:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        answer = {
            "pieces": times,
            "cpu": time.process_time(),
            "torch": torch_mb,
            "now": _in_use_mb(),
            "peak": peak,
        }
        print(json.dumps(answer), file=answers, flush=True)
        if not sys.stdin.readline():
            return
        times = [_timed(push, piece) for piece in pieces]


def _in_use_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES / 1e6


def _timed(push: Push, piece: np.ndarray) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    push(piece)
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main(*sys.argv[1:])

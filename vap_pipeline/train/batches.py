"""Which windows a step trains on, and reading them from the store onto the device."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from vap_pipeline.artefacts.windows import Batch, Windows
from vap_pipeline.runtime.signals import leave_to_main


@dataclass(frozen=True)
class Plan:
    """The global batches of a run: a function of the step, with no state to keep between steps.

    An epoch is a permutation of all windows, made from the run's seed and the epoch. Its last batch is short
    if the batch size does not divide the number of windows.
    """

    windows: int
    batch: int
    swap: float  # probability
    seed: int
    checks_per_epoch: int = 1

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.windows // self.batch)

    def checks_by(self, step: int) -> int:
        """Return how many validation checks are due by a step; an epoch ends with one."""
        return step * min(self.checks_per_epoch, self.steps_per_epoch) // self.steps_per_epoch

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the windows of a step, (batch,) int64, and whether each has its speakers swapped, bool."""
        epoch, within = divmod(step, self.steps_per_epoch)
        order, swapped = _epoch(self.windows, self.swap, self.seed, epoch)
        index = order[within * self.batch : (within + 1) * self.batch]
        return index, swapped[index]


@lru_cache(maxsize=2)
def _epoch(windows: int, swap: float, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng([seed, epoch])
    return generator.permutation(windows), generator.random(windows) < swap


class Piece(NamedTuple):
    """The part of a global batch that a process computes at once: (n,) windows, and their share of it."""

    windows: np.ndarray
    swapped: np.ndarray
    weight: float


def pieces(index: np.ndarray, swapped: np.ndarray, n: int) -> list[Piece]:
    """Cut a global batch into n pieces whose sizes differ by one window at most.

    Processes step together, so every process needs a piece: if there are fewer windows than pieces, the
    others get the first window with weight 0.
    """
    cut = zip(np.array_split(index, n), np.array_split(swapped, n), strict=True)
    return [
        Piece(i, s, len(i) / len(index)) if len(i) else Piece(index[:1], swapped[:1], 0.0) for i, s in cut
    ]


def read(
    windows: Windows, schedule: Callable[[], Iterator[Piece]], workers: int, device: torch.device
) -> Generator[tuple[Piece, Batch], None, None]:
    """Read the windows of each piece of ``schedule`` onto ``device``, ahead of time in ``workers`` processes.

    Close it (``contextlib.closing``) to end these processes.
    """
    loader: DataLoader[Batch] = DataLoader(
        windows,  # type: ignore[arg-type]  # its __getitem__ takes a whole batch
        sampler=(piece.windows for piece in schedule()),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=leave_to_main,
        generator=torch.Generator(),  # else it would draw from the one that is seeded for the step's dropout
        pin_memory=device.type == "cuda",
    )
    for piece, batch in zip(schedule(), loader, strict=True):
        yield piece, {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}

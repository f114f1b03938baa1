"""The 10 s windows of a store's conversations, batch by batch: what training and evaluation both read."""

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vap_pipeline.turn_taking.events import LOOK_AHEAD, WINDOW, window_starts
from vap_pipeline.turn_taking.voice_activity import activity_history

if TYPE_CHECKING:
    from vap_pipeline.artefacts.store import Store

CONTEXT = 6000  # frames before a window: the activity history looks back 60 s frame by frame

Batch = dict[str, Tensor]


class Windows:
    """Every window of ``conversations``, in their order, each conversation's in order of time.

    The voice activity of all conversations is held in memory (0.7 MB per hour); features are read from the
    store when a batch asks for them.
    """

    def __init__(self, store: "Store", conversations: Sequence[str]) -> None:
        self.store = store
        self.conversations = list(conversations)
        activity = [store.va(conversation) for conversation in self.conversations]
        starts = [window_starts(len(va)).numpy() for va in activity]
        self._va = np.concatenate([np.zeros((0, 2), np.uint8), *activity])
        self._first = np.concatenate([[0], np.cumsum([len(va) for va in activity])]).astype(np.int64)
        self._conversation = np.repeat(np.arange(len(starts)), [len(s) for s in starts])
        self._start = np.concatenate([np.zeros(0, np.int64), *starts]).astype(np.int64)
        before = [_active_before(va, s - CONTEXT) for va, s in zip(activity, starts, strict=True)]
        self._before = np.concatenate([np.zeros((0, 2), np.int32), *before])

    def __len__(self) -> int:
        return len(self._start)

    def conversation(self, index: int) -> str:
        """The conversation in which window ``index`` lies."""
        return self.conversations[self._conversation[index]]

    def start(self, index: int) -> int:
        """The first frame of window ``index`` in its conversation."""
        return int(self._start[index])

    def digest(self) -> str:
        """SHA-256 of what the windows are cut from: names, the store's notes on them, and voice activity."""
        sha256 = hashlib.sha256(self._va.tobytes())
        for conversation in self.conversations:
            sha256.update(
                json.dumps([conversation, self.store.attributes(conversation)], sort_keys=True).encode()
            )
        return sha256.hexdigest()

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """Read windows.

        Returns:
            ``features`` (B, 1000, dim) float16; ``va`` (B, 6000 + 1200, 2) uint8, the 60 s before the window,
            the window and its look-ahead, silence where the conversation has not begun or is over; ``before``
            (B, 2) int32, each speaker's active frames before all that; ``index`` (B,) int64.
        """
        index = np.asarray(indices, dtype=np.int64)
        conversation, start = self._conversation[index], self._start[index]
        features = np.empty((len(index), WINDOW, self.store.dim), np.float16)
        for row, (c, s) in enumerate(zip(conversation.tolist(), start.tolist(), strict=True)):
            self.store.features(self.conversations[c], s, s + WINDOW, out=features[row])
        frame = start[:, None] + np.arange(-CONTEXT, WINDOW + LOOK_AHEAD)
        first, end = self._first[conversation][:, None], self._first[conversation + 1][:, None]
        inside = (frame >= 0) & (first + frame < end)
        va = self._va[np.where(inside, first + frame, 0)] * inside[..., None].astype(np.uint8)
        return {
            "features": torch.from_numpy(features),
            "va": torch.from_numpy(va),
            "before": torch.from_numpy(self._before[index]),
            "index": torch.from_numpy(index),
        }

    __getitem__ = batch  # what a DataLoader asks for


def swap(batch: Batch, mask: Tensor) -> Batch:
    """Exchange the speakers of the windows in ``mask`` (B,) bool; the features, of the mono mix, stay."""
    flip = mask.to(batch["va"].device)
    va, before = batch["va"], batch["before"]
    return batch | {
        "va": torch.where(flip[:, None, None], va.flip(-1), va),
        "before": torch.where(flip[:, None], before.flip(-1), before),
    }


def inputs(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The float32 inputs of the model: features (B, 1000, dim), va (B, 1000, 2), history (B, 1000, 5)."""
    va = batch["va"]
    history = activity_history(va[:, : CONTEXT + WINDOW], batch["before"])[:, CONTEXT:]
    return batch["features"].float(), va[:, CONTEXT : CONTEXT + WINDOW].float(), history


def activity(batch: Batch) -> Tensor:
    """The voice activity (B, 1200, 2) of windows and look-ahead: what labels and events are made of."""
    return batch["va"][:, CONTEXT:]


def _active_before(va: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Return (n, 2) int32: the frames in which each speaker of ``va`` is active before each of n frames."""
    active = np.zeros((len(va) + 1, 2), np.int32)
    np.cumsum(va, axis=0, out=active[1:])
    return active[frames.clip(0)]

"""The windows of a store's conversations, batch by batch: the input of training and evaluation."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vap_pipeline.artefacts.store import Store
from vap_pipeline.settings.events import PAPER, EventSettings
from vap_pipeline.turn_taking.events import lengths, window_starts
from vap_pipeline.turn_taking.voice_activity import activity_history

CONTEXT_FRAMES = 6000  # before a window: the activity history looks back 60 s frame by frame

Batch = dict[str, Tensor]


class Windows:
    """Every window of ``conversations``: conversation by conversation, in order of time.

    The voice activity of all conversations is held in memory (0.7 MB per hour). Features are read from the
    store when a batch asks for them.

    Attributes:
        store: the feature store.
        conversations: their names.
        settings: length of a window, hop and look-ahead, and what counts as an event in it.
        frames: the same in frames.
    """

    def __init__(self, store: Store, conversations: Sequence[str], settings: EventSettings = PAPER) -> None:
        self.store, self.settings, self.frames = store, settings, lengths(settings)
        self.conversations = list(conversations)
        activity = [store.va(conversation) for conversation in self.conversations]
        starts = [window_starts(len(va), settings).numpy() for va in activity]
        self._va = np.concatenate([np.zeros((0, 2), np.uint8), *activity])
        self._first = np.concatenate([[0], np.cumsum([len(va) for va in activity])]).astype(np.int64)
        self._conversation = np.repeat(np.arange(len(starts)), [len(start) for start in starts])
        self._start = np.concatenate([np.zeros(0, np.int64), *starts]).astype(np.int64)
        before = [
            _active_before(va, start - CONTEXT_FRAMES) for va, start in zip(activity, starts, strict=True)
        ]
        self._before = np.concatenate([np.zeros((0, 2), np.int32), *before])

    def __len__(self) -> int:
        return len(self._start)

    def conversation(self, index: int) -> str:
        """Return the name of the conversation that window ``index`` belongs to."""
        return self.conversations[self._conversation[index]]

    def start(self, index: int) -> int:
        """Return the first frame of window ``index`` in its conversation."""
        return int(self._start[index])

    def digest(self) -> str:
        """Return the SHA-256 of the conversations' names, voice activity, and attributes in the store."""
        sha256 = hashlib.sha256(self._va.tobytes())
        for conversation in self.conversations:
            sha256.update(
                json.dumps([conversation, self.store.attributes(conversation)], sort_keys=True).encode()
            )
        return sha256.hexdigest()

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """Read windows, of T frames with a look-ahead of H (1,000 and 200 with the paper's settings).

        Returns:
            ``features`` (B, T, dim) float16; ``va`` (B, 6000 + T + H, 2) uint8, the 60 s before the window,
            the window and its look-ahead, silent outside the conversation; ``before`` (B, 2) int32, the
            frames in which each speaker is active before all that; ``index`` (B,) int64.
        """
        length, look_ahead = self.frames.window, self.frames.look_ahead
        index = np.asarray(indices, dtype=np.int64)
        conversation, start = self._conversation[index], self._start[index]
        features = np.empty((len(index), length, self.store.dim), np.float16)
        for row, (c, s) in enumerate(zip(conversation.tolist(), start.tolist(), strict=True)):
            self.store.features(self.conversations[c], s, s + length, out=features[row])
        frame = start[:, None] + np.arange(-CONTEXT_FRAMES, length + look_ahead)
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
    """Return the float32 inputs of a model: features (B, T, dim), va (B, T, 2), history (B, T, 5)."""
    va, features = batch["va"], batch["features"]
    end = CONTEXT_FRAMES + features.shape[1]
    history = activity_history(va[:, :end], batch["before"])[:, CONTEXT_FRAMES:]
    return features.float(), va[:, CONTEXT_FRAMES:end].float(), history


def activity(batch: Batch) -> Tensor:
    """Return the voice activity (B, T + H, 2) of windows and look-ahead, for labels and events."""
    return batch["va"][:, CONTEXT_FRAMES:]


def _active_before(va: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Return (n, 2) int32: the number of active frames of each speaker before each of n frames."""
    active = np.zeros((len(va) + 1, 2), np.int32)
    np.cumsum(va, axis=0, out=active[1:])
    return active[frames.clip(0)]

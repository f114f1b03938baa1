"""The batches of pretraining: windows of speech, scaled, with negatives.

They depend on the seed and the step alone, so a stopped run continues as if it had not been stopped.
"""

import math
from collections import defaultdict
from collections.abc import Generator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vap_pipeline.audio.rates import HOP_SAMPLES, SAMPLE_RATE_HZ
from vap_pipeline.pretrain import speech
from vap_pipeline.pretrain.speech import Stretch
from vap_pipeline.runtime.signals import leave_to_main
from vap_pipeline.settings.pretrain import WINDOW_FRAMES, PretrainSettings

WINDOW_SAMPLES = WINDOW_FRAMES * HOP_SAMPLES  # 1.28 s
PEAKS = (0.1, 1.0)  # range of the peaks that windows are scaled to


class Batch(NamedTuple):
    """Windows of some speakers, and which of their frames are negatives.

    Attributes:
        audio: (speakers, windows, 20,480) float32 at 16 kHz.
        negatives: (speakers, negatives) int64, frames among the windows * 128 of the speaker.
    """

    audio: Tensor
    negatives: Tensor


class Batches(Dataset[Batch]):
    """The batches of a run, by step.

    Speakers are drawn in proportion to how long they speak, windows evenly over a speaker's speech.

    Args:
        share: the places in a batch of the speakers that this process reads.
    """

    def __init__(self, stretches: list[Stretch], config: PretrainSettings, share: slice) -> None:
        self.config, self.share = config, share
        by_speaker = defaultdict(list)
        for stretch in stretches:
            by_speaker[stretch.speaker].append(stretch)
        self.speakers = list(by_speaker.values())
        lengths_s = [np.array([s.end_s - s.start_s for s in mine]) for mine in self.speakers]
        # The part of a stretch in which a window can begin.
        self.room_s = [length_s - WINDOW_SAMPLES / SAMPLE_RATE_HZ + 1e-3 for length_s in lengths_s]
        spoken_s = np.array([sum(length_s) for length_s in lengths_s])
        self.weight = spoken_s / spoken_s.sum()

    def __len__(self) -> int:
        return self.config.steps

    def __getitem__(self, step: int) -> Batch:
        """Read this process's share of the batch of ``step``.

        Raises:
            InputError: audio cannot be read.
        """
        config = self.config
        chosen, seeds = self._draw(step)
        audio, negatives = [], []
        for speaker, seed in list(zip(chosen, seeds, strict=True))[self.share]:
            generator = np.random.default_rng(seed)
            audio.append(torch.stack([self._window(speaker, generator) for _ in range(config.windows)]))
            negatives.append(generator.integers(config.windows * WINDOW_FRAMES, size=config.negatives))
        return Batch(torch.stack(audio), torch.from_numpy(np.stack(negatives)))

    def read(self, first: int, workers: int, device: torch.device) -> Generator[Batch, None, None]:
        """Yield the batches from step ``first`` on, on ``device``; ``workers`` processes read ahead."""
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=range(first, len(self)),
            num_workers=workers,
            worker_init_fn=leave_to_main,
            generator=torch.Generator(),
            pin_memory=device.type == "cuda",
        )
        for batch in loader:
            yield Batch(*(tensor.to(device, non_blocking=True) for tensor in batch))

    def names(self, step: int) -> str:
        """Return the speakers in the batch of ``step``, over all processes."""
        return ", ".join(sorted({self.speakers[i][0].speaker for i in self._draw(step)[0]}))

    def _draw(self, step: int) -> tuple[list[int], list[int]]:
        generator = np.random.default_rng([self.config.seed, step])
        chosen = generator.choice(len(self.speakers), self.config.speakers, p=self.weight)
        return chosen.tolist(), generator.integers(2**63, size=self.config.speakers).tolist()

    def _window(self, speaker: int, generator: np.random.Generator) -> Tensor:
        room_s = self.room_s[speaker]
        i = int(generator.choice(len(room_s), p=room_s / room_s.sum()))
        stretch = self.speakers[speaker][i]
        signal = speech.read(stretch, stretch.start_s + generator.random() * room_s[i], WINDOW_SAMPLES)
        low, high = np.log(PEAKS)
        return signal * (
            math.exp(generator.uniform(low, high)) / signal.abs().max().clamp(min=speech.QUIET_PEAK)
        )

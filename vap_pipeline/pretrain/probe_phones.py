"""Synthetic speech for the phone probe: espeak-ng's voices at telephone quality, with a phone per frame."""

from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import torch
import torchaudio
from torch import Tensor

from vap_pipeline.audio import espeak, telephone
from vap_pipeline.audio.rates import HOP_SAMPLES, SAMPLE_RATE_HZ

WINDOW_SAMPLES = 2 * SAMPLE_RATE_HZ

# From the IEEE's recommended practice for speech quality measurements (IEEE Transactions on Audio and
# Electroacoustics 17, 1969), lists 1 and 2.
TRAINING_TEXT = (
    "The birch canoe slid on the smooth planks. Glue the sheet to the dark blue background. It's easy to "
    "tell the depth of a well. These days a chicken leg is a rare dish. Rice is often served in round "
    "bowls. The juice of lemons makes fine punch. The box was thrown beside the parked truck. The hogs were "
    "fed chopped corn and garbage. Four hours of steady work faced us. A large size in stockings is hard to "
    "sell. The boy was there when the sun rose. A rod is used to catch pink salmon."
)
TEST_TEXT = (
    "The source of the huge river is the clear spring. Kick the ball straight and follow through. Help the "
    "woman get back to her feet. A pot of tea helps to pass the evening. Smoky fires lack flame and heat. "
    "The soft cushion broke the man's fall. The salt breeze came across from the sea. The girl at the booth "
    "sold fifty bonds."
)
# Neither the sample corpus nor the shipped encoder's training speech has the test voices.
TRAINING_VOICES = [f"en-us+{variant}" for variant in ("m1", "m2", "m3", "m4", "f1", "f2", "f3", "f4")]
TEST_VOICES = [f"en-us+{variant}" for variant in ("Andy", "Michael", "Annie", "steph")]


class Phones(NamedTuple):
    """Windows of synthetic speech.

    Attributes:
        audio: (windows, WINDOW_SAMPLES) float32 at 16 kHz, the peak of each 1.
        phone: (windows, frames) int64, −1 in silence.
    """

    audio: Tensor
    phone: Tensor


@cache
def phones() -> tuple[Phones, Phones]:
    """Return the speech to fit the phone probe on and the speech to score it on; the same in every run."""
    texts = [TRAINING_TEXT] * len(TRAINING_VOICES) + [TEST_TEXT] * len(TEST_VOICES)
    # A fresh process, because espeak's output depends on everything that it has spoken before.
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        spoken = process.map(espeak.phones, texts, TRAINING_VOICES + TEST_VOICES)
        windows = [_windows(*utterance) for utterance in spoken]
    training, test = windows[: len(TRAINING_VOICES)], windows[len(TRAINING_VOICES) :]
    known = np.unique(np.concatenate([names for _, names in training]))
    known = known[known != espeak.PAUSE]

    def numbered(part: list[tuple[Tensor, np.ndarray]]) -> Phones:
        names = np.concatenate([names for _, names in part])
        phone = np.where(np.isin(names, known), np.searchsorted(known, names), -1)
        return Phones(torch.cat([audio for audio, _ in part]), torch.from_numpy(phone))

    return numbered(training), numbered(test)


def _windows(audio: np.ndarray, names: list[str], starts: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Turn espeak's output into mu-law speech of 8 kHz, at 16 kHz, and cut it into windows.

    Returns:
        Audio (windows, WINDOW_SAMPLES), and the phones' names (windows, frames).
    """
    resample = torchaudio.functional.resample
    line = resample(torch.from_numpy(audio), espeak.RATE_HZ, telephone.RATE_HZ)
    codes = torchaudio.functional.mu_law_encoding(line / line.abs().max(), 256)
    line = resample(torchaudio.functional.mu_law_decoding(codes, 256), telephone.RATE_HZ, SAMPLE_RATE_HZ)
    line = line[: len(line) // WINDOW_SAMPLES * WINDOW_SAMPLES].view(-1, WINDOW_SAMPLES)
    middles = (np.arange(line.numel() // HOP_SAMPLES) + 0.5) * HOP_SAMPLES
    index = np.searchsorted(starts * (SAMPLE_RATE_HZ / espeak.RATE_HZ), middles, side="right") - 1
    # Trailing digits mark espeak's rule variants, not sounds: merge them.
    merged = np.array([name.rstrip("0123456789") or name for name in names])
    return line / line.abs().amax(1, keepdim=True), merged[index].reshape(len(line), -1)

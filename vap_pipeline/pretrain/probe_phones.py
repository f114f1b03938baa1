"""Synthetic speech for the phone probe: espeak-ng's voices through a telephone, with a phone per frame."""

from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import torch
import torchaudio
from torch import Tensor

from vap_pipeline.audio import espeak
from vap_pipeline.audio.rates import HOP_SAMPLES, SAMPLE_RATE_HZ

WINDOW_SAMPLES = 2 * SAMPLE_RATE_HZ
TELEPHONE_RATE_HZ = 8000

# From the IEEE's recommended practice for speech quality measurements (IEEE Transactions on Audio and
# Electroacoustics 17, 1969), lists 1 and 2.
TRAINING_SENTENCES = (
    "The birch canoe slid on the smooth planks.",
    "Glue the sheet to the dark blue background.",
    "It's easy to tell the depth of a well.",
    "These days a chicken leg is a rare dish.",
    "Rice is often served in round bowls.",
    "The juice of lemons makes fine punch.",
    "The box was thrown beside the parked truck.",
    "The hogs were fed chopped corn and garbage.",
    "Four hours of steady work faced us.",
    "A large size in stockings is hard to sell.",
    "The boy was there when the sun rose.",
    "A rod is used to catch pink salmon.",
)

TEST_SENTENCES = (
    "The source of the huge river is the clear spring.",
    "Kick the ball straight and follow through.",
    "Help the woman get back to her feet.",
    "A pot of tea helps to pass the evening.",
    "Smoky fires lack flame and heat.",
    "The soft cushion broke the man's fall.",
    "The salt breeze came across from the sea.",
    "The girl at the booth sold fifty bonds.",
)

TRAINING_VOICES = tuple(f"en-us+{variant}" for variant in ("m1", "m2", "m3", "m4", "f1", "f2", "f3", "f4"))

# Voices that nothing else here speaks with: neither the sample corpus nor what the shipped encoder has heard.
TEST_VOICES = tuple(f"en-us+{variant}" for variant in ("Andy", "Michael", "Annie", "steph"))


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
    """Return the speech that phones are learnt from, and that they are tested on; the same every time."""
    parts = ((TRAINING_VOICES, TRAINING_SENTENCES), (TEST_VOICES, TEST_SENTENCES))
    voices = [voice for part, _ in parts for voice in part]
    texts = [" ".join(sentences) for part, sentences in parts for _ in part]
    # A fresh process, because espeak's output depends on all that it has said before.
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        spoken = list(process.map(espeak.phones, texts, voices))
    cut = [_telephone(*utterance) for utterance in spoken]
    training, test = cut[: len(TRAINING_VOICES)], cut[len(TRAINING_VOICES) :]
    known = np.unique(np.concatenate([names for _, names in training]))
    known = known[known != espeak.PAUSE]

    def gathered(part: list[tuple[Tensor, np.ndarray]]) -> Phones:
        names = np.concatenate([names for _, names in part])
        phone = np.where(np.isin(names, known), np.searchsorted(known, names), -1)
        return Phones(torch.cat([audio for audio, _ in part]), torch.from_numpy(phone))

    return gathered(training), gathered(test)


def _telephone(audio: np.ndarray, names: list[str], starts: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Send espeak's output through a telephone and cut it into windows.

    Returns:
        Audio (windows, WINDOW_SAMPLES), and the phones' names (windows, frames).
    """
    resample = torchaudio.functional.resample
    line = resample(torch.from_numpy(audio), espeak.RATE, TELEPHONE_RATE_HZ)
    codes = torchaudio.functional.mu_law_encoding(line / line.abs().max(), 256)
    line = torchaudio.functional.mu_law_decoding(codes, 256)
    line = resample(line, TELEPHONE_RATE_HZ, SAMPLE_RATE_HZ)
    line = line[: len(line) // WINDOW_SAMPLES * WINDOW_SAMPLES].view(-1, WINDOW_SAMPLES)
    middles = (np.arange(line.numel() // HOP_SAMPLES) + 0.5) * HOP_SAMPLES
    index = np.searchsorted(starts * (SAMPLE_RATE_HZ / espeak.RATE), middles, side="right") - 1
    # Trailing digits mark espeak's rule variants, not sounds: merge them.
    merged = np.array([name.rstrip("0123456789") or name for name in names])
    return line / line.abs().amax(1, keepdim=True), merged[index].reshape(len(line), -1)

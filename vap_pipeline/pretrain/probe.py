"""Linear probes: what can be read from one feature vector.

Probes of pitch, energy and voicing are fitted on half of the speakers and scored on the other half, then
with the halves exchanged. The speaker probe is fitted on the earlier windows and scored on the later ones,
the phone probe on some of espeak-ng's voices and sentences and scored on others.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from tqdm import tqdm

from vap_pipeline.audio.rates import HOP_SAMPLES, SAMPLE_RATE_HZ
from vap_pipeline.io import markdown
from vap_pipeline.io.errors import InputError
from vap_pipeline.pretrain import speech
from vap_pipeline.pretrain.pitch import QUIETEST, log_energy, log_f0
from vap_pipeline.pretrain.probe_phones import WINDOW_SAMPLES, Phones, phones
from vap_pipeline.pretrain.speech import Stretch

Encoder = Callable[[Tensor], Tensor]  # audio (batch, samples) to features (batch, samples // 160, dim)
Probe = Callable[[int], Ridge | LogisticRegression]  # makes a probe for a number of examples
Scores = dict[str, dict[str, float]]  # by encoder and task: R2 for f0 and energy, accuracy for the others

TASKS = ("f0", "energy", "voicing", "speaker", "phone")
SKIPPED_FRAMES = 30  # at the start of a window, until the state of a recurrent net has settled
FEWEST = 4  # windows of a speaker, and speakers
PIECES = 2  # of a window, each an example for the speaker probe
BATCH_WINDOWS = 32
PENALTY = 1e-3  # on a probe's squared weights, relative to the mean loss; features have unit variance
MOST_ITERATIONS = 1000


def probe(
    encoders: Mapping[str, Encoder], stretches: Iterable[Stretch], seed: int = 0, windows: int = 30
) -> Scores:
    """Score every encoder on every task.

    ``f0`` and ``energy`` are natural logarithms, F0 of voiced frames only; ``voicing`` is whether a frame is
    voiced. All three leave out silent frames. ``speaker`` is read from the mean features of 0.85 s, the other
    tasks from one frame. The probes are ridge regressions, and logistic regressions with the same penalty.

    Args:
        encoders: by name; their audio is float32 at 16 kHz on the CPU, and so are their features.
        stretches: speech of speakers that the encoders were not trained on.
        seed: of the choice of windows, and of the halves of the speakers; both have low and high voices.
        windows: the most windows of 2 s of a speaker that are used.

    Raises:
        InputError: fewer than four speakers with 8 s of speech in stretches of 2 s or longer, speech without
            voiced frames, a file that cannot be read, or features that are not finite.
    """
    generator = np.random.default_rng(seed)
    audio, speaker, later = _windows(stretches, windows, generator)
    pitch, energy = (measure(audio)[:, SKIPPED_FRAMES:] for measure in (log_f0, log_energy))
    spoken, voiced = energy > math.log(QUIETEST), ~pitch.isnan()
    half = _half(speaker, pitch, generator)[:, None].expand_as(pitch)
    if any(not (voiced & (half == number)).any() for number in (0, 1)):
        raise InputError("half of the speakers have no voiced speech; probe with other conversations")
    speaker, later = (labels.repeat_interleave(PIECES) for labels in (speaker, later))
    training, test = phones()

    scores: Scores = {}
    for name, encoder in tqdm(encoders.items(), "probe", unit=" encoders", disable=None):
        x = _encode(name, encoder, audio)
        means = x.unflatten(1, (PIECES, -1)).mean(2).flatten(0, 1)
        scores[name] = {
            "f0": r2_score(*_across(_ridge, x, pitch, voiced, half)),
            "energy": r2_score(*_across(_ridge, x, energy, spoken, half)),
            "voicing": accuracy_score(*_across(_logistic, x, voiced, spoken, half)),
            "speaker": accuracy_score(
                speaker[later], _predict(_logistic, means[~later], speaker[~later], means[later])
            ),
            "phone": _phone(name, encoder, training, test),
        }
    return scores


def table(scores: Scores) -> str:
    """Return the scores as a Markdown table, one row per encoder."""
    rows = [[name, *(f"{values[task]:.3f}" for task in TASKS)] for name, values in scores.items()]
    return markdown.table(["encoder", *TASKS], rows) + "\n"


def _windows(
    stretches: Iterable[Stretch], most: int, generator: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose windows of each speaker at random, in order of time; leave out speakers with too few.

    Returns:
        Their audio (windows, WINDOW_SAMPLES), all with peak 1; their speakers, numbered from 0; and whether
        they are in the later half of their speaker's windows.
    """
    window_s = WINDOW_SAMPLES / SAMPLE_RATE_HZ
    places: dict[str, list[tuple[float, Stretch]]] = defaultdict(list)
    for stretch in stretches:
        count = int((stretch.end_s - stretch.start_s) / window_s + 1e-6)
        places[stretch.speaker] += [(stretch.start_s + i * window_s, stretch) for i in range(count)]
    audio, later = [], []
    for candidates in places.values():
        candidates.sort(key=lambda place: place[0])
        chosen = np.sort(generator.permutation(len(candidates))[:most])
        windows = [speech.read(candidates[i][1], candidates[i][0], WINDOW_SAMPLES) for i in chosen]
        loud = [window / window.abs().max() for window in windows if window.abs().max() > speech.QUIET_PEAK]
        if len(loud) >= FEWEST:
            audio.append(torch.stack(loud))
            later.append(torch.arange(len(loud)) >= len(loud) // 2)
    if len(audio) < FEWEST:
        raise InputError(
            f"{len(audio)} speakers with {FEWEST * window_s:g} s of speech or more in stretches of "
            f"{window_s:g} s, where {FEWEST} are needed; hold back more conversations"
        )
    speaker = torch.arange(len(audio)).repeat_interleave(torch.tensor([len(part) for part in audio]))
    return torch.cat(audio), speaker, torch.cat(later)


def _half(speaker: Tensor, pitch: Tensor, generator: np.random.Generator) -> Tensor:
    """Return a half, 0 or 1, for each window; two speakers of neighbouring pitch are in different halves."""
    medians = [float(pitch[speaker == number].nanmedian()) for number in range(int(speaker.max()) + 1)]
    half = np.empty(len(medians), int)
    for pair in np.split(np.argsort(medians), range(2, len(medians), 2)):
        half[pair] = generator.permutation(2)[: len(pair)]
    return torch.from_numpy(half)[speaker]


def _encode(name: str, encoder: Encoder, audio: Tensor) -> Tensor:
    """Return the features of windows, (windows, frames, dim) float32, without the skipped frames."""
    with torch.no_grad():
        parts = [encoder(batch)[:, SKIPPED_FRAMES:].float() for batch in audio.split(BATCH_WINDOWS)]
    features = torch.cat(parts)
    if features.shape[:2] != (len(audio), WINDOW_SAMPLES // HOP_SAMPLES - SKIPPED_FRAMES):
        raise ValueError(f"encoder {name} returns {tuple(features.shape)}, not a feature per 160 samples")
    if not features.isfinite().all():
        raise InputError(f"encoder {name}: its features are NaN or infinite; use other weights")
    return features


def _phone(name: str, encoder: Encoder, training: Phones, test: Phones) -> float:
    parts = []
    for windows in (training, test):
        phone = windows.phone[:, SKIPPED_FRAMES:]
        parts += [_encode(name, encoder, windows.audio)[phone >= 0], phone[phone >= 0]]
    x, y, others, truth = parts
    return accuracy_score(truth, _predict(_logistic, x, y, others))


def _across(
    probe: Probe, x: Tensor, y: Tensor, chosen: Tensor, half: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Predict the chosen frames of each half of the speakers with a probe fitted on the other half.

    Returns:
        The truth and the predictions, both (frames,).
    """
    a, b = (chosen & (half == number) for number in (0, 1))
    predictions = [_predict(probe, x[a], y[a], x[b]), _predict(probe, x[b], y[b], x[a])]
    return torch.cat([y[b], y[a]]).numpy(), np.concatenate(predictions)


def _predict(probe: Probe, x: Tensor, y: Tensor, others: Tensor) -> np.ndarray:
    """Fit a probe on x (n, dim) and y (n,), and return its predictions for others (m, dim)."""
    if len(y.unique()) == 1:  # no regression can be fitted
        return np.full(len(others), y[0])
    pipeline = make_pipeline(StandardScaler(), probe(len(x)))
    return pipeline.fit(x.numpy(), y.numpy()).predict(others.numpy())


def _ridge(n: int) -> Ridge:
    return Ridge(alpha=PENALTY * n)


def _logistic(n: int) -> LogisticRegression:
    return LogisticRegression(C=1 / (PENALTY * n), max_iter=MOST_ITERATIONS)

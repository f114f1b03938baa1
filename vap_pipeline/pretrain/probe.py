"""How much of speech lies open in an encoder's features: linear probes, each of one frame's feature alone.

Pitch, energy and voicing are fitted on half of the speakers and scored on the other half, and the other way
round; who speaks is learnt from a speaker's earlier windows and scored on the later ones; phones are learnt
from some of espeak-ng's voices and sentences and scored on others.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor
from tqdm import tqdm

from vap_pipeline.audio import espeak
from vap_pipeline.audio.rates import HOP_SAMPLES, SAMPLE_RATE_HZ
from vap_pipeline.io.errors import InputError
from vap_pipeline.pretrain import speech
from vap_pipeline.pretrain.speech import Stretch

Encoder = Callable[[Tensor], Tensor]  # audio (batch, samples) to features (batch, samples // 160, dim)
Fit = Callable[[Tensor, Tensor, Tensor], Tensor]

TASKS = ("f0", "energy", "voicing", "speaker", "phone")
WINDOW = 2 * SAMPLE_RATE_HZ  # samples that an encoder hears at a time, from its zero state
SKIPPED = 30  # frames at the start of a window, in which a recurrent net finds its feet
FEWEST = 4  # windows of a speaker, and speakers
PIECES = 2  # of a window, each of which should tell its speaker
BATCH = 32

FRAME = 400  # samples, 25 ms, over which energy and pitch are measured
LAGS = range(
    SAMPLE_RATE_HZ // 400, SAMPLE_RATE_HZ // 60 + 1
)  # periods of pitches from 400 to 60 Hz, in samples
PERIODIC = 0.6  # the correlation of a voiced frame with the audio a period later, at least
LONGER, JUMP = 0.3, 1.0  # what a lag of 267 samples loses, and a change of the pitch by the factor e
CANDIDATES = 6
QUIETEST, QUIETEST_VOICE = 1e-6, 1e-3  # mean squares of frames of speech, where the window's peak is 1

PENALTY = 1e-3  # on a probe's squared weights, beside the mean loss; features have unit variance
ITERATIONS = 100

BANDS, MEL_FFT = 80, 512
FLOOR = 1e-6  # of a mel band's power

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


class Score(NamedTuple):
    """What a linear probe reads off an encoder's features.

    Attributes:
        encoder: its name.
        task: one of ``TASKS``.
        score: R2 for f0 and energy, the share told right for the others.
    """

    encoder: str
    task: str
    score: float


class Windows(NamedTuple):
    """Windows of held-back speakers' speech.

    Attributes:
        audio: (windows, WINDOW) float32 at 16 kHz, the peak of each 1.
        speaker: (windows,) int64, from 0 on.
        later: (windows,) bool, whether it is of the later half of its speaker's windows.
    """

    audio: Tensor
    speaker: Tensor
    later: Tensor


class Phones(NamedTuple):
    """Windows of synthetic speech, audio as in :class:`Windows`.

    Attributes:
        phone: (windows, frames) int64, −1 in silence.
    """

    audio: Tensor
    phone: Tensor


def probe(
    encoders: Mapping[str, Encoder], stretches: Iterable[Stretch], seed: int = 0, windows: int = 30
) -> list[Score]:
    """Score every encoder on every task, in the order of ``encoders`` and ``TASKS``.

    ``f0`` and ``energy`` are natural logarithms, F0 that of voiced frames; ``voicing`` is which frames those
    are. Frames of silence count for none of the three. ``speaker`` is told from the mean features of
    0.85 s, all others from one frame. The probes are ridge regressions, and softmax regressions with the same
    penalty. R2 and accuracy are those of all speakers' frames, told by the probe of the other half.

    Args:
        encoders: by name, functions of audio (batch, samples), float32 at 16 kHz on the CPU, that return
            features (batch, samples // 160, dim) there.
        stretches: speech of speakers whom the encoders have not heard.
        seed: of the choice of windows, and of the halves of the speakers, both with low and high voices.
        windows: of 2 s, used of each speaker at most.

    Raises:
        InputError: fewer than four speakers with 8 s of speech in stretches of 2 s or longer, speech that is
            nowhere voiced, a file that cannot be read, or features that are no finite numbers.
    """
    generator = np.random.default_rng(seed)
    held_back = _windows(stretches, windows, generator)
    pitch = log_f0(held_back.audio)[:, SKIPPED:]
    energy = log_energy(held_back.audio)[:, SKIPPED:]
    spoken, voiced = energy > math.log(QUIETEST), ~pitch.isnan()
    half = _half(held_back.speaker, pitch, generator)[:, None].expand_as(pitch)
    if any(not (voiced & (half == each)).any() for each in (0, 1)):
        raise InputError("no voiced speech of half of the speakers; probe with other conversations")
    who, later = (each.repeat_interleave(PIECES) for each in (held_back.speaker, held_back.later))
    training, test = _phones()

    scores = []
    for name, encoder in tqdm(encoders.items(), "probe", unit=" encoders", disable=None):
        x = _encode(name, encoder, held_back.audio)
        means = x.unflatten(1, (PIECES, -1)).mean(2).flatten(0, 1)
        found = {
            "f0": _r2(*_across(_ridge, x, pitch, voiced, half)),
            "energy": _r2(*_across(_ridge, x, energy, spoken, half)),
            "voicing": _accuracy(*_across(_softmax, x, voiced.long(), spoken, half)),
            "speaker": _accuracy(_softmax(means[~later], who[~later], means[later]), who[later]),
            "phone": _phone(name, encoder, training, test),
        }
        scores += [Score(name, task, found[task]) for task in TASKS]
    return scores


def table(scores: Iterable[Score]) -> str:
    """Return the scores as a Markdown table, a row for each encoder."""
    rows: dict[str, dict[str, float]] = {}
    for each in scores:
        rows.setdefault(each.encoder, {})[each.task] = each.score
    lines = [f"| encoder | {' | '.join(TASKS)} |", f"|:--|{'--:|' * len(TASKS)}"]
    lines += [
        f"| {name} | {' | '.join(f'{row[task]:.3f}' for task in TASKS)} |" for name, row in rows.items()
    ]
    return "\n".join(lines) + "\n"


def log_mel(audio: Tensor) -> Tensor:
    """Return the natural logarithms of power in 80 mel bands, where CPC's features lie.

    Args:
        audio: (batch, samples) at 16 kHz.

    Returns:
        (batch, samples // 160, 80), from Hann windows of 25 ms.
    """
    power = _mel()(F.pad(audio, _padding(MEL_FFT)))
    return (power + FLOOR).log().transpose(1, 2)


def log_energy(audio: Tensor) -> Tensor:
    """Return the natural logarithms of the mean square of frames of 25 ms, where CPC's features lie.

    Args:
        audio: (batch, samples) at 16 kHz.

    Returns:
        (batch, samples // 160).
    """
    frames = F.pad(audio, _padding(FRAME)).unfold(-1, FRAME, HOP_SAMPLES)
    return (frames.square().mean(-1) + 1e-10).log()


def log_f0(audio: Tensor) -> Tensor:
    """Return the natural logarithm of the pitch in Hz, from 60 to 400 Hz, NaN where there is no voice.

    The normalised cross-correlation of a frame with the audio a lag later has its peaks at multiples of the
    period, whether or not the fundamental itself passed the telephone. Of each frame's highest peaks, the
    path that is high, at short lags and smooth all in all is the pitch (Talkin, "A robust algorithm for pitch
    tracking", in Speech Coding and Synthesis, 1995, with constants of our own).

    Args:
        audio: (batch, samples) at 16 kHz, peak 1.

    Returns:
        (batch, samples // 160).
    """
    return torch.cat([_log_f0(each) for each in audio.split(BATCH)])


def _log_f0(audio: Tensor) -> Tensor:
    longest = LAGS.stop  # one more on both sides, to find peaks
    segments = F.pad(audio, _padding(FRAME + longest)).unfold(-1, FRAME + longest, HOP_SAMPLES)
    segments = segments - segments.mean(-1, keepdim=True)
    spectrum = torch.fft.rfft(segments, 1024)
    first = torch.fft.rfft(segments[..., :FRAME], 1024)
    products = torch.fft.irfft(spectrum * first.conj(), 1024)[..., : longest + 1]
    sums = F.pad(segments.double().square().cumsum(-1), (1, 0))
    energy = (sums[..., FRAME:] - sums[..., : longest + 1]).float()
    correlation = products / (energy[..., :1] * energy + 1e-10).sqrt()
    around = [correlation[..., LAGS.start + i : LAGS.stop + i] for i in (-1, 0, 1)]
    peaks = torch.where((around[1] > around[0]) & (around[1] >= around[2]), around[1], 0)
    best, lag = (peaks * (1 - LONGER * torch.tensor(LAGS) / longest)).topk(CANDIDATES)
    lag = lag.gather(-1, _smoothest(best, JUMP * (lag + LAGS.start).log()))
    a, b, c = (each.gather(-1, lag)[..., 0] for each in around)
    offset = 0.5 * (a - c) / (a - 2 * b + c).clamp(max=-1e-6)  # of the top of a parabola through the three
    pitch = (SAMPLE_RATE_HZ / (LAGS.start + lag[..., 0] + offset.clamp(-0.5, 0.5))).log()
    return pitch.where((b > PERIODIC) & (energy[..., 0] > FRAME * QUIETEST_VOICE), torch.nan)


def _smoothest(score: Tensor, place: Tensor) -> Tensor:
    """Return the best path through candidates (batch, frames, k), as indices (batch, frames, 1).

    Best is the highest sum of scores, less the distances between one frame's place and the next one's.
    """
    total, arrivals = score[:, 0], []
    for t in range(1, score.shape[1]):
        distance = (place[:, t, :, None] - place[:, t - 1, None, :]).abs()
        highest, arrival = (total[:, None, :] - distance).max(-1)
        total = highest + score[:, t]
        arrivals.append(arrival)
    path = [total.argmax(-1, keepdim=True)]
    for arrival in reversed(arrivals):
        path.append(arrival.gather(1, path[-1]))
    return torch.stack(path[::-1], dim=1)


def _padding(length: int) -> tuple[int, int]:
    """Return the samples to add before and after, for frames of ``length`` centred where CPC's features are.

    A feature of CPC sees 465 samples, from 153 before its place to 312 after; half of a hop after its place
    is the middle.
    """
    before = length // 2 - HOP_SAMPLES // 2
    return before, length - HOP_SAMPLES - before


@cache
def _mel() -> torchaudio.transforms.MelSpectrogram:
    return torchaudio.transforms.MelSpectrogram(
        SAMPLE_RATE_HZ, n_fft=MEL_FFT, win_length=FRAME, hop_length=HOP_SAMPLES, n_mels=BANDS, center=False
    )


def _windows(stretches: Iterable[Stretch], most: int, generator: np.random.Generator) -> Windows:
    places: dict[str, list[tuple[float, Stretch]]] = defaultdict(list)
    for each in stretches:
        count = int((each.end_s - each.start_s) * SAMPLE_RATE_HZ / WINDOW + 1e-6)
        places[each.speaker] += [(each.start_s + i * WINDOW / SAMPLE_RATE_HZ, each) for i in range(count)]
    audio: list[Tensor] = []
    speaker: list[int] = []
    later: list[bool] = []
    for found in places.values():
        found.sort(key=lambda place: place[0])
        chosen = np.sort(generator.permutation(len(found))[:most])
        heard = [speech.read(stretch, start, WINDOW) for start, stretch in (found[i] for i in chosen)]
        loud = [each / each.abs().max() for each in heard if each.abs().max() > speech.QUIET]
        if len(loud) >= FEWEST:
            speaker += [speaker[-1] + 1 if speaker else 0] * len(loud)
            later += [i >= len(loud) // 2 for i in range(len(loud))]
            audio += loud
    speakers = len(set(speaker))
    if speakers < FEWEST:
        raise InputError(
            f"{speakers} speakers with {FEWEST * WINDOW // SAMPLE_RATE_HZ} s of speech or more "
            f"in stretches of {WINDOW // SAMPLE_RATE_HZ} s, where {FEWEST} are needed; "
            "hold back more conversations"
        )
    return Windows(torch.stack(audio), torch.tensor(speaker), torch.tensor(later))


def _half(speaker: Tensor, pitch: Tensor, generator: np.random.Generator) -> Tensor:
    """Deal each two speakers of neighbouring pitch to both halves: 0 or 1 for each window."""
    medians = [float(pitch[speaker == each].nanmedian()) for each in range(int(speaker.max()) + 1)]
    order = np.argsort(medians)
    half = np.empty(len(order), int)
    for i in range(0, len(order), 2):
        pair = order[i : i + 2]
        half[pair] = generator.permutation(2)[: len(pair)]
    return torch.from_numpy(half)[speaker]


@cache
def _phones() -> tuple[Phones, Phones]:
    """Return what to learn phones from, and what to tell them in; the same every time."""
    parts = ((TRAINING_VOICES, TRAINING_SENTENCES), (TEST_VOICES, TEST_SENTENCES))
    voices = [voice for part, _ in parts for voice in part]
    texts = [" ".join(sentences) for part, sentences in parts for _ in part]
    # A fresh process, for espeak keeps something of all that it has said before.
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        spoken = list(process.map(espeak.phones, texts, voices))
    cut = [_telephone(*each) for each in spoken]
    training, test = cut[: len(TRAINING_VOICES)], cut[len(TRAINING_VOICES) :]
    known = np.unique(np.concatenate([names for _, names in training]))
    known = known[known != espeak.PAUSE]

    def gathered(part: list[tuple[Tensor, np.ndarray]]) -> Phones:
        names = np.concatenate([names for _, names in part])
        phone = np.where(np.isin(names, known), np.searchsorted(known, names), -1)
        return Phones(torch.cat([audio for audio, _ in part]), torch.from_numpy(phone))

    return gathered(training), gathered(test)


def _telephone(audio: np.ndarray, names: list[str], starts: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Send what espeak said through the telephone, and cut it: (windows, WINDOW), names (windows, frames)."""
    resample = torchaudio.functional.resample
    line = resample(torch.from_numpy(audio), espeak.RATE, 8000)
    codes = torchaudio.functional.mu_law_encoding(line / line.abs().max(), 256)
    line = resample(torchaudio.functional.mu_law_decoding(codes, 256), 8000, SAMPLE_RATE_HZ)
    line = line[: len(line) // WINDOW * WINDOW].view(-1, WINDOW)
    middles = (np.arange(line.numel() // HOP_SAMPLES) + 0.5) * HOP_SAMPLES
    at = np.searchsorted(starts * (SAMPLE_RATE_HZ / espeak.RATE), middles, side="right") - 1
    # Digits tell apart by which rule a vowel became what it is, not what it sounds like.
    alike = np.array([name.rstrip("0123456789") or name for name in names])
    return line / line.abs().amax(1, keepdim=True), alike[at].reshape(len(line), -1)


def _encode(name: str, encoder: Encoder, audio: Tensor) -> Tensor:
    """Return the features of windows, (windows, frames, dim) float32, less the frames to be skipped."""
    with torch.no_grad():
        features = torch.cat([encoder(each)[:, SKIPPED:].float() for each in audio.split(BATCH)])
    if features.shape[:2] != (len(audio), WINDOW // HOP_SAMPLES - SKIPPED):
        raise ValueError(
            f"encoder {name} returns {tuple(features.shape)}, not a feature for every 160 samples"
        )
    if not features.isfinite().all():
        raise InputError(f"encoder {name}: features that are no finite numbers; its weights are of no use")
    return features


def _phone(name: str, encoder: Encoder, training: Phones, test: Phones) -> float:
    frames = []
    for part in (training, test):
        phone = part.phone[:, SKIPPED:]
        frames += [_encode(name, encoder, part.audio)[phone >= 0], phone[phone >= 0]]
    x, y, others, true = frames
    return _accuracy(_softmax(x, y, others), true)


def _across(fit: Fit, x: Tensor, y: Tensor, chosen: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """Tell the chosen frames of each half of the speakers by what the other half teaches.

    Returns:
        What is told of them, and what is true, both (frames,).
    """
    a, b = (chosen & (half == each) for each in (0, 1))
    return torch.cat([fit(x[a], y[a], x[b]), fit(x[b], y[b], x[a])]), torch.cat([y[b], y[a]])


def _ridge(x: Tensor, y: Tensor, others: Tensor) -> Tensor:
    """Fit a ridge regression on x (n, dim), y (n,), and tell y of others (m, dim)."""
    x, others = _standardised(x, others)
    mean = y.mean()
    squares = (x.T @ x / len(x)).double() + PENALTY * torch.eye(x.shape[1])
    weights = torch.linalg.solve(squares, (x.T @ (y - mean) / len(x)).double())
    return mean + others @ weights.float()


def _softmax(x: Tensor, y: Tensor, others: Tensor) -> Tensor:
    """Fit a softmax regression on x (n, dim), y (n,) int64, and tell y of others (m, dim)."""
    x, others = _standardised(x, others)
    weights = torch.zeros(x.shape[1], int(y.max()) + 1, requires_grad=True)
    bias = torch.zeros(weights.shape[1], requires_grad=True)
    optimiser = torch.optim.LBFGS([weights, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(x @ weights + bias, y) + PENALTY / 2 * weights.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return (others @ weights + bias).argmax(1)


def _standardised(x: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Give the features of x zero mean and unit variance, and do the same to the others."""
    mean, deviation = x.mean(0), x.std(0).clamp(min=1e-6)
    return (x - mean) / deviation, (others - mean) / deviation


def _r2(told: Tensor, true: Tensor) -> float:
    return 1 - float((told - true).square().sum() / (true - true.mean()).square().sum())


def _accuracy(told: Tensor, true: Tensor) -> float:
    return float((told == true).float().mean())

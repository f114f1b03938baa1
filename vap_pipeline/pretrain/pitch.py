"""Pitch, energy and log-mel features of speech, in frames centred as CPC's features are."""

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor

from vap_pipeline.audio.rates import HOP_SAMPLES, SAMPLE_RATE_HZ

FRAME_SAMPLES = 400  # 25 ms, over which energy and pitch are measured
BATCH_WINDOWS = 32

LOWEST_HZ, HIGHEST_HZ = 60, 400
LAGS_SAMPLES = range(SAMPLE_RATE_HZ // HIGHEST_HZ, SAMPLE_RATE_HZ // LOWEST_HZ + 1)  # their periods
VOICED_CORRELATION = 0.6  # of a voiced frame with the audio one period later, or more
LAG_COST, JUMP_COST = 0.3, 1.0  # of a lag of 267 samples, and of a change of the pitch by the factor e
CANDIDATES = 6
QUIETEST, QUIETEST_VOICE = 1e-6, 1e-3  # mean squares of frames of speech, for windows with peak 1

MEL_BANDS, MEL_FFT_SAMPLES = 80, 512
MEL_FLOOR = 1e-6  # added to the power of a band
_MEL = torchaudio.transforms.MelSpectrogram(
    SAMPLE_RATE_HZ,
    n_fft=MEL_FFT_SAMPLES,
    win_length=FRAME_SAMPLES,
    hop_length=HOP_SAMPLES,
    n_mels=MEL_BANDS,
    center=False,
)


def log_mel(audio: Tensor) -> Tensor:
    """Return the natural logarithm of the power in 80 mel bands.

    Args:
        audio: (batch, samples) at 16 kHz.

    Returns:
        (batch, samples // 160, 80), from Hann windows of 25 ms.
    """
    power = _MEL(F.pad(audio, _padding(MEL_FFT_SAMPLES)))
    return (power + MEL_FLOOR).log().transpose(1, 2)


def log_energy(audio: Tensor) -> Tensor:
    """Return the natural logarithm of the mean square of frames of 25 ms.

    Args:
        audio: (batch, samples) at 16 kHz.

    Returns:
        (batch, samples // 160).
    """
    frames = F.pad(audio, _padding(FRAME_SAMPLES)).unfold(-1, FRAME_SAMPLES, HOP_SAMPLES)
    return (frames.square().mean(-1) + 1e-10).log()


def log_f0(audio: Tensor) -> Tensor:
    """Return the natural logarithm of the pitch in Hz, from 60 to 400 Hz, and NaN in unvoiced frames.

    The normalised cross-correlation of a frame with later audio has peaks at multiples of the period, even if
    the fundamental itself is below the telephone band. The pitch is the path through each frame's highest
    peaks that is high, at short lags, and smooth (Talkin, "A robust algorithm for pitch tracking", in Speech
    Coding and Synthesis, 1995, with other constants).

    Args:
        audio: (batch, samples) at 16 kHz, peak 1.

    Returns:
        (batch, samples // 160).
    """
    return torch.cat([_log_f0(windows) for windows in audio.split(BATCH_WINDOWS)])


def _log_f0(audio: Tensor) -> Tensor:
    longest = LAGS_SAMPLES.stop  # one more on both sides, to find peaks
    length = FRAME_SAMPLES + longest
    segments = F.pad(audio, _padding(length)).unfold(-1, length, HOP_SAMPLES)
    segments = segments - segments.mean(-1, keepdim=True)
    spectrum = torch.fft.rfft(segments, 1024)
    first = torch.fft.rfft(segments[..., :FRAME_SAMPLES], 1024)
    products = torch.fft.irfft(spectrum * first.conj(), 1024)[..., : longest + 1]
    sums = F.pad(segments.double().square().cumsum(-1), (1, 0))
    energy = (sums[..., FRAME_SAMPLES:] - sums[..., : longest + 1]).float()
    correlation = products / (energy[..., :1] * energy + 1e-10).sqrt()
    around = [correlation[..., LAGS_SAMPLES.start + i : LAGS_SAMPLES.stop + i] for i in (-1, 0, 1)]
    peaks = torch.where((around[1] > around[0]) & (around[1] >= around[2]), around[1], 0)
    best, lag = (peaks * (1 - LAG_COST * torch.tensor(LAGS_SAMPLES) / longest)).topk(CANDIDATES)
    lag = lag.gather(-1, _smoothest(best, JUMP_COST * (lag + LAGS_SAMPLES.start).log()))
    a, b, c = (values.gather(-1, lag)[..., 0] for values in around)
    offset = 0.5 * (a - c) / (a - 2 * b + c).clamp(max=-1e-6)  # top of a parabola through the three
    pitch = (SAMPLE_RATE_HZ / (LAGS_SAMPLES.start + lag[..., 0] + offset.clamp(-0.5, 0.5))).log()
    loud = energy[..., 0] > FRAME_SAMPLES * QUIETEST_VOICE
    return pitch.where((b > VOICED_CORRELATION) & loud, torch.nan)


def _smoothest(score: Tensor, place: Tensor) -> Tensor:
    """Return the best path through candidates (batch, frames, k), as indices (batch, frames, 1).

    The best path has the highest sum of scores, less the distances between the places of successive frames.
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
    """Return the samples to add before and after, so that frames of ``length`` are centred as CPC's features.

    A CPC feature sees 465 samples. Their middle is half a hop after the feature's place.
    """
    before = length // 2 - HOP_SAMPLES // 2
    return before, length - HOP_SAMPLES - before

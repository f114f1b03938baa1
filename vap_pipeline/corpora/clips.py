"""Clips of one speaker each, such as LibriSpeech's, made into telephone calls for pretraining the encoder.

A file's name starts with its speaker, up to the first ``-`` or ``_`` (``103-1240-0000.flac``), as in
LibriSpeech, LibriTTS and VCTK. Two speakers make a call, each on a channel, taking turns of a clip; no
speaker is in two calls. The calls are telephone speech: 200 to 3,400 Hz, 8 kHz, mu-law.
"""

import io
import re
from collections import defaultdict
from itertools import zip_longest
from math import gcd
from pathlib import Path

import numpy as np
import soundfile
from scipy import signal
from tqdm import tqdm

from vap_pipeline.artefacts.manifest import Manifest
from vap_pipeline.audio.headers import read_header
from vap_pipeline.audio.telephone import RATE_HZ, band_pass
from vap_pipeline.corpora import build, recordings
from vap_pipeline.corpora.build import Speech
from vap_pipeline.corpora.faults import Faults
from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError

PEAK = 0.5  # of every clip; full scale is 1
QUIET_SHARE = 0.02  # of the peak: quieter samples at both ends of a clip are not speech
GAP_S = 0.5  # between two clips
LONGEST_CLIP_S = 3600.0  # it is held in memory
SHORTEST_CALL_S = 10.0  # calls are padded with silence to the manifest's minimum
SUFFIXES = (".flac", ".wav", ".ogg", ".mp3")


def read(clips: Path, audio: Path, test: int | None, folds: int, on_error: str = "stop") -> Manifest:
    """Write the calls of the speakers below ``clips`` to ``audio/SPEAKER-SPEAKER.wav``; make their manifest.

    The ``test`` calls (by default two) of the speakers with the most speech are held back; the others make
    ``folds`` folds.

    Raises:
        InputError: no clips, or a clip that cannot be read or has more than one channel.
    """
    spoken: dict[str, list[Path]] = defaultdict(list)
    for path in recordings.walk(clips):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            spoken[re.split("[-_]", path.stem)[0]].append(path)
    if not spoken:
        raise InputError(f"{clips}: no clips below it ({', '.join(SUFFIXES)}); check the path")
    faults = Faults(on_error)
    seconds: dict[str, float] = {}
    for speaker, paths in spoken.items():
        with faults.handled():
            seconds[speaker] = sum(_seconds(path) for path in paths)
    order = sorted(seconds, key=lambda speaker: (seconds[speaker], speaker))
    pairs = [order[max(stop - 2, 0) : stop] for stop in range(len(order), 0, -2)][::-1]
    names = ["-".join(pair) for pair in pairs]
    splits = build.split(names, min(2, max(len(names) - folds, 0)) if test is None else test, folds)
    speech: dict[str, Speech] = {}
    audio_of: dict[str, str] = {}
    for name, pair in tqdm(zip(names, pairs, strict=True), "calls", len(names), unit="", disable=None):
        path = audio / f"{name}.wav"
        if call := _call([spoken[speaker] for speaker in pair], path, faults):
            speech[name], audio_of[name] = call, path.name
    faults.report()
    return build.assemble(speech, audio_of, splits)


def _call(sides: list[list[Path]], path: Path, faults: Faults) -> Speech | None:
    """Write one call from the clips of one or two speakers; return its speech, or None if there is none."""
    spoken: list[tuple[int, np.ndarray]] = []
    for row in zip_longest(*sides):
        for channel, clip in enumerate(row):
            with faults.handled():
                spoken += [(channel, _telephone(clip))] if clip else []
    if not spoken:
        return None
    ends = np.cumsum([len(samples) + round(GAP_S * RATE_HZ) for _, samples in spoken])
    length = max(ends[-1], round(SHORTEST_CALL_S * RATE_HZ))
    line, segments = np.zeros((length, 2), np.float32), []
    for (channel, samples), end in zip(spoken, ends.tolist(), strict=True):
        stop = end - round(GAP_S * RATE_HZ)
        line[stop - len(samples) : stop, channel] = samples
        segments.append((channel, (stop - len(samples)) / RATE_HZ, stop / RATE_HZ))
    content = io.BytesIO()
    soundfile.write(content, line, RATE_HZ, format="WAV", subtype="ULAW")
    files.write(path, content.getvalue())
    segments.sort()
    channels, start_s, end_s = (np.array(column) for column in zip(*segments, strict=True))
    return Speech(channels.astype(np.int8), start_s, end_s, length / RATE_HZ)


def _seconds(path: Path) -> float:
    header = read_header(path)
    if header.channels != 1:
        raise InputError(
            f"{path}: {header.channels} channels, expected one, as a clip of one speaker has; convert it"
        )
    seconds = header.samples / header.rate
    if seconds > LONGEST_CLIP_S:
        raise InputError(f"{path}: lasts {seconds:,.0f} s, longer than an hour; cut it into shorter clips")
    return seconds


def _telephone(path: Path) -> np.ndarray:
    """Read a clip, cut off the silence at both ends, and band-pass it: (samples,) float32 at 8 kHz."""
    try:
        samples, rate = soundfile.read(path, dtype="float32")
    except (soundfile.SoundFileError, OSError) as error:
        raise InputError(f"{path}: cannot be decoded ({error}); copy or convert it again") from error
    if not np.isfinite(samples).all():
        raise InputError(f"{path}: NaN or infinite samples; convert it again")
    common = gcd(rate, RATE_HZ)
    samples = band_pass(signal.resample_poly(samples, RATE_HZ // common, rate // common))
    level = np.abs(samples)
    if not level.max(initial=0) > 0:
        raise InputError(f"{path}: only silence; leave it out")
    loud = np.flatnonzero(level > QUIET_SHARE * level.max())
    return (samples[loud[0] : loud[-1] + 1] * (PEAK / level.max())).astype(np.float32)

"""The speech of a manifest's speakers: where it is in the recordings, and its samples."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torchaudio
from torch import Tensor
from tqdm.contrib.concurrent import thread_map

from vap_pipeline.artefacts.manifest import Manifest
from vap_pipeline.audio.rates import SAMPLE_RATE_HZ
from vap_pipeline.audio.recording import Recording, open_recording, paths
from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError

PAUSE_S = 0.3  # shorter pauses of a speaker count as speech
QUIET_PEAK = 1e-3  # a window with a lower peak has no speech
SLACK_S = 0.01  # speech may end this much after its recording, because times are rounded
MARGIN_SAMPLES = 1600  # at 16 kHz, read on both sides of a window, so that its ends are resampled well


@dataclass(frozen=True)
class Stretch:
    """Speech of one speaker without a long pause.

    Attributes:
        speaker: ``corpus/conversation/channel``, as if every conversation had speakers of its own.
        audio: the two-channel file, or a file for each speaker; and the ``channel`` of the two.
        start_s, end_s: seconds in it.
    """

    speaker: str
    audio: tuple[Path, ...]
    channel: int
    start_s: float
    end_s: float


def stretches(
    manifest: Manifest, root: Path, conversations: Iterable[str], shortest_s: float
) -> list[Stretch]:
    """Return the stretches of ``conversations`` that last ``shortest_s`` or longer, in a fixed order.

    Raises:
        InputError: a conversation has no audio.
    """
    wanted, result, segments = set(conversations), [], manifest.segments()
    for c in (c for c in manifest.conversations if c.conversation in wanted):
        if not c.audio:
            raise InputError(
                f"conversation {c.conversation}: no audio in the manifest; make it again with --audio"
            )
        channels, start_s, end_s = segments[c.conversation]
        for channel in (0, 1):
            chosen = channels == channel
            if not chosen.any():
                continue
            starts, ends = start_s[chosen], np.maximum.accumulate(end_s[chosen])
            first = np.flatnonzero(np.append(True, starts[1:] - ends[:-1] >= PAUSE_S))
            last = np.append(first[1:], len(starts)) - 1
            for a, b in zip(starts[first].tolist(), ends[last].tolist(), strict=True):
                if b - a >= shortest_s:
                    speaker = f"{manifest.name}/{c.conversation}/{channel}"
                    result.append(Stretch(speaker, paths(root, c.audio), channel, a, b))
    return result


def digest(stretches: list[Stretch]) -> str:
    """Return the SHA-256 of the speakers, times and audio of stretches, whichever folders they are in.

    Raises:
        InputError: a file cannot be read.
    """
    sources = list(dict.fromkeys(path for s in stretches for path in s.audio))
    digests = thread_map(files.sha256, sources, desc="audio", unit=" files", disable=None)
    audio = dict(zip(sources, digests, strict=True))
    sha256 = hashlib.sha256()
    for s in stretches:
        sha256.update(
            repr((s.speaker, "+".join(audio[path] for path in s.audio), s.start_s, s.end_s)).encode()
        )
    return sha256.hexdigest()


def read(stretch: Stretch, start_s: float, samples: int) -> Tensor:
    """Return ``samples`` samples of a stretch, float32 at 16 kHz, from second ``start_s`` of its recording.

    Raises:
        InputError: the file cannot be read, or ends earlier.
    """
    recording = _recording(stretch.audio)
    rate, first = recording.rate, round(start_s * recording.rate)
    count = -(-samples * rate // SAMPLE_RATE_HZ)
    before = min(first, MARGIN_SAMPLES * rate // SAMPLE_RATE_HZ)
    stop = min(first + count + MARGIN_SAMPLES * rate // SAMPLE_RATE_HZ, recording.samples)
    if first + count > recording.samples + SLACK_S * rate:
        raise InputError(
            f"{recording.path}: ends at {recording.duration_s:.2f} s, though the manifest has speech until "
            f"{stretch.end_s:.2f} s; copy the file or make the manifest again"
        )
    block = recording.read_checked(first - before, stop)
    signal = torch.from_numpy(np.ascontiguousarray(block[:, stretch.channel]))
    if rate != SAMPLE_RATE_HZ:
        signal = torchaudio.functional.resample(signal, rate, SAMPLE_RATE_HZ)
    signal = signal[before * SAMPLE_RATE_HZ // rate :][:samples]
    if len(signal) < samples:
        signal = torch.nn.functional.pad(signal, (0, samples - len(signal)))
    return signal


@lru_cache(maxsize=64)  # decoded shorten-compressed files are in memory, 10 MB each
def _recording(audio: tuple[Path, ...]) -> Recording:
    return open_recording(audio)

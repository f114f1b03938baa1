"""The speech of a manifest's speakers: where it lies, and its samples, one channel at a time."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torchaudio
from torch import Tensor
from tqdm import tqdm

from vap_pipeline.artefacts.manifest import Manifest
from vap_pipeline.audio.rates import SAMPLE_RATE_HZ
from vap_pipeline.audio.recording import Recording, open_recording
from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError

PAUSE_S = 0.3  # a speaker's shorter pauses belong to the speech
QUIET = 1e-3  # a window whose peak is lower holds no speech, whatever the manifest says
SLACK_S = 0.01  # by which speech may outlast its recording, for rounding
MARGIN = 1600  # samples read on both sides of a window, so that resampling does not show at its ends


@dataclass(frozen=True)
class Stretch:
    """Speech of one speaker without a long pause.

    Attributes:
        speaker: ``corpus/conversation/channel``; nobody is known to speak in two conversations.
        audio: the two-channel file, and its ``channel``.
        start_s, end_s: seconds in it.
    """

    speaker: str
    audio: Path
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
    wanted, found = set(conversations), []
    segments = manifest.segments()
    for each in manifest.conversations:
        if each.conversation not in wanted:
            continue
        if not each.audio:
            raise InputError(
                f"conversation {each.conversation}: no audio in the manifest; make the manifest where it is"
            )
        channels, start_s, end_s = segments[each.conversation]
        for channel in (0, 1):
            mine = channels == channel
            if not mine.any():
                continue
            starts, ends = start_s[mine], np.maximum.accumulate(end_s[mine])
            first = np.flatnonzero(np.append(True, starts[1:] - ends[:-1] >= PAUSE_S))
            last = np.append(first[1:], len(starts)) - 1
            for a, b in zip(starts[first].tolist(), ends[last].tolist(), strict=True):
                if b - a >= shortest_s:
                    speaker = f"{manifest.name}/{each.conversation}/{channel}"
                    found.append(Stretch(speaker, root / each.audio, channel, a, b))
    return found


def digest(stretches: list[Stretch]) -> str:
    """SHA-256 of what is said, by whom and when, whatever folder the audio lies in.

    Raises:
        InputError: a file cannot be read.
    """
    paths = list(dict.fromkeys(each.audio for each in stretches))
    pool = ThreadPoolExecutor()
    try:
        read = tqdm(pool.map(files.sha256, paths), "audio", len(paths), unit=" files", disable=None)
        content = dict(zip(paths, read, strict=True))
    finally:
        pool.shutdown(cancel_futures=True)
    sha256 = hashlib.sha256()
    for each in stretches:
        sha256.update(repr((each.speaker, content[each.audio], each.start_s, each.end_s)).encode())
    return sha256.hexdigest()


def read(stretch: Stretch, start_s: float, samples: int) -> Tensor:
    """Return ``samples`` samples at 16 kHz of a stretch from ``start_s`` (of the recording) on, float32.

    They are as they lie in the file: not yet scaled.

    Raises:
        InputError: the file cannot be read, or ends before.
    """
    recording = _recording(stretch.audio)
    rate, first = recording.rate, round(start_s * recording.rate)
    count = -(-samples * rate // SAMPLE_RATE_HZ)
    before = min(first, MARGIN * rate // SAMPLE_RATE_HZ)
    stop = min(first + count + MARGIN * rate // SAMPLE_RATE_HZ, recording.samples)
    if first + count > recording.samples + SLACK_S * rate:
        raise InputError(
            f"{stretch.audio}: ends at {recording.duration_s:.2f} s, though the manifest has speech until "
            f"{stretch.end_s:.2f} s; copy the file or make the manifest again"
        )
    try:
        block = recording.read(first - before, stop)
    except OSError as error:
        raise InputError(f"{stretch.audio}: cannot be read any more ({error.strerror})") from error
    if block.shape != (stop - first + before, 2):
        raise InputError(f"{stretch.audio}: truncated or damaged after {start_s:.0f} s; copy it again")
    if not np.isfinite(block).all():
        raise InputError(f"{stretch.audio}: samples that are no finite numbers after {start_s:.0f} s")
    signal = torch.from_numpy(np.ascontiguousarray(block[:, stretch.channel]))
    if rate != SAMPLE_RATE_HZ:
        signal = torchaudio.functional.resample(signal, rate, SAMPLE_RATE_HZ)
    signal = signal[before * SAMPLE_RATE_HZ // rate :][:samples]
    if len(signal) < samples:
        signal = torch.nn.functional.pad(signal, (0, samples - len(signal)))
    return signal


@lru_cache(maxsize=64)  # shorten-compressed files lie in memory decoded, 10 MB each
def _recording(path: Path) -> Recording:
    return open_recording(path)

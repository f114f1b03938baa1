"""Extraction: every conversation of a manifest through the encoder, once, into the store."""

import hashlib
import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vap_pipeline.artefacts.manifest import Manifest, Segments
from vap_pipeline.artefacts.store import Writer
from vap_pipeline.audio.recording import gains, open_recording, paths, pieces
from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError
from vap_pipeline.runtime.signals import Stopped
from vap_pipeline.turn_taking import voice_activity

PIECE_S = 4  # read and encoded at a time; the run can stop between two pieces
SLACK_S = 0.01  # by which a duration in the manifest may be rounded
ENCODED, UP_TO_DATE, ELSEWHERE = "encoded", "up to date", "another process is encoding it"
RETRY_S = 0.5  # until conversations of another process are looked at again
BAR = "{percentage:3.0f}% |{bar}| {n:.0f} of {total:.0f} s of audio, {remaining} to go{postfix}"

log = logging.getLogger(__name__)


class Encoder(Protocol):
    """What extraction needs of an encoder."""

    dim: int

    def stream(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """Encode one signal in pieces (samples,) at 16 kHz; yield features (frames, dim)."""


@dataclass(frozen=True)
class Job:
    """A conversation to encode."""

    conversation: str
    audio: tuple[Path, ...]  # one file, or one a speaker
    duration_s: float
    segments: Segments

    def va(self) -> np.ndarray:
        """Return the voice activity, (frames, 2) uint8."""
        return voice_activity.voice_activity(*self.segments, voice_activity.frames(self.duration_s))

    def source(self, check_stop: Callable[[], None]) -> dict[str, Any]:
        """Return what the features depend on: if it is unchanged, they need not be made again.

        Args:
            check_stop: called for each block of the audio; it may raise, to stop.

        Raises:
            InputError: the audio cannot be read.
        """
        audio_sha256 = "+".join(files.sha256(path, check_stop) for path in self.audio)
        va_sha256 = hashlib.sha256(self.va().tobytes()).hexdigest()
        return {"duration_s": self.duration_s, "audio_sha256": audio_sha256, "va_sha256": va_sha256}


@dataclass
class Outcome:
    """The conversations that were encoded, and those that were skipped, with the reason."""

    encoded: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def jobs(manifest: Manifest, audio: Path) -> list[Job]:
    """Return the conversations of train and test, the longest first, so that processes end together.

    Raises:
        InputError: one of them has no audio.
    """
    segments = manifest.segments()
    used = [c for c in manifest.conversations if c.split]
    if lacking := [c.conversation for c in used if not c.audio]:
        raise InputError(f"conversation {lacking[0]}: no audio in the manifest; make it again with --audio")
    used.sort(key=lambda c: (-c.duration_s, c.conversation))
    return [Job(c.conversation, paths(audio, c.audio), c.duration_s, segments[c.conversation]) for c in used]


def extract(
    jobs: list[Job],
    writer: Writer,
    encoder: Encoder,
    workers: int,
    skip: bool,
    received: Callable[[], int] = lambda: 0,
) -> Outcome:
    """Bring the store up to date with ``jobs``, ``workers`` conversations at a time, one per core.

    Conversations that are up to date are left alone. Those that another process is encoding are waited for.

    Args:
        skip: go on after a conversation that cannot be read.
        received: returns the signal that was received, or 0; called between two pieces of audio.

    Raises:
        InputError: a conversation cannot be read, and ``skip`` is not set.
        OSError: the store cannot be written.
        Stopped: a signal was received.
    """
    outcome, over, waiting = Outcome(), threading.Event(), False

    def check_stop() -> None:
        if (signum := received()) or over.is_set():
            raise Stopped(signum or signal.SIGTERM)

    to_encode_s = sum(job.duration_s for job in jobs)
    bar = tqdm(total=to_encode_s, bar_format=BAR, disable=None)
    threads, began = torch.get_num_threads(), time.monotonic()
    torch.set_num_threads(1)  # two conversations on two cores are faster than each on both
    pool = ThreadPoolExecutor(workers)
    try:
        while jobs:
            futures = {pool.submit(_bring_up_to_date, job, writer, encoder, check_stop): job for job in jobs}
            jobs = []
            for future in as_completed(futures):
                job = futures.pop(future)
                try:
                    state = future.result()
                except InputError as error:
                    if not skip:
                        raise
                    kept = "; its earlier features stay in the store" if job.conversation in writer else ""
                    outcome.skipped[job.conversation] = f"{error}{kept}"
                    state = UP_TO_DATE
                if state == ELSEWHERE:
                    jobs.append(job)
                elif state == UP_TO_DATE:
                    bar.total = to_encode_s = to_encode_s - job.duration_s
                else:
                    outcome.encoded.append(job.conversation)
                    bar.update(job.duration_s)
                    speed = bar.n / (time.monotonic() - began)
                    bar.set_postfix_str(f"{speed:.0f} times real time", refresh=False)
            if jobs and not waiting:
                log.info("another vap-extract is encoding %s; waiting for it", jobs[0].conversation)
                waiting = True
            time.sleep(RETRY_S if jobs else 0)
    finally:
        over.set()
        pool.shutdown(cancel_futures=True)
        bar.close()
        torch.set_num_threads(threads)
    writer.sweep()
    return outcome


def receipt(jobs: list[Job], writer: Writer) -> bytes:
    """Return a small description of the store, as JSON that changes when the store does."""
    digest = hashlib.sha256()
    for name in sorted(job.conversation for job in jobs):
        digest.update(json.dumps([name, writer.attributes(name)], sort_keys=True).encode())
    content = {
        "store": writer.description,
        "conversations": len(jobs),
        "hours": round(sum(job.duration_s for job in jobs) / 3600, 3),
        "sha256": digest.hexdigest(),
    }
    return json.dumps(content, indent=2).encode() + b"\n"


def _bring_up_to_date(job: Job, writer: Writer, encoder: Encoder, check_stop: Callable[[], None]) -> str:
    """Encode a conversation if that is needed; return ENCODED, UP_TO_DATE or ELSEWHERE."""
    check_stop()
    stamp = _stamp(job.audio)
    source = job.source(check_stop)
    if _is_up_to_date(job, writer, source):
        return UP_TO_DATE
    with writer.claim(job.conversation) as claimed:
        if not claimed:
            return ELSEWHERE
        if _is_up_to_date(job, writer, source):  # by another process, meanwhile
            return UP_TO_DATE
        writer.write(job.conversation, _features(job, encoder, check_stop, stamp), job.va(), source)
    return ENCODED


def _is_up_to_date(job: Job, writer: Writer, source: dict[str, Any]) -> bool:
    try:
        return (
            job.conversation in writer
            and writer.attributes(job.conversation) == source
            and writer.frames(job.conversation) == writer.frames(job.conversation, "va")
        )
    except InputError:  # damaged
        return False


def _stamp(paths: tuple[Path, ...]) -> list[tuple[int, ...]]:
    """Return numbers that change when a file does; none if one is missing."""
    try:
        statuses = [path.stat() for path in paths]
    except OSError:
        return []
    return [(s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns) for s in statuses]


def _features(
    job: Job, encoder: Encoder, check_stop: Callable[[], None], stamp: list[tuple[int, ...]]
) -> Iterator[np.ndarray]:
    recording = open_recording(job.audio, check_stop)
    if abs(recording.duration_s - job.duration_s) > SLACK_S:
        raise InputError(
            f"{recording.path}: lasts {recording.duration_s:.2f} s, but the manifest says "
            f"{job.duration_s:.2f} s for {job.conversation}; make the manifest again, or copy the file again"
        )
    frames = voice_activity.frames(job.duration_s)
    audio = pieces(recording, gains(recording), frames, PIECE_S)
    for features in encoder.stream(audio):
        check_stop()
        if not torch.isfinite(features).all():
            raise InputError(
                f"{recording.path}: its features are NaN or infinite; check the encoder's weights"
            )
        yield features.half().cpu().numpy()
    if _stamp(job.audio) != stamp:
        raise InputError(f"{recording.path}: it changed while it was read; start the same command again")

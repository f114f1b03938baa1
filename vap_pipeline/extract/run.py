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
from vap_pipeline.audio import recording as audio
from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError
from vap_pipeline.runtime.signals import Stopped
from vap_pipeline.turn_taking import voice_activity

PIECE_S = 4  # seconds read and encoded at a time; between two of them a stop is heard
SLACK_S = 0.01  # by which a duration in the manifest may be rounded
BAR = "{percentage:3.0f}% |{bar}| {n:.0f} of {total:.0f} s of audio, {remaining} to go{postfix}"

log = logging.getLogger(__name__)


class Encoder(Protocol):
    """What extraction asks of an encoder."""

    dim: int

    def stream(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """Encode one signal that comes in pieces (samples,) at 16 kHz; yield features (frames, dim)."""


@dataclass(frozen=True)
class Job:
    """A conversation to encode."""

    conversation: str
    audio: Path
    duration_s: float
    segments: Segments

    def va(self) -> np.ndarray:
        """Return the voice activity, (frames, 2) uint8."""
        return voice_activity.voice_activity(*self.segments, voice_activity.frames(self.duration_s))

    def source(self, ask: Callable[[], None]) -> dict[str, Any]:
        """Return what the features are made from: with the same, they need not be made again.

        Args:
            ask: called for each block of the audio; it may raise, to stop.

        Raises:
            InputError: the audio cannot be read.
        """
        audio_sha256 = files.sha256(self.audio, ask)
        va_sha256 = hashlib.sha256(self.va().tobytes()).hexdigest()
        return {"duration_s": self.duration_s, "audio_sha256": audio_sha256, "va_sha256": va_sha256}


@dataclass
class Outcome:
    """What became of the conversations that were not up to date: encoded, or skipped for a fault."""

    encoded: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def jobs(manifest: Manifest, audio_root: Path) -> list[Job]:
    """Return the conversations of train and test, the longest first: none is then left over at the end.

    Raises:
        InputError: one of them has no audio.
    """
    segments = manifest.segments()
    found = []
    for each in manifest.conversations:
        if each.split and not each.audio:
            raise InputError(
                f"conversation {each.conversation}: no audio in the manifest; "
                "make the manifest again where the audio is"
            )
        if each.split:
            path = audio_root / each.audio
            found.append(Job(each.conversation, path, each.duration_s, segments[each.conversation]))
    return sorted(found, key=lambda job: (-job.duration_s, job.conversation))


def extract(
    jobs: list[Job],
    writer: Writer,
    encoder: Encoder,
    workers: int,
    skip: bool,
    stopped: Callable[[], int] = lambda: 0,
) -> Outcome:
    """Bring the store up to date with ``jobs``, ``workers`` conversations at a time, a core each.

    What is up to date is left alone; what another process is encoding is waited for.

    Args:
        skip: go on after a conversation at fault.
        stopped: the signal to end, 0 if none came; asked between two pieces of audio, whatever is done with
            them.

    Raises:
        InputError: a conversation is at fault, and ``skip`` is not set.
        OSError: the store cannot be written.
        Stopped: the run is to end.
    """
    outcome, over, waiting = Outcome(), threading.Event(), False

    def ask() -> None:
        if (signum := stopped()) or over.is_set():
            raise Stopped(signum or signal.SIGTERM)

    to_encode, encoded_s, began = sum(job.duration_s for job in jobs), 0.0, time.monotonic()
    bar = tqdm(total=to_encode, bar_format=BAR, disable=None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two conversations on two cores are faster than each on both
    pool = ThreadPoolExecutor(workers)
    try:
        while jobs:
            futures = {pool.submit(_bring_up_to_date, job, writer, encoder, ask): job for job in jobs}
            jobs = []
            for future in as_completed(futures):
                job = futures.pop(future)
                try:
                    encoded = future.result()
                except InputError as error:
                    if not skip:
                        raise
                    stays = "; its features of before stay" if job.conversation in writer else ""
                    encoded, outcome.skipped[job.conversation] = False, f"{error}{stays}"
                if encoded is None:
                    jobs.append(job)
                elif encoded:
                    outcome.encoded.append(job.conversation)
                    bar.update(job.duration_s)
                    encoded_s += job.duration_s
                    speed = encoded_s / (time.monotonic() - began)
                    bar.set_postfix_str(f"{speed:.0f} times real time", refresh=False)
                else:
                    bar.total = to_encode = to_encode - job.duration_s
            if jobs and not waiting:
                log.info("another vap-extract is encoding %s; waiting for it", jobs[0].conversation)
                waiting = True
            time.sleep(0.5 if jobs else 0)
    finally:
        over.set()
        pool.shutdown(cancel_futures=True)
        bar.close()
        torch.set_num_threads(threads)
    writer.sweep()
    return outcome


def receipt(jobs: list[Job], writer: Writer) -> bytes:
    """Return what stands for the store where that is too large to look at: JSON that changes when it does."""
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


def _bring_up_to_date(job: Job, writer: Writer, encoder: Encoder, ask: Callable[[], None]) -> bool | None:
    """Return whether the conversation had to be encoded; None where another process has it in hand."""
    ask()
    stamp = _stamp(job.audio)
    source = job.source(ask)
    if _is_up_to_date(job, writer, source):
        return False
    with writer.claim(job.conversation, wait=False) as mine:
        if not mine:
            return None
        if _is_up_to_date(job, writer, source):  # by another process, meanwhile
            return False
        writer.write(job.conversation, _features(job, encoder, ask, stamp), job.va(), source)
    return True


def _is_up_to_date(job: Job, writer: Writer, source: dict[str, Any]) -> bool:
    try:
        return (
            job.conversation in writer
            and writer.attributes(job.conversation) == source
            and writer.frames(job.conversation) == writer.frames(job.conversation, "va")
        )
    except InputError:  # damaged
        return False


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what differs once the file at ``path`` is another; empty where there is none."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _features(
    job: Job, encoder: Encoder, ask: Callable[[], None], stamp: tuple[int, ...]
) -> Iterator[np.ndarray]:
    recording = audio.open_recording(job.audio, ask)
    if abs(recording.duration_s - job.duration_s) > SLACK_S:
        raise InputError(
            f"{job.audio}: lasts {recording.duration_s:.2f} s, but the manifest says {job.duration_s:.2f} s "
            f"of {job.conversation}; make the manifest again, or copy the file again"
        )
    frames = voice_activity.frames(job.duration_s)
    pieces = audio.pieces(recording, audio.gains(recording), frames, PIECE_S)
    for features in encoder.stream(pieces):
        ask()
        if not torch.isfinite(features).all():
            raise InputError(f"{job.audio}: gives features that are not finite; check the encoder's weights")
        yield features.half().cpu().numpy()
    if _stamp(job.audio) != stamp:
        raise InputError(f"{job.audio}: has changed while it was read; start the same command again")

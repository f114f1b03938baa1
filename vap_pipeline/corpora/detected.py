"""Any corpus of two-channel audio without labels: who speaks when is found in the audio."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from vap_pipeline.artefacts.manifest import Manifest, check_name
from vap_pipeline.audio.recording import open_recording
from vap_pipeline.audio.vad import VadSettings, voice_activity_of
from vap_pipeline.corpora import build, discover
from vap_pipeline.corpora.build import Speech
from vap_pipeline.corpora.faults import Faults
from vap_pipeline.corpora.layout import Recording
from vap_pipeline.settings.events import FRAME_RATE_HZ


def read(
    audio: Path,
    test: int | None,
    folds: int,
    seed: int = 0,
    on_error: str = "stop",
    settings: VadSettings | None = None,
) -> Manifest:
    """Return the manifest of the recordings below ``audio``, with voice activity by Silero VAD.

    They are shuffled with ``seed``; ``test`` of them (by default a tenth, at least one) are for testing, the
    others make ``folds`` folds. Recordings are read side by side, one a core, in bounded memory.

    Raises:
        InputError: no recordings, or one that cannot be used.
    """
    faults = Faults(on_error)
    found = {recording.name: recording for recording in discover.find(audio).recordings}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    speech: dict[str, Speech] = {}
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        futures = {name: pool.submit(_speech, name, found[name], settings) for name in sorted(found)}
        for name, future in tqdm(futures.items(), "voice activity", unit=" recordings", disable=None):
            with faults.handled():
                speech[name] = future.result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
    faults.report()
    names = list(speech)
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    splits = build.split(order, max(1, len(names) // 10) if test is None else test, folds)
    return build.assemble(speech, {name: found[name].audio(audio) for name in names}, splits)


def _speech(name: str, recording: Recording, settings: VadSettings | None) -> Speech:
    check_name(name)
    opened = open_recording(recording.paths if len(recording.paths) > 1 else recording.paths[0])
    n = int(opened.duration_s * FRAME_RATE_HZ)
    va = voice_activity_of(opened, n, settings)
    columns = []
    for channel in (0, 1):
        edges = np.diff(np.pad(va[:, channel].astype(np.int8), 1))
        for start, end in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
            columns.append((channel, start / FRAME_RATE_HZ, end / FRAME_RATE_HZ))
    spans = np.array(columns, float).reshape(-1, 3)
    spoken = Speech(spans[:, 0].astype(np.int8), spans[:, 1], spans[:, 2], opened.duration_s)
    return build.fit(name, spoken, *recording.paths)

"""Bring a corpus's feature store up to date: load the encoder, share the work between processes, report."""

import argparse
import logging
import time
from datetime import timedelta

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from vap_pipeline.artefacts import manifest, store
from vap_pipeline.audio.recording import SETTINGS
from vap_pipeline.encoders.cpc_weights import PUBLISHED, load
from vap_pipeline.encoders.original import OriginalEncoder
from vap_pipeline.extract import run
from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError
from vap_pipeline.runtime import command
from vap_pipeline.runtime.signals import Requests, together
from vap_pipeline.settings.corpus import Corpus
from vap_pipeline.settings.events import FRAME_RATE_HZ
from vap_pipeline.settings.fields import override

log = logging.getLogger(__name__)


def extract_corpus(corpus: Corpus, args: argparse.Namespace, requests: Requests) -> int:
    """Encode every conversation of the corpus's manifest that the store lacks.

    Args:
        args: the flags of ``vap-extract``, which replace settings and places of the corpus.
        requests: the signals received so far.

    Returns:
        The number of conversations that were skipped; 0 in all but the main process.

    Raises:
        InputError: the manifest, the weights or a conversation cannot be read, or the store not be written.
    """
    settings = override(corpus.extract, args)
    folder, out = args.manifest or corpus.manifest_folder, args.out or corpus.store
    jobs = run.jobs(manifest.read(folder), args.audio or corpus.audio_folder)
    if not jobs:
        raise InputError(f"{folder}: no conversation is in train or test; make the manifest again")
    encoder, weights = load(settings.weights or PUBLISHED, settings.seed, settings.download)
    processes = _processes(requests)
    command.note_one_process(processes.num_processes)
    description = {
        "dim": encoder.dim,
        "frame_rate": FRAME_RATE_HZ,
        "encoder": {"name": "cpc", "backend": settings.backend, **weights},
        "audio": SETTINGS,
    }
    network = encoder if settings.backend == "native" else OriginalEncoder(encoder)
    share = jobs[processes.process_index :: processes.num_processes]
    began = time.monotonic()
    try:
        writer = store.create(out, description)
        network, workers = network.to(processes.device), torch.get_num_threads()
        outcome = run.extract(
            share, writer, network, workers, args.on_error == "skip", lambda: requests.received
        )
    except OSError as error:
        raise InputError(
            f"{out}: cannot be written ({files.reason(error)}); make room or check its permissions, and "
            "start the same command again: what is complete stays"
        ) from error
    with together():
        outcomes = gather_object([outcome])
    processes.destroy_process_group()  # left to the interpreter's end, it may abort there
    if not processes.is_main_process:
        return 0
    skipped = {name: fault for outcome in outcomes for name, fault in outcome.skipped.items()}
    _report(out, jobs, outcomes, skipped, time.monotonic() - began)
    if not skipped:
        files.write(f"{out.removesuffix('.zarr')}.json", run.receipt(jobs, writer))
    return len(skipped)


def _processes(requests: Requests) -> PartialState:
    """Join the processes of ``accelerate launch``; on CPUs too. They wait for the slowest of them."""
    try:
        with requests.suspended():
            return PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=30))
    except RuntimeError as error:
        raise InputError(
            f"the processes cannot reach each other ({files.reason(error)}); start them together with "
            "accelerate launch"
        ) from error


def _report(
    out: str, jobs: list[run.Job], outcomes: list[run.Outcome], skipped: dict[str, str], elapsed_s: float
) -> None:
    duration_s = {job.conversation: job.duration_s for job in jobs}
    encoded = [conversation for outcome in outcomes for conversation in outcome.encoded]
    hours = sum(duration_s[conversation] for conversation in encoded) / 3600
    log.info(
        "%s: %d conversations encoded (%.2f hours, %.0f times real time), %d up to date, %d skipped",
        *(out, len(encoded), hours, 3600 * hours / elapsed_s),
        *(len(jobs) - len(encoded) - len(skipped), len(skipped)),
    )
    if skipped:
        log.info("correct these, or remove their audio and make the manifest again with --on-error skip:")
    for conversation, fault in sorted(skipped.items()):
        log.info("skipped %s: %s", conversation, fault)

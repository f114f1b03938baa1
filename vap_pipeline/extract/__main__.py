"""``vap-extract``: encode every conversation once."""

import argparse
import logging
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from vap_pipeline.io.errors import InputError
from vap_pipeline.runtime import command
from vap_pipeline.runtime.signals import Requests, ending_on_request, together

SKIPPED = 3
BACKENDS = ("native", "cpc_audio")

DESCRIPTION = """\
Encode every conversation of a corpus once, with the CPC encoder: 100 features a second.

Reads   data_manifest/CORPUS/         which conversations there are, and who speaks when
        data/CORPUS/audio/            two-channel SPHERE, WAV or FLAC files
Writes  data/CORPUS/features.zarr     features and voice activity, Zarr format 3, 185 MB an hour of audio
        data/CORPUS/features.json     what the store holds, in a few lines; for DVC

A run that was stopped, in whatever way, goes on when it is started again: conversations whose audio and voice
activity are those of last time are left alone, the others are encoded. Any number of runs can share the work.
"""

EXAMPLES = f"""\
examples:
  vap-extract                                               the corpus that params.yaml selects
  vap-extract --corpus switchboard --download               fetches the published weights first
  vap-extract --corpus mine --audio recordings --weights 60k_epoch4-d0f474de.pt
  accelerate launch --multi_gpu --num_processes 4 vap-extract   conversations spread over 4 GPUs, or CPUs

exit status: 0 done, 2 wrong input, {SKIPPED} done but for skipped conversations, 130 and 143 stopped
"""

log = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        "vap-extract",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_corpus(parser)
    add = parser.add_argument
    add("--manifest", type=Path, metavar="DIR", help="folder of the manifest (data_manifest/CORPUS)")
    add("--audio", type=Path, metavar="DIR", help="folder its audio paths start from (data/CORPUS/audio)")
    add("--out", metavar="STORE", help="a folder or any fsspec path (data/CORPUS/features.zarr)")
    add("--weights", help="a CPC checkpoint, telephone-small, or random (the published one)")
    add("--seed", type=int, help="of random weights (0)")
    add(
        "--backend",
        choices=BACKENDS,
        help="whose code encodes: cpc_audio is the original (native)",
    )
    add("--download", action="store_true", help="fetch the published weights where they are absent")
    add("--on-error", choices=("stop", "skip"), default="stop", help="at a faulty conversation (%(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return command.run(body, parser(), argv)


def body(args: argparse.Namespace) -> None:
    """Read the settings, encode, and say what was done."""
    kept = "what was encoded is kept: start the same command again to go on"
    with ending_on_request(lambda: kept) as requests:
        _extract(args, command.read_corpus(args.params, args.corpus), requests)


def _extract(args: argparse.Namespace, settings: dict[str, Any], requests: Requests) -> None:
    name = settings["name"]
    folder = args.manifest or Path("data_manifest", name)
    root = Path(command.pick(args.audio, settings, "audio", default=f"data/{name}/audio"))
    out = str(command.pick(args.out, settings, "features", default=f"data/{name}/features.zarr"))
    seed = command.pick_seed(args.seed, settings, "extract")
    backend = command.pick(args.backend, settings, "extract", "backend", default="native")
    if backend not in BACKENDS:
        raise InputError(f"{args.params}: backend {backend!r} of extract is none of {', '.join(BACKENDS)}")

    import torch
    from accelerate import PartialState
    from accelerate.utils import gather_object

    from vap_pipeline.artefacts import manifest, store
    from vap_pipeline.audio.recording import SETTINGS
    from vap_pipeline.encoders.cpc_weights import PUBLISHED, load
    from vap_pipeline.encoders.original import OriginalEncoder
    from vap_pipeline.extract import run
    from vap_pipeline.io import files
    from vap_pipeline.turn_taking.voice_activity import FRAME_RATE

    requests.act_at_once()
    weights = command.pick(args.weights, settings, "extract", "weights", default=PUBLISHED)
    download = args.download or command.pick(None, settings, "extract", "download", default=False, kind=bool)
    encoder, weights_used = load(str(weights), seed, download)
    jobs = run.jobs(manifest.read(folder), root)
    if not jobs:
        raise InputError(f"{folder}: no conversation is in train or test; make the manifest again")
    # Told that there is no GPU, Accelerate lets processes on CPUs know each other. They wait for the slowest.
    try:
        with requests.left_to_the_system():
            processes = PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=30))
    except RuntimeError as error:
        raise InputError(f"the processes do not find each other ({files.reason(error)})") from error
    command.note_one_process(processes.num_processes)
    description = {
        "dim": encoder.dim,
        "frame_rate": FRAME_RATE,
        "encoder": {"name": "cpc", "backend": backend, **weights_used},
        "audio": SETTINGS,
    }
    network = encoder if backend == "native" else OriginalEncoder(encoder)
    share = jobs[processes.process_index :: processes.num_processes]
    began = time.monotonic()
    try:
        writer = store.create(out, description)
        outcome = run.extract(
            share,
            writer,
            network.to(processes.device),
            torch.get_num_threads(),
            args.on_error == "skip",
            lambda: requests.received,
        )
    except OSError as error:
        raise InputError(
            f"{out}: cannot be written ({error.strerror or error}); what is complete stays: "
            "mend that and start the same command again to go on"
        ) from error
    with together():
        outcomes = gather_object([outcome])
    processes.destroy_process_group()  # left to the interpreter's end, it may abort there
    if not processes.is_main_process:
        return
    duration_s = {job.conversation: job.duration_s for job in jobs}
    encoded = [conversation for each in outcomes for conversation in each.encoded]
    skipped = {conversation: fault for each in outcomes for conversation, fault in each.skipped.items()}
    hours, elapsed_s = sum(duration_s[each] for each in encoded) / 3600, time.monotonic() - began
    kept = len(jobs) - len(encoded) - len(skipped)
    log.info(
        "%s: %d conversations encoded (%.2f hours, %.0f times real time), %d up to date, %d skipped",
        *(out, len(encoded), hours, 3600 * hours / elapsed_s, kept, len(skipped)),
    )
    if skipped:
        log.info("mend what follows, or remove that audio and make the manifest again with --on-error skip")
    for conversation, fault in sorted(skipped.items()):
        log.info("skipped %s: %s", conversation, fault)
    if skipped:
        sys.exit(SKIPPED)
    files.write(f"{out.removesuffix('.zarr')}.json", run.receipt(jobs, writer))


if __name__ == "__main__":
    sys.exit(main())

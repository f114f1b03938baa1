"""``vap-extract``: encode every conversation once."""

import argparse
import sys
from pathlib import Path

from vap_pipeline.runtime import command
from vap_pipeline.runtime.signals import ending_on_request
from vap_pipeline.settings.corpus import ExtractSettings
from vap_pipeline.settings.fields import add_flags
from vap_pipeline.settings.params import add_corpus, read_corpus

SKIPPED_STATUS = 3

DESCRIPTION = """\
Encode every conversation of a corpus once, with the CPC encoder: 100 features a second.

Reads   data_manifest/CORPUS/         which conversations there are, and who speaks when
        data/CORPUS/audio/            two-channel SPHERE, WAV or FLAC files
Writes  data/CORPUS/features.zarr     features and voice activity, Zarr format 3, 185 MB an hour of audio
        data/CORPUS/features.json     what the store holds, in a few lines; for DVC

Start a stopped run again to continue it: conversations whose audio and voice activity have not changed are
left alone, the others are encoded. Any number of runs can share the work.
"""

EXAMPLES = f"""\
examples:
  vap-extract                                               the corpus that params.yaml selects
  vap-extract --corpus switchboard --download               fetches the published weights first
  vap-extract --corpus mine --audio recordings --weights 60k_epoch4-d0f474de.pt
  accelerate launch --multi_gpu --num_processes 4 vap-extract   conversations spread over 4 GPUs, or CPUs

exit status: 0 done, 2 wrong input, {SKIPPED_STATUS} done but for skipped conversations, 130 and 143 stopped
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        "vap-extract",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_corpus(parser)
    add = parser.add_argument
    add("--manifest", type=Path, metavar="DIR", help="folder of the manifest (data_manifest/CORPUS)")
    add("--audio", type=Path, metavar="DIR", help="folder its audio paths start from (data/CORPUS/audio)")
    add("--out", metavar="STORE", help="a folder or any fsspec path (data/CORPUS/features.zarr)")
    add(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="stop at, or skip, a conversation that cannot be read (default: %(default)s)",
    )
    add_flags(parser, ExtractSettings, "encoder (default: the corpus's section `extract`)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return command.run(body, parser(), argv)


def body(args: argparse.Namespace) -> None:
    """Read the settings, encode, and say what was done."""
    corpus = read_corpus(args.params, args.corpus)
    kept = "encoded conversations are kept: start the same command again to continue"
    with ending_on_request(lambda: kept) as requests:
        from vap_pipeline.extract.command import extract_corpus

        requests.act_at_once()
        if extract_corpus(corpus, args, requests):
            sys.exit(SKIPPED_STATUS)


if __name__ == "__main__":
    sys.exit(main())

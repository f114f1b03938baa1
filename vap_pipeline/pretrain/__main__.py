"""``vap-pretrain``: train an encoder on speech, and probe what its features hold."""

import argparse
import sys
from pathlib import Path

from vap_pipeline.io.errors import InputError
from vap_pipeline.runtime import command
from vap_pipeline.runtime.signals import ending_on_request, how_to_continue
from vap_pipeline.settings.corpus import Corpus
from vap_pipeline.settings.fields import LARGEST_SEED, add_flags, override
from vap_pipeline.settings.params import PARAMS, read_corpus
from vap_pipeline.settings.pretrain import PretrainSettings

DESCRIPTION = """\
Train a CPC encoder on the speech of one or more corpora. No transcripts are needed: the manifests say who
speaks when. Conversations of the test split are held back, to measure the encoder on.

Reads   data_manifest/CORPUS/       the conversations, and who speaks when
        data/CORPUS/audio/          two-channel SPHERE, WAV or FLAC files
Writes  checkpoints/CORPUS/cpc/     encoder.safetensors   weights for `vap-extract --weights`
                                    card.md               data, settings, seed, measured quality
                                    history.parquet       loss and accuracy
                                    resume.safetensors    the state that --resume continues from

`vap-pretrain probe` measures any encoder; see its own --help. `vap-manifest clips` makes a corpus from clips
of one speaker each, such as LibriSpeech's.
"""

EXAMPLES = """\
examples:
  vap-pretrain --corpus switchboard                             from scratch, on its training folds
  vap-pretrain --corpus calls --init 60k_epoch4-d0f474de.pt     start from the published weights
  vap-pretrain --corpus calls spoken --width 128 --dim 128      a small encoder, on two corpora
  accelerate launch --num_processes 4 vap-pretrain --corpus switchboard --speakers 16
  vap-pretrain probe --corpus calls --weights checkpoints/calls/cpc/encoder.safetensors
"""

PROBE = """\
Measure an encoder's features with linear probes of single frames: log F0 and log energy (R2), voicing and
speaker (accuracy) on held-back speakers (the test split), and phones (accuracy) on synthetic speech. Log-mel
features and random weights of the same shape are measured too, for comparison.

Reads   data_manifest/CORPUS/, data/CORPUS/audio/
Writes  a Markdown table on standard output
"""


def _add_data(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--corpus", nargs="+", help="names of corpora (default: the one that the settings file selects)")
    add("--params", type=Path, default=PARAMS, help="settings file (default: %(default)s)")
    add("--manifest", nargs="+", type=Path, metavar="DIR", help="their manifests (data_manifest/CORPUS)")
    add("--audio", nargs="+", type=Path, metavar="DIR", help="their audio (data/CORPUS/audio)")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line of training."""
    parser = argparse.ArgumentParser(
        "vap-pretrain",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_data(parser)
    add = parser.add_argument
    add("--out", metavar="PATH", help="folder, local or any fsspec path (checkpoints/CORPUS/cpc)")
    add("--init", metavar="WEIGHTS", help="start from a checkpoint, such as the published one")
    add("--download", action="store_true", help="fetch the published weights if they are missing")
    add("--resume", action="store_true", help="continue the run in the folder, if its settings match")
    add("--workers", type=command.count, metavar="N", help="processes that read audio (0, or 4 with a GPU)")
    add_flags(parser, PretrainSettings, "training and encoder (default: the corpus's section `pretrain`)")
    return parser


def probe_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line of ``vap-pretrain probe``."""
    parser = argparse.ArgumentParser(
        "vap-pretrain probe", description=PROBE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_data(parser)
    add = parser.add_argument
    add("--weights", nargs="+", default=[], help="checkpoints, as for vap-extract --weights")
    add("--seed", type=int, metavar="N", default=0, help="random seed of weights and probes (0)")
    splits = ("test", "train", "all")
    add("--split", choices=splits, default="test", help="conversations to use (%(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["probe"]:
        return command.run(_probe, probe_parser(), argv[1:])
    return command.run(_train, parser(), argv)


def _corpora(args: argparse.Namespace) -> tuple[list[Corpus], list[tuple[Path, Path]]]:
    """Return the settings of the corpora, and the folders of manifest and audio of each."""
    corpora = [read_corpus(args.params, name) for name in args.corpus or [None]]
    manifests = args.manifest or [corpus.manifest_folder for corpus in corpora]
    audio = args.audio or [corpus.audio_folder for corpus in corpora]
    for flag, folders in (("manifest", manifests), ("audio", audio)):
        if len(folders) != len(corpora):
            raise InputError(f"--{flag}: {len(folders)} folders for {len(corpora)} corpora; give one each")
    return corpora, list(zip(manifests, audio, strict=True))


def _train(args: argparse.Namespace) -> None:
    corpora, places = _corpora(args)
    name = "+".join(corpus.name for corpus in corpora)
    settings = override(corpora[0].pretrain, args)
    if args.init and settings.sizes():
        raise InputError(f"--init: {args.init} has sizes of its own; leave out --width, --dim and the like")
    folder = args.out or f"checkpoints/{name}/cpc"
    with ending_on_request(lambda: how_to_continue(folder)) as requests:
        from vap_pipeline.pretrain.command import train_encoder

        requests.act_at_once()
        train_encoder(args, name, places, settings, folder)


def _probe(args: argparse.Namespace) -> None:
    if not 0 <= args.seed <= LARGEST_SEED:
        raise InputError(f"--seed is {args.seed}; give a whole number from 0 to {LARGEST_SEED}")
    places = _corpora(args)[1]

    from vap_pipeline.pretrain.command import probe_encoders

    command.show(probe_encoders(args.weights, places, args.split, args.seed))


if __name__ == "__main__":
    sys.exit(main())

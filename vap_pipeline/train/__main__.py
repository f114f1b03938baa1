"""``vap-train``: train one model on one fold of a corpus."""

import argparse
import sys
from pathlib import Path

from vap_pipeline.runtime import command
from vap_pipeline.runtime.signals import ending_on_request, how_to_continue
from vap_pipeline.settings.fields import add_flags, override
from vap_pipeline.settings.params import add_corpus, read_corpus
from vap_pipeline.settings.train import ModelSettings, TrainSettings

DESCRIPTION = """\
Train one voice activity projection model on one fold of a corpus.

Reads   data/CORPUS/features.zarr          the feature store that vap-extract wrote
        data_manifest/CORPUS/              which conversations the fold trains and validates on
Writes  checkpoints/CORPUS/MODEL/fold-K/   model.safetensors   the best model: S/H weighted F1 on validation
                                           config.json         all that rebuilds and describes it
                                           history.parquet     losses, gradient norm, the four scores
                                           resume.safetensors  the state that --resume continues from

The history and the best model are logged with Weights & Biases: online with a key, else into the folder
wandb/, or as WANDB_MODE says. Ctrl-C and SIGTERM end the run after the current step, with its state saved.
"""

EXAMPLES = """\
examples:
  vap-train --model discrete --fold 0                      the corpus that params.yaml selects
  vap-train --model discrete --fold 0 --resume             continue after a stop, or start
  vap-train --model comparative --fold 3 --corpus switchboard --epochs 10
  accelerate launch --num_processes 4 --mixed_precision bf16 vap-train --model discrete --fold 0
  vap-train --model discrete --fold 0 --fast-dev-run       one batch of everything; nothing is kept
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        "vap-train",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_corpus(parser)
    add = parser.add_argument
    add("--model", required=True, help="discrete, independent, independent-40 or comparative")
    add("--fold", type=int, required=True, metavar="K", help="the fold to validate on; the others train")
    add(
        "--store",
        metavar="PATH",
        help="feature store, a folder or any fsspec path (data/CORPUS/features.zarr)",
    )
    add("--manifest", type=Path, metavar="DIR", help="folder of the manifest (data_manifest/CORPUS)")
    add("--out", metavar="PATH", help="folder of the checkpoint (checkpoints/CORPUS/MODEL/fold-K)")
    add(
        "--resume",
        action="store_true",
        help="continue the run in the folder, if its settings match; epochs and patience may differ",
    )
    add("--workers", type=command.count, metavar="N", help="processes that read batches (0, or 4 with a GPU)")
    add(
        "--fast-dev-run",
        action="store_true",
        help="train, check and save on one batch, in a temporary folder",
    )
    add_flags(parser, TrainSettings, "training (default: the corpus's section `train`, then the paper's)")
    add_flags(parser, ModelSettings, "model (default: the corpus's section `model`, then the paper's)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return command.run(body, parser(), argv)


def body(args: argparse.Namespace) -> None:
    """Read the settings, and train."""
    corpus = read_corpus(args.params, args.corpus)
    config = override(corpus.train, args)
    sizes = override(corpus.model, args)
    folder = args.out or corpus.checkpoint(args.model, args.fold)
    with ending_on_request(lambda: how_to_continue(folder)) as requests:
        from vap_pipeline.train.command import train_fold

        requests.act_at_once()
        train_fold(args, corpus, config, sizes, folder)


if __name__ == "__main__":
    sys.exit(main())

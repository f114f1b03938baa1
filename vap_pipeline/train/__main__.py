"""``vap-train``: train one model on one fold of a corpus."""

import argparse
import logging
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vap_pipeline.io.errors import InputError
from vap_pipeline.runtime import command
from vap_pipeline.runtime.signals import Requests, ending_on_request
from vap_pipeline.train.settings import add_flags, model_sizes, train_config

log = logging.getLogger(__name__)

DESCRIPTION = """\
Train one voice activity projection model on one fold of a corpus.

Reads   data/CORPUS/features.zarr          the feature store that vap-extract wrote
        data_manifest/CORPUS/              which conversations the fold trains and validates on
Writes  checkpoints/CORPUS/MODEL/fold-K/   model.safetensors   the best model: S/H weighted F1 on validation
                                           config.json         all that rebuilds and describes it
                                           history.parquet     losses, gradient norm, the four scores
                                           resume.safetensors  what --resume goes on from

The history and the best model are logged with Weights & Biases: online with a key, else into the folder
wandb/, or as WANDB_MODE says. Ctrl-C and SIGTERM end the run after the step, with its state saved.
"""

EXAMPLES = """\
examples:
  vap-train --model discrete --fold 0                      the corpus that params.yaml selects
  vap-train --model discrete --fold 0 --resume             go on after a stop, or start
  vap-train --model comparative --fold 3 --corpus switchboard --epochs 10
  accelerate launch --num_processes 4 --mixed_precision bf16 vap-train --model discrete --fold 0
  vap-train --model discrete --fold 0 --fast-dev-run       one batch of everything, kept nowhere
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        "vap-train",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_corpus(parser)
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
    add("--resume", action="store_true", help="go on from the state in the folder, if it is of this very run")
    add("--workers", type=int, metavar="N", help="processes that read batches (0, or 4 with a GPU)")
    add(
        "--fast-dev-run",
        action="store_true",
        help="train, check and save on one batch, in a temporary folder",
    )
    add_flags(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return command.run(body, parser(), argv)


def body(args: argparse.Namespace) -> None:
    """Read the settings and the data, and train."""
    corpus = command.read_corpus(args.params, args.corpus)
    folder = args.out or f"checkpoints/{corpus['name']}/{args.model}/fold-{args.fold}"

    def how() -> str:
        from vap_pipeline.runtime.resume import how_to_go_on

        return how_to_go_on(folder)

    with ending_on_request(how) as requests:
        _train(args, corpus, folder, requests)


def _train(args: argparse.Namespace, corpus: dict[str, Any], folder: str, requests: Requests) -> None:
    config, sizes = train_config(args, corpus), model_sizes(args, corpus)
    config = replace(config, seed=config.seed + args.fold)

    import torch
    from accelerate import PartialState

    from vap_pipeline.artefacts import manifest
    from vap_pipeline.artefacts.store import check_store, open_store
    from vap_pipeline.artefacts.windows import Windows
    from vap_pipeline.encoders.cpc_weights import described
    from vap_pipeline.models.checkpoint import load
    from vap_pipeline.models.network import ModelConfig
    from vap_pipeline.train.loop import train

    requests.act_at_once()
    name = corpus["name"]
    ModelConfig(args.model, **sizes)  # refused before anything is read
    folds = manifest.read(args.manifest or Path("data_manifest") / name)
    expected = {}
    if not args.store and (weights := command.pick(None, corpus, "extract", "weights", kind=str)):
        expected = {"encoder": described(weights, command.pick_seed(None, corpus, "extract"))}
    store = open_store(args.store or f"data/{name}/features.zarr", expected)
    check_store(folds, store, folds.training_set(args.fold) + folds.validation_set(args.fold))
    training = Windows(store, folds.training_set(args.fold))
    validation = Windows(store, folds.validation_set(args.fold))
    for windows, what in ((training, "to train"), (validation, "to validate")):
        if not len(windows):
            raise InputError(
                f"fold {args.fold}: no window of 10 s {what} on; give the corpus longer conversations"
            )
    model = ModelConfig(args.model, input_dim=store.dim, **sizes)
    settings = {
        "corpus": name,
        "fold": args.fold,
        "seed": config.seed,
        "model": asdict(model),
        "train": asdict(config),
        "store": store.description,
        "data": {"training": training.digest(), "validation": validation.digest()},
    }
    if args.workers is not None and args.workers < 0:
        raise InputError(f"--workers {args.workers}: give 0 or more")
    workers = args.workers if args.workers is not None else 4 if torch.cuda.is_available() else 0
    if args.fast_dev_run:
        once = replace(config, epochs=1, checks_per_epoch=1)
        with tempfile.TemporaryDirectory() as kept:
            train(training, validation, model, once, settings, kept, workers=workers, first_batch_only=True)
            if PartialState().is_main_process:  # which alone has written something
                load(kept)
        log.info("fast-dev-run: one batch was trained on, checked, saved and loaded; nothing is kept")
        return
    progress = train(
        training,
        validation,
        model,
        config,
        settings,
        folder,
        resumed=args.resume,
        workers=workers,
        track=True,
    )
    best = progress.history[progress.best_row]
    log.info("best at step %d: %s", best["step"], {k: round(v, 4) for k, v in best.items() if k != "step"})
    log.info("%s", folder)


if __name__ == "__main__":
    sys.exit(main())

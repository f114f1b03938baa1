"""``vap-evaluate``: score a model; find the events of a corpus; describe its turn-taking."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from vap_pipeline.runtime import command
from vap_pipeline.settings.corpus import Corpus
from vap_pipeline.settings.events import EventSettings
from vap_pipeline.settings.fields import add_flags, given_flags, override
from vap_pipeline.settings.params import add_corpus, read_corpus

log = logging.getLogger(__name__)

SCORE = """\
Score a trained model on the corpus's test set: shift or hold (S/H), short or long (S/L), shift prediction
(S-pred), backchannel prediction (BC-pred), and the loss. The thresholds are the best ones on the validation
set of the model's fold. Training recorded them in the checkpoint; after training in mixed precision, and for
other event settings, they are found here first.

reads   the checkpoint, the feature store, the manifest
writes  fold-K.parquet           a row per score: corpus, model, fold, seed, metric, level (frame or event),
                                 value, threshold, support_0 and support_1 (frames or events of each label)
        fold-K.events.parquet    a row per event and negative: place, label, and the probability per frame
        fold-K.timeline.parquet  half a minute of one conversation, for the figure

names   S/H is f1_hold_shift in files, S/L f1_short_long, S-pred f1_predict_shift, BC-pred
        f1_predict_backchannel, and the F1 of shifts alone f1_shift"""
EVENTS = """\
Find the turn-taking events of a corpus, from its manifest alone.

reads   the manifest
writes  events.parquet            a row per event (shift, hold, pre_shift, long, short, pre_backchannel):
                                  conversation, window, event, speaker, start and end (frames in the window),
                                  start_s and end_s (seconds in the conversation)
        events.non_shift.parquet  the same columns without event: where only the last speaker speaks next"""
STATISTICS = """\
Describe a corpus's turn-taking on one page: speech, silence and overlap, gaps, pauses, turns, backchannels,
and the events that the scores look at. The manifest is enough.

reads   the manifest
writes  statistics.md, statistics.png"""
EVENT_FLAGS = "events (default: the corpus's section `events`, then the paper's; lengths in seconds)"

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(argv: list[str] | None = None) -> int:
    """Run ``vap-evaluate`` and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="vap-evaluate",
        description="Score a model, find the events of a corpus, or describe its turn-taking.",
        epilog="vap-evaluate COMMAND --help says what a command reads and writes",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_score(commands)
    _add_events(commands)
    _add_statistics(commands)
    return command.run(lambda args: args.body(args), parser, argv)


def _add(
    commands: Commands, name: str, help: str, description: str, example: str, body: Callable[..., None]
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=help,
        description=description,
        epilog=f"example: vap-evaluate {name} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(body=body)
    add_corpus(parser)
    parser.add_argument("--manifest", type=Path, metavar="DIR", help="(default: data_manifest/CORPUS)")
    add_flags(parser, EventSettings, EVENT_FLAGS)
    return parser


def _add_score(commands: Commands) -> None:
    example = "--corpus sample --model discrete --fold 0"
    parser = _add(commands, "score", "score a trained model on the test set", SCORE, example, _score)
    parser.add_argument("--model", help="discrete, independent, independent-40 or comparative")
    parser.add_argument(
        "--fold", type=int, metavar="K", help="fold whose validation set the model was validated on"
    )
    parser.add_argument("--checkpoint", metavar="DIR", help="(default: checkpoints/CORPUS/MODEL/fold-K)")
    parser.add_argument("--store", metavar="PATH", help="feature store (default: data/CORPUS/features.zarr)")
    parser.add_argument("--out", metavar="FILE", help="(default: scores/CORPUS/MODEL/fold-K.parquet)")
    parser.add_argument("--device", help="torch device (default: cuda if there is a GPU, else cpu)")


def _score(args: argparse.Namespace) -> None:
    corpus = read_corpus(args.params, args.corpus)

    from vap_pipeline.evaluate.command import score_checkpoint

    score_checkpoint(
        corpus,
        override(corpus.events, args),
        bool(given_flags(args, EventSettings)),
        model=args.model,
        fold=args.fold,
        checkpoint=args.checkpoint,
        store=args.store,
        manifest_folder=args.manifest,
        out=args.out,
        device=args.device,
    )


def _add_events(commands: Commands) -> None:
    example = "--manifest data_manifest/switchboard --split test --out events.parquet"
    parser = _add(commands, "events", "find the events of a corpus", EVENTS, example, _events)
    parser.add_argument(
        "--split", choices=("train", "test", "all"), default="all", help="(default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="(default: reports/CORPUS/events.parquet)")


def _events(args: argparse.Namespace) -> None:
    corpus, settings = _corpus(args)

    from vap_pipeline.evaluate.corpus_events import write_events

    out = args.out or corpus.report_folder / "events.parquet"
    written = write_events(args.manifest or corpus.manifest_folder, args.split, out, settings)
    log.info("written: %s", ", ".join(map(str, written)))


def _add_statistics(commands: Commands) -> None:
    example = "--corpus sample"
    parser = _add(commands, "statistics", "describe a corpus's turn-taking", STATISTICS, example, _statistics)
    parser.add_argument("--out", type=Path, metavar="DIR", help="(default: reports/CORPUS)")


def _statistics(args: argparse.Namespace) -> None:
    corpus, settings = _corpus(args)

    from vap_pipeline.evaluate.statistics_page import write_statistics

    folder = args.manifest or corpus.manifest_folder
    log.info("written: %s", write_statistics(folder, args.out or corpus.report_folder, settings))


def _corpus(args: argparse.Namespace) -> tuple[Corpus, EventSettings]:
    """The corpus, which a manifest's folder names too, and its event settings with the flags in them."""
    name = args.corpus
    if args.manifest and not name:
        from vap_pipeline.artefacts.manifest import name_of

        name = name_of(args.manifest)
    corpus = read_corpus(args.params, name)
    return corpus, override(corpus.events, args)


if __name__ == "__main__":
    raise SystemExit(main())

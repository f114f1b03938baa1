"""``vap-evaluate``: score a model; find the events of a corpus; describe its turn-taking."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

from vap_pipeline.runtime import command
from vap_pipeline.settings.corpus import Corpus
from vap_pipeline.settings.events import EventSettings
from vap_pipeline.settings.fields import add_flags, override
from vap_pipeline.settings.params import add_corpus, read_corpus
from vap_pipeline.turn_taking.published import NAMES_IN_FILES

log = logging.getLogger(__name__)

SCORE = f"""\
Score a trained model on the corpus's test set: shift or hold (S/H), short or long (S/L), shift prediction
(S-pred), backchannel prediction (BC-pred), and the loss. The thresholds are the best ones on the validation
set of the model's fold. Training recorded them in the checkpoint; after training in mixed precision, and for
other event settings, they are computed here first.

reads   the checkpoint, the feature store, the manifest
writes  fold-K.parquet           a row per score: corpus, model, fold, seed, metric, level (frame or event),
                                 value, threshold, support_0 and support_1 (frames or events of each label)
        fold-K.events.parquet    a row per event and negative: place, label, and the probability per frame
        fold-K.timeline.parquet  half a minute of one conversation, for the figure

{NAMES_IN_FILES}"""
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


def main(argv: list[str] | None = None) -> int:
    """Run ``vap-evaluate`` and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="vap-evaluate",
        description="Score a model, find the events of a corpus, or describe its turn-taking.",
        epilog="vap-evaluate COMMAND --help says what a command reads and writes",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(
        name: str, help: str, description: str, example: str, body: Callable[..., None]
    ) -> Callable[..., object]:
        added = commands.add_parser(
            name,
            help=help,
            description=description,
            epilog=f"example: vap-evaluate {name} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(body=body)
        add_corpus(added)
        added.add_argument("--manifest", type=Path, metavar="DIR", help="(default: data_manifest/CORPUS)")
        add_flags(added, EventSettings, EVENT_FLAGS)
        return added.add_argument

    example = "--corpus sample --model discrete --fold 0"
    flag = add("score", "score a trained model on the test set", SCORE, example, _score)
    flag("--model", help="discrete, independent, independent-40 or comparative")
    flag("--fold", type=int, metavar="K", help="fold whose validation set the model was validated on")
    flag("--checkpoint", metavar="DIR", help="(default: checkpoints/CORPUS/MODEL/fold-K)")
    flag("--store", metavar="PATH", help="feature store (default: data/CORPUS/features.zarr)")
    flag("--out", metavar="FILE", help="(default: scores/CORPUS/MODEL/fold-K.parquet)")
    flag("--device", help="torch device (default: cuda if there is a GPU, else cpu)")

    example = "--manifest data_manifest/switchboard --split test --out events.parquet"
    flag = add("events", "find the events of a corpus", EVENTS, example, _events)
    flag("--split", choices=("train", "test", "all"), default="all", help="(default: %(default)s)")
    flag("--out", type=Path, metavar="FILE", help="(default: reports/CORPUS/events.parquet)")

    help = "describe a corpus's turn-taking"
    flag = add("statistics", help, STATISTICS, "--corpus sample", _statistics)
    flag("--out", type=Path, metavar="DIR", help="(default: reports/CORPUS)")
    return command.run(lambda args: args.body(args), parser, argv)


def _score(args: argparse.Namespace) -> None:
    from vap_pipeline.evaluate.command import score_checkpoint

    score_checkpoint(read_corpus(args.params, args.corpus), args)


def _events(args: argparse.Namespace) -> None:
    corpus, folder, settings = _described(args)

    from vap_pipeline.evaluate.corpus_events import write_events

    written = write_events(folder, args.split, args.out or corpus.report_folder / "events.parquet", settings)
    log.info("written: %s", ", ".join(map(str, written)))


def _statistics(args: argparse.Namespace) -> None:
    corpus, folder, settings = _described(args)

    from vap_pipeline.evaluate.statistics_page import write_statistics

    log.info("written: %s", write_statistics(folder, args.out or corpus.report_folder, settings))


def _described(args: argparse.Namespace) -> tuple[Corpus, Path, EventSettings]:
    """The corpus, which a manifest's folder names too; its manifest; its event settings with the flags."""
    name = args.corpus
    if args.manifest and not name:
        from vap_pipeline.artefacts.manifest import name_of

        name = name_of(args.manifest)
    corpus = read_corpus(args.params, name)
    settings = override(corpus.events, args)
    return corpus, args.manifest or corpus.manifest_folder, settings


if __name__ == "__main__":
    raise SystemExit(main())

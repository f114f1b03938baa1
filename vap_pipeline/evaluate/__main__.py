"""``vap-evaluate``: score a model; find the events of a corpus; describe its turn-taking."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from vap_pipeline.io.errors import InputError
from vap_pipeline.runtime import command

log = logging.getLogger(__name__)

SCORE = """\
Score a trained model on the corpus's test set: shift or hold, short or long, shift prediction, backchannel
prediction, and the loss. Thresholds are the best on the validation set of the model's fold: those that
training noted in the checkpoint, or, where it was of mixed precision, found here first.

reads   the checkpoint, the feature store, the manifest
writes  fold-K.parquet           a row per score: corpus, model, fold, seed, metric, level (frame or event),
                                 value, threshold, support_0 and support_1 (frames or events of each label)
        fold-K.events.parquet    a row per event and negative: place, label, probability, frame by frame too
        fold-K.timeline.parquet  half a minute of one conversation, for the figure"""
EVENTS = """\
Find the turn-taking events of a corpus: no model, no features, no audio.

reads   the manifest
writes  events.parquet            conversation, window, event, speaker, start, end: a row per event, which is
                                  shift, hold, pre_shift, long, short or pre_backchannel; frames in window w,
                                  which begins at frame 800 w of the conversation
        events.non_shift.parquet  the same columns without event: where only the last speaker speaks next"""
STATISTICS = """\
Describe a corpus's turn-taking on one page: speech, silence and overlap, gaps, pauses, turns, backchannels,
and the events that the scores look at. No model, no features, no audio.

reads   the manifest
writes  statistics.md, statistics.png"""

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(argv: list[str] | None = None) -> int:
    """Run ``vap-evaluate`` and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="vap-evaluate",
        description="Score a model, find the events of a corpus, or describe its turn-taking.",
        epilog="vap-evaluate COMMAND --help says what each reads and writes",
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
    command.add_corpus(parser)
    parser.add_argument("--manifest", type=Path, metavar="DIR", help="(default: data_manifest/CORPUS)")
    return parser


def _add_score(commands: Commands) -> None:
    example = "--corpus sample --model discrete --fold 0"
    parser = _add(commands, "score", "score a trained model on the test set", SCORE, example, _score)
    parser.add_argument("--model", help="discrete, independent, independent-40 or comparative")
    parser.add_argument("--fold", type=int, help="fold whose validation set the model was trained without")
    parser.add_argument("--checkpoint", metavar="DIR", help="(default: checkpoints/CORPUS/MODEL/fold-K)")
    parser.add_argument("--store", metavar="PATH", help="feature store (default: data/CORPUS/features.zarr)")
    parser.add_argument("--out", metavar="FILE", help="(default: scores/CORPUS/MODEL/fold-K.parquet)")
    parser.add_argument("--device", help="torch device (default: cuda where there is one, else cpu)")


def _score(args: argparse.Namespace) -> None:
    corpus = command.read_corpus(args.params, args.corpus)["name"]
    if args.checkpoint is None and (args.model is None or args.fold is None):
        raise InputError("which model? give --model and --fold, or --checkpoint")

    import torch

    from vap_pipeline.artefacts import manifest, score_files
    from vap_pipeline.artefacts.store import check_store, open_store
    from vap_pipeline.artefacts.windows import Windows
    from vap_pipeline.evaluate.score import best_thresholds, evaluate
    from vap_pipeline.models.checkpoint import load
    from vap_pipeline.runtime import resume
    from vap_pipeline.turn_taking.scores import numbered

    folder = args.checkpoint or f"checkpoints/{corpus}/{args.model}/fold-{args.fold}"
    model, config = load(folder)
    begun = resume.settings_of(folder)
    if changed := resume.differences({key: config.get(key) for key in begun}, begun):
        raise InputError(
            f"{folder}: its model is of another training than the one begun there since ({changed}); go on "
            f"with that (vap-train --resume), or remove {folder}/{resume.RESUME} to score the model of before"
        )
    try:
        name, fold, seed, trained_on = model.config.model, config["fold"], config["seed"], config["store"]
    except KeyError as error:
        raise InputError(f"{folder}: its config does not say {error}; train the model again") from error
    for flag, given, trained in ("--model", args.model, name), ("--fold", args.fold, fold):
        if given is not None and given != trained:
            raise InputError(f"{folder}: {flag} {given} was asked for, but this checkpoint is of {trained}")
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {device}: {str(error).splitlines()[0]}") from error

    store = open_store(args.store or f"data/{corpus}/features.zarr", expect=trained_on)
    listed = manifest.read(args.manifest or Path("data_manifest") / corpus)
    sets = {"validation": listed.validation_set(fold), "test": listed.test_set()}
    for which, names in sets.items():
        missing = [each for each in names if each not in store]
        if missing:
            raise InputError(
                f"{store.path}: lacks {len(missing)} of the {len(names)} conversations of the {which} set, "
                f"such as {missing[0]}; run vap-extract, or take them out of the manifest"
            )
        if not names:
            raise InputError(
                f"{corpus}: the {which} set of fold {fold} has no conversations; mend the manifest"
            )
    check_store(listed, store, [*sets["validation"], *sets["test"]])
    validation, test = (Windows(store, names) for names in sets.values())
    seen, digest = config.get("data", {}).get("validation"), validation.digest()
    if config.get("corpus") == corpus and seen not in (None, digest):
        raise InputError(
            f"{folder}: the conversations of fold {fold} have changed since it was trained; train it again"
        )
    noted = config.get("thresholds") if seen == digest else None
    try:
        best = numbered(noted) if noted else best_thresholds(model, validation, seed)
    except ValueError as error:
        raise InputError(f"{folder}: its thresholds: {error}; train the model again") from error
    evaluation = evaluate(model, test, best, seed)
    out = args.out or f"scores/{corpus}/{name}/fold-{fold}.parquet"
    run = {"corpus": corpus, "model": name, "fold": fold, "seed": seed}
    rows = [run | row for row in evaluation.rows]
    score_files.write(out, rows, evaluation.events, evaluation.timeline, store.weights)
    shown = {row["metric"]: row["value"] for row in evaluation.rows if row["level"] == "frame"}
    log.info("%s: %s", out, ", ".join(f"{metric} {value:.3f}" for metric, value in shown.items()))


def _add_events(commands: Commands) -> None:
    example = "--manifest data_manifest/switchboard --split test --out events.parquet"
    parser = _add(commands, "events", "find the events of a corpus", EVENTS, example, _events)
    parser.add_argument(
        "--split", choices=("train", "test", "all"), default="all", help="(default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="(default: reports/CORPUS/events.parquet)")


def _events(args: argparse.Namespace) -> None:
    from vap_pipeline.evaluate.corpus_events import write_events

    folder, corpus = _manifest(args)
    written = write_events(folder, args.split, args.out or Path("reports") / corpus / "events.parquet")
    log.info("written: %s", ", ".join(map(str, written)))


def _add_statistics(commands: Commands) -> None:
    example = "--corpus sample"
    parser = _add(commands, "statistics", "describe a corpus's turn-taking", STATISTICS, example, _statistics)
    parser.add_argument("--out", type=Path, metavar="DIR", help="(default: reports/CORPUS)")


def _statistics(args: argparse.Namespace) -> None:
    from vap_pipeline.evaluate.statistics import write_statistics

    folder, corpus = _manifest(args)
    log.info("written: %s", write_statistics(folder, args.out or Path("reports") / corpus))


def _manifest(args: argparse.Namespace) -> tuple[Path, str]:
    """The folder of the manifest, and the corpus's name."""
    if args.manifest:
        from vap_pipeline.artefacts.manifest import name_of

        return args.manifest, name_of(args.manifest)
    corpus = command.read_corpus(args.params, args.corpus)["name"]
    return Path("data_manifest") / corpus, corpus


if __name__ == "__main__":
    raise SystemExit(main())

"""``vap-manifest``: say which conversations a corpus has, how they are split, and who speaks when."""

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vap_pipeline.artefacts.manifest import Manifest
from vap_pipeline.io.errors import InputError
from vap_pipeline.runtime import command

log = logging.getLogger(__name__)

Body = Callable[[argparse.Namespace], None]

WRITES = """\
writes  conversations.csv        a row a conversation: its audio, duration, split and fold
        voice_activity.parquet   a row a stretch of speech: conversation, channel, start and end in seconds
        both in OUT, whose name is the corpus's; the same input gives the same bytes"""

SWITCHBOARD = f"""\
Switchboard (LDC97S62) with the ms98 transcripts, or a corpus in its formats: the paper's test set and folds.

reads   TRANSCRIPTS/**/sw2001A-ms98-a-word.text
        AUDIO/**/sw02001.sph, .wav or .flac, however the discs were copied; without audio, a conversation
        lasts until the last time in its transcripts
{WRITES}"""

SAMPLE = f"""\
The sample corpus: simulate its transcripts, speak the audio that is missing, then read both as Switchboard is
read.

{WRITES}"""

SIMULATE = """\
Simulate telephone conversations.

writes  TRANSCRIPTS/**/sw2001A-ms98-a-word.text and -trans.text, as in the ms98 release"""

RENDER = """\
Speak ms98 transcripts, simulated or real, with synthetic voices, each word at its own time.

reads   TRANSCRIPTS/**/sw2001A-ms98-a-word.text
writes  AUDIO/**/sw02001.sph, two channels, 8 kHz, mu-law, as on the discs of Switchboard; what was
        rendered before and is still right stays, what was rendered from other transcripts is removed"""

SEGMENTS = f"""\
Any corpus of two-channel audio. Its conversations are shuffled into folds, each conversation whole.

reads   AUDIO/**/NAME.sph, .wav or .flac
        TABLE, files or folders of files, of one of these kinds:
          .csv   conversation,channel,start_s,end_s (channel 0 or 1; times in seconds)
          .json  a list of rows with these four names
          .json  the words of one conversation, in a file of its name: [{{"speaker": "A", "start": 2.15,
                 "end": 2.83}}, ...]; words less than 0.05 s apart become one stretch of speech
{WRITES}"""

CLIPS = f"""\
Clips of one speaker each (LibriSpeech, VCTK), made into telephone calls: speech to pretrain the encoder on.

reads   CLIPS/**/SPEAKER-*.flac, .wav, .ogg or .mp3, one channel
writes  AUDIO/SPEAKER-SPEAKER.wav, two channels, 8 kHz, mu-law
{WRITES}"""


def main(argv: list[str] | None = None) -> int:
    """Run ``vap-manifest`` and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="vap-manifest",
        description="Say which conversations a corpus has, how they are split, and who speaks when.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, text: str, example: str, body: Body, corpus: str | None) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text.partition("\n\n")[0].replace("\n", " ").rstrip("."),
            description=text,
            epilog=f"What is not given comes from the settings file, then from the defaults.\n\n"
            f"example: vap-manifest {name} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        section = corpus or "the name of OUT"
        sub.add_argument(
            "--corpus", default=corpus, help=f"section of the settings file (default: {section})"
        )
        sub.add_argument(
            "--params", type=Path, default=command.PARAMS, help="settings file (default: %(default)s)"
        )
        sub.set_defaults(body=body)
        return sub

    switchboard = add(
        "switchboard", SWITCHBOARD, "--transcripts ms98 --audio swb1", _switchboard, corpus="switchboard"
    )
    sample = add("sample", SAMPLE, "--conversations 45 --minutes 2.5", _sample, corpus="sample")
    simulate = add(
        "simulate", SIMULATE, "--conversations 10 --transcripts simulated", _simulate, corpus="sample"
    )
    render = add("render", RENDER, "--transcripts ms98/20 --audio spoken", _render, corpus="sample")
    segments = add(
        "segments",
        SEGMENTS,
        "--audio calls --table calls.csv --out data_manifest/calls",
        _segments,
        corpus=None,
    )
    clips = add(
        "clips", CLIPS, "--clips LibriSpeech/train-clean-100 --out data_manifest/clips", _clips, corpus=None
    )
    clips.add_argument("--clips", type=Path, metavar="DIR", help="(default: data/CORPUS/clips)")

    # What is not given is read from the corpus's settings; the defaults here hold where there are none.
    for sub in (switchboard, sample, simulate, render):
        sub.add_argument("--transcripts", type=Path, metavar="DIR", help="(default: data/CORPUS/transcripts)")
    for sub in (switchboard, sample, render, segments, clips):
        there = ", where it is there" if sub is switchboard else ""
        sub.add_argument("--audio", type=Path, metavar="DIR", help=f"(default: data/CORPUS/audio{there})")
    segments.add_argument(
        "--table", type=Path, nargs="+", metavar="PATH", help="(default: data/CORPUS/transcripts)"
    )
    for sub in (sample, simulate):
        sub.add_argument("--conversations", type=int, metavar="N", help="how many to simulate (default: 45)")
        sub.add_argument("--minutes", type=float, metavar="M", help="length of each (default: 2.5)")
    for sub in (sample, simulate, render, segments):
        sub.add_argument("--seed", type=int, help="(default: 0)")
    for sub, test, folds in ((switchboard, 135, 11), (sample, 9, 3), (segments, None, 5), (clips, None, 5)):
        size = test or "a tenth"
        sub.add_argument("--test", type=int, metavar="N", help=f"conversations for testing (default: {size})")
        sub.add_argument("--folds", type=int, metavar="K", help=f"folds of the others (default: {folds})")
        sub.set_defaults(default_test=test, default_folds=folds)
        sub.add_argument("--out", type=Path, metavar="DIR", help="(default: data_manifest/CORPUS)")
        sub.add_argument(
            "--on-error",
            choices=("stop", "skip"),
            default="stop",
            help="stop at the first broken conversation (default), or leave such out and list them",
        )
    return command.run(lambda args: args.body(args), parser, argv)


def _switchboard(args: argparse.Namespace) -> None:
    from vap_pipeline.corpora import switchboard

    settings = command.read_corpus(args.params, args.corpus)
    audio = args.audio
    if audio is None and _folder(args, settings, "audio").exists():
        audio = _folder(args, settings, "audio")
    if audio is None:
        log.info("no audio: a conversation lasts until the last time in its transcripts")
    transcripts = _folder(args, settings, "transcripts")
    _write(switchboard.read(transcripts, audio, *_split(args, settings), args.on_error), args, settings)


def _sample(args: argparse.Namespace) -> None:
    _simulate(args)
    _render(args)
    _switchboard(args)


def _simulate(args: argparse.Namespace) -> None:
    from vap_pipeline.corpora.sample import simulate

    settings = command.read_corpus(args.params, args.corpus)
    simulate(
        _folder(args, settings, "transcripts"),
        conversations=command.pick(args.conversations, settings, "simulate", "conversations", default=45),
        minutes=command.pick(args.minutes, settings, "simulate", "minutes", default=2.5),
        seed=command.pick_seed(args.seed, settings, "simulate"),
    )


def _render(args: argparse.Namespace) -> None:
    from vap_pipeline.corpora.render import render

    settings = command.read_corpus(args.params, args.corpus)
    render(
        _folder(args, settings, "transcripts"),
        _folder(args, settings, "audio"),
        seed=command.pick_seed(args.seed, settings, "simulate"),
    )


def _named(args: argparse.Namespace) -> dict[str, Any]:
    if args.corpus is None and args.out is None:
        raise InputError("which corpus? give --out, a folder with the corpus's name, or --corpus")
    from vap_pipeline.artefacts.manifest import name_of

    return command.read_corpus(args.params, args.corpus or name_of(args.out))


def _clips(args: argparse.Namespace) -> None:
    from vap_pipeline.corpora import clips

    settings = _named(args)
    folder, audio = _folder(args, settings, "clips"), _folder(args, settings, "audio")
    _write(clips.read(folder, audio, *_split(args, settings), args.on_error), args, settings)


def _segments(args: argparse.Namespace) -> None:
    from vap_pipeline.corpora import segments

    settings = _named(args)
    tables = args.table or [_folder(args, settings, "transcripts")]
    seed = command.pick_seed(args.seed, settings, "manifest")
    audio = _folder(args, settings, "audio")
    _write(segments.read(audio, tables, *_split(args, settings), seed, args.on_error), args, settings)


def _folder(args: argparse.Namespace, settings: dict[str, Any], what: str) -> Path:
    flag = getattr(args, what, None)
    return Path(command.pick(flag, settings, what, default=f"data/{settings['name']}/{what}"))


def _split(args: argparse.Namespace, settings: dict[str, Any]) -> tuple[Any, Any]:
    test = command.pick(args.test, settings, "manifest", "test", default=args.default_test, kind=int)
    return test, command.pick(args.folds, settings, "manifest", "folds", default=args.default_folds)


def _write(made: Manifest, args: argparse.Namespace, settings: dict[str, Any]) -> None:
    from vap_pipeline.artefacts import manifest

    folder = args.out or Path("data_manifest", settings["name"])
    manifest.write(made, folder)
    hours = sum(c.duration_s for c in made.conversations) / 3600
    train, test, every = (len(made.select(split)) for split in ("train", "test", "all"))
    unused = f", {every - train - test} not used" if every > train + test else ""
    log.info(
        f"{folder}: {every:,} conversations, {hours:.1f} h; "
        f"{train:,} in {made.folds} folds, {test} for testing{unused}"
    )


if __name__ == "__main__":
    sys.exit(main())

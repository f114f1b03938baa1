"""``vap-manifest``: list the conversations of a corpus, how they are split, and who speaks when."""

import argparse
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from textwrap import indent
from typing import Any

from vap_pipeline.artefacts.manifest import Manifest, name_of
from vap_pipeline.corpora.formats.registry import HELP as LABELS
from vap_pipeline.io.errors import InputError
from vap_pipeline.runtime import command
from vap_pipeline.settings.corpus import Corpus
from vap_pipeline.settings.params import PARAMS, read_corpus

log = logging.getLogger(__name__)

Body = Callable[[argparse.Namespace], None]

WRITES = """\
writes  conversations.csv        a row per conversation: its audio, duration, split and fold
        voice_activity.parquet   a row per stretch of speech: conversation, channel, start and end in seconds
        Both are in OUT, a folder with the corpus's name. The same input gives the same bytes."""

SWITCHBOARD = f"""\
Switchboard (LDC97S62) with the ms98 transcripts, or a corpus in its formats: the paper's test set and folds.

reads   TRANSCRIPTS/**/sw2001A-ms98-a-word.text
        AUDIO/**/sw02001.sph, .wav or .flac, at any depth; without audio, a conversation lasts until the last
        time in its transcripts
{WRITES}"""

SAMPLE = f"""\
The sample corpus: simulate its transcripts, speak the audio that is missing, then read both like Switchboard.

{WRITES}"""

SIMULATE = """\
Simulate telephone conversations.

writes  TRANSCRIPTS/**/sw2001A-ms98-a-word.text and -trans.text, as in the ms98 release"""

RENDER = """\
Speak ms98 transcripts, simulated or real, with synthetic voices, each word at its own time.

reads   TRANSCRIPTS/**/sw2001A-ms98-a-word.text
writes  AUDIO/**/sw02001.sph, two channels, 8 kHz, mu-law, as on the discs of Switchboard; files that were
        rendered from the same transcripts stay, files rendered from others are removed"""

SEGMENTS = f"""\
Any corpus of recordings of two speakers, with labels of who speaks when. Whole conversations are shuffled
into folds.

reads   AUDIO/**/NAME.wav, of two channels, or a file per speaker: NAME_A.wav and NAME_B.wav, NAME.left.wav
        and NAME.right.wav, agent/NAME.wav and caller/NAME.wav (.sph .wav .flac .mp3 .ogg .opus .m4a)
        TABLE, label files or folders of them, named after their conversation where they do not name it
{WRITES}

label files
{indent(LABELS, "  ")}

A channel is 0 or 1, 1 or 2 (if no row has a 0), A or B, L or R, left or right; a file per speaker may say it
in its name. Segments of one speaker that overlap or touch are joined, and times up to a second outside the
recording are cut."""

VAD = f"""\
Any corpus of two-channel audio without labels: Silero VAD finds who speaks when, in each channel.

reads   AUDIO/**/NAME.wav, of two channels, or a file per speaker, as vap-manifest segments does
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
        description="List the conversations of a corpus, how they are split, and who speaks when.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, text: str, example: str, body: Body, corpus: str | None) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text.partition("\n\n")[0].replace("\n", " ").rstrip("."),
            description=text,
            epilog="A flag overrides the settings file, which overrides the default.\n\n"
            f"example: vap-manifest {name} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        section = corpus or "the name of OUT"
        sub.add_argument(
            "--corpus", default=corpus, help=f"section of the settings file (default: {section})"
        )
        sub.add_argument("--params", type=Path, default=PARAMS, help="settings file (default: %(default)s)")
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
    vad = add("vad", VAD, "--audio calls --out data_manifest/calls", _vad, corpus=None)
    _add_vad_flags(vad)
    clips = add(
        "clips", CLIPS, "--clips LibriSpeech/train-clean-100 --out data_manifest/clips", _clips, corpus=None
    )
    clips.add_argument("--clips", type=Path, metavar="DIR", help="(default: data/CORPUS/clips)")

    for sub in (switchboard, sample, simulate, render):
        sub.add_argument("--transcripts", type=Path, metavar="DIR", help="(default: data/CORPUS/transcripts)")
    for sub in (switchboard, sample, render, segments, vad, clips):
        condition = ", if it exists" if sub is switchboard else ""
        sub.add_argument("--audio", type=Path, metavar="DIR", help=f"(default: data/CORPUS/audio{condition})")
    _add_segments_flags(segments)
    for sub in (sample, simulate):
        sub.add_argument("--conversations", type=int, metavar="N", help="how many to simulate (default: 45)")
        sub.add_argument("--minutes", type=float, metavar="M", help="length of each (default: 2.5)")
    for sub in (sample, simulate, render, segments, vad):
        sub.add_argument("--seed", type=int, help="(default: 0)")
    any_corpus = ((segments, None, 5), (vad, None, 5), (clips, None, 5))
    for sub, test, folds in ((switchboard, 135, 11), (sample, 9, 3), *any_corpus):
        size = test or "a tenth"
        sub.add_argument("--test", type=int, metavar="N", help=f"conversations for testing (default: {size})")
        sub.add_argument("--folds", type=int, metavar="K", help=f"folds of the others (default: {folds})")
        sub.set_defaults(default_test=test, default_folds=folds)
        sub.add_argument("--out", type=Path, metavar="DIR", help="(default: data_manifest/CORPUS)")
        sub.add_argument(
            "--on-error",
            choices=("stop", "skip"),
            default="stop",
            help="stop at, or skip and list, conversations that cannot be read (default: %(default)s)",
        )
    return command.run(lambda args: args.body(args), parser, argv)


def _add_segments_flags(segments: argparse.ArgumentParser) -> None:
    segments.add_argument(
        "--table", type=Path, nargs="+", metavar="PATH", help="(default: data/CORPUS/transcripts)"
    )
    segments.add_argument(
        "--channels",
        type=_two_names,
        metavar="FIRST,SECOND",
        default=(),
        help="what the tables call the two channels; rows of others are left out",
    )
    segments.add_argument(
        "--unit", choices=("s", "ms"), default="s", help="of times in tables (default: %(default)s)"
    )


def _add_vad_flags(vad: argparse.ArgumentParser) -> None:
    for flag, default, unit, help in (
        ("--threshold", 0.5, "P", "probability at which speech begins"),
        ("--min-silence", 0.1, "S", "shorter silences count as speech"),
        ("--min-speech", 0.1, "S", "shorter speech is left out"),
    ):
        vad.add_argument(flag, type=float, default=default, metavar=unit, help=f"{help} (default: {default})")


def _two_names(text: str) -> tuple[str, str]:
    first, _, second = text.partition(",")
    if not first.strip() or not second.strip() or "," in second or first.strip() == second.strip():
        raise argparse.ArgumentTypeError(f"{text!r}: give two names, as in agent,customer")
    return first.strip(), second.strip()


def _corpus(args: argparse.Namespace) -> Corpus:
    """The settings of the corpus, with the flags in place of what they override."""
    if args.corpus is None and args.out is None:
        raise InputError("no corpus selected; give --out, a folder with the corpus's name, or --corpus")
    corpus = read_corpus(args.params, args.corpus or name_of(args.out))

    def given(*names: str) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(args, name, None)) is not None}

    return replace(
        corpus,
        simulate=replace(corpus.simulate, **given("conversations", "minutes", "seed")),
        manifest=replace(corpus.manifest, **given("test", "folds", "seed")),
        **given("transcripts", "audio", "clips"),
    )


def _split(args: argparse.Namespace, corpus: Corpus) -> tuple[Any, int]:
    """The number of conversations for testing, None for the reader's own default, and that of folds."""
    test, folds = corpus.manifest.test, corpus.manifest.folds
    return args.default_test if test is None else test, folds or args.default_folds


def _switchboard(args: argparse.Namespace) -> None:
    from vap_pipeline.corpora import switchboard

    corpus = _corpus(args)
    audio = corpus.audio_folder if args.audio or corpus.audio_folder.exists() else None
    if audio is None:
        log.info("no audio: a conversation lasts until the last time in its transcripts")
    made = switchboard.read(corpus.transcripts_folder, audio, *_split(args, corpus), args.on_error)
    _write(made, args, corpus)


def _sample(args: argparse.Namespace) -> None:
    _simulate(args)
    _render(args)
    _switchboard(args)


def _simulate(args: argparse.Namespace) -> None:
    from vap_pipeline.corpora.sample import simulate

    corpus = _corpus(args)
    settings = corpus.simulate
    simulate(
        corpus.transcripts_folder,
        conversations=settings.conversations,
        minutes=settings.minutes,
        seed=settings.seed,
    )


def _render(args: argparse.Namespace) -> None:
    from vap_pipeline.corpora.render import render

    corpus = _corpus(args)
    render(corpus.transcripts_folder, corpus.audio_folder, seed=corpus.simulate.seed)


def _clips(args: argparse.Namespace) -> None:
    from vap_pipeline.corpora import clips

    corpus = _corpus(args)
    made = clips.read(corpus.clips_folder, corpus.audio_folder, *_split(args, corpus), args.on_error)
    _write(made, args, corpus)


def _segments(args: argparse.Namespace) -> None:
    from vap_pipeline.corpora import segments

    corpus = _corpus(args)
    tables = args.table or [corpus.transcripts_folder]
    seed = corpus.manifest.seed
    made = segments.read(
        corpus.audio_folder,
        tables,
        *_split(args, corpus),
        seed,
        args.on_error,
        args.channels,
        args.unit,
    )
    _write(made, args, corpus)


def _vad(args: argparse.Namespace) -> None:
    from vap_pipeline.audio.vad import VadSettings
    from vap_pipeline.corpora import detected

    corpus = _corpus(args)
    settings = VadSettings(args.threshold, args.min_silence, args.min_speech)
    seed = corpus.manifest.seed
    made = detected.read(corpus.audio_folder, *_split(args, corpus), seed, args.on_error, settings)
    _write(made, args, corpus)


def _write(made: Manifest, args: argparse.Namespace, corpus: Corpus) -> None:
    from vap_pipeline.artefacts import manifest

    folder = args.out or corpus.manifest_folder
    manifest.write(made, folder)
    hours = sum(c.duration_s for c in made.conversations) / 3600
    train, test, total = (len(made.select(split)) for split in ("train", "test", "all"))
    unused = f", {total - train - test} not used" if total > train + test else ""
    log.info(
        f"{folder}: {total:,} conversations, {hours:.1f} h; "
        f"{train:,} in {made.folds} folds, {test} for testing{unused}"
    )


if __name__ == "__main__":
    sys.exit(main())

"""``vap-pretrain``: learn the encoder's weights from speech, and measure what they are worth."""

import argparse
import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vap_pipeline.io.errors import InputError
from vap_pipeline.runtime import command
from vap_pipeline.runtime.signals import Requests, ending_on_request

SHORTEST_S = 2.0  # of the stretches of speech that are used, without a pause

log = logging.getLogger(__name__)

DESCRIPTION = """\
Learn the weights of a CPC encoder from the speech of one corpus or more. No transcript is needed but who
speaks when, which the manifests say; conversations of the test split are held back and measured on.

Reads   data_manifest/CORPUS/       which conversations there are, and who speaks when
        data/CORPUS/audio/          two-channel SPHERE, WAV or FLAC files
Writes  checkpoints/CORPUS/cpc/     encoder.safetensors   what `vap-extract --weights` takes
                                    card.md               data, settings, seed, measured quality
                                    history.parquet       loss and accuracy
                                    resume.safetensors    what --resume goes on from

`vap-pretrain probe` measures any encoder: see its own --help. Speech that lies in clips of one speaker each,
such as LibriSpeech, becomes a corpus by `vap-manifest clips`.
"""

EXAMPLES = """\
examples:
  vap-pretrain --corpus switchboard                             from scratch, on its training folds
  vap-pretrain --corpus calls --init 60k_epoch4-d0f474de.pt     go on from the published weights
  vap-pretrain --corpus calls spoken --width 128 --dim 128      a small encoder, on two corpora
  accelerate launch --num_processes 4 vap-pretrain --corpus switchboard --speakers 16
  vap-pretrain probe --corpus calls --weights checkpoints/calls/cpc/encoder.safetensors
"""

PROBE = """\
Measure what lies open in an encoder's features, by linear probes of single frames: log F0 and log energy
(R2), voicing and speaker (accuracy) on held-back speakers (the test split), and phones (accuracy) on
synthetic speech. Log-mel features and random weights of the same shape stand beside it.

Reads   data_manifest/CORPUS/, data/CORPUS/audio/
Writes  a Markdown table on standard output
"""

SIZES: dict[str, tuple[type, str, str]] = {
    "width": (int, "hiddenEncoder", "channels of the convolutions (256)"),
    "dim": (int, "hiddenGar", "width of the recurrent net, and of the features (256)"),
    "levels": (int, "nLevelsGRU", "layers of the recurrent net (1)"),
    "recurrent": (str, "arMode", "its kind: LSTM, GRU or RNN (LSTM)"),
}
SETTINGS = {
    "steps": (int, "steps of training (10000)"),
    "speakers": (int, "speakers in a batch (4)"),
    "windows": (int, "windows of 1.28 s of each of them (4)"),
    "negatives": (int, "frames of the same speaker that are not the one to tell (64)"),
    "ahead": (int, "frames ahead to tell (12)"),
    "learning_rate": (float, "highest learning rate of AdamW; it falls as a cosine (5e-4)"),
    "weight_decay": (float, "AdamW's weight decay (0.01)"),
    "seed": (int, "of weights, windows and negatives (0)"),
}


def _add_data(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--corpus", nargs="+", help="names of corpora (default: the one that the settings file selects)")
    add("--params", type=Path, default=command.PARAMS, help="settings file (default: %(default)s)")
    add("--manifest", nargs="+", type=Path, metavar="DIR", help="their manifests (data_manifest/CORPUS)")
    add("--audio", nargs="+", type=Path, metavar="DIR", help="their audio (data/CORPUS/audio)")


def parser() -> argparse.ArgumentParser:
    """The command line of training."""
    parser = argparse.ArgumentParser(
        "vap-pretrain",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_data(parser)
    add = parser.add_argument
    add("--out", metavar="PATH", help="folder, local or any fsspec path (checkpoints/CORPUS/cpc)")
    add(
        "--init", metavar="WEIGHTS", help="go on from a checkpoint, such as the published one, with its sizes"
    )
    add("--download", action="store_true", help="fetch the published weights where they are absent")
    add("--resume", action="store_true", help="go on from the state in the folder, if it is of this very run")
    add("--workers", type=int, metavar="N", help="processes that read audio (0, or 4 with a GPU)")
    group = parser.add_argument_group("training (default: the corpus's section `pretrain`)")
    for name, (type_, help) in SETTINGS.items():
        group.add_argument("--" + name.replace("_", "-"), type=type_, metavar="N", help=help)
    group = parser.add_argument_group("encoder (default: the published one's)")
    for name, (type_, _, help) in SIZES.items():
        group.add_argument("--" + name, type=type_, metavar="N", help=help)
    return parser


def probe_parser() -> argparse.ArgumentParser:
    """The command line of ``vap-pretrain probe``."""
    parser = argparse.ArgumentParser(
        "vap-pretrain probe", description=PROBE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_data(parser)
    parser.add_argument(
        "--weights", nargs="+", default=[], help="checkpoint files, or names as of vap-extract"
    )
    parser.add_argument("--seed", type=int, metavar="N", default=0, help="of random weights and probes (0)")
    parser.add_argument(
        "--split", choices=("test", "train", "all"), default="test", help="whose speech (%(default)s)"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["probe"]:
        return command.run(_probe, probe_parser(), argv[1:])
    return command.run(_train, parser(), argv)


def _corpora(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The settings of each corpus, with ``folder`` of its manifest and ``root`` of its audio."""
    named = [command.read_corpus(args.params, name) for name in args.corpus or [None]]
    for what in ("manifest", "audio"):
        given = getattr(args, what)
        if given and len(given) != len(named):
            raise InputError(f"--{what}: {len(given)} folders for {len(named)} corpora; give one for each")
    for i, corpus in enumerate(named):
        corpus["folder"] = args.manifest[i] if args.manifest else Path("data_manifest", corpus["name"])
        audio = args.audio[i] if args.audio else None
        corpus["root"] = Path(command.pick(audio, corpus, "audio", default=f"data/{corpus['name']}/audio"))
    return named


def _speech(corpora: list[dict[str, Any]], split: str, shortest_s: float) -> list[Any]:
    from vap_pipeline.artefacts import manifest
    from vap_pipeline.pretrain.speech import stretches

    found = []
    for corpus in corpora:
        listed = manifest.read(corpus["folder"])
        found += stretches(listed, corpus["root"], listed.select(split), shortest_s)
    return found


def _train(args: argparse.Namespace) -> None:
    corpora = _corpora(args)
    folder = args.out or f"checkpoints/{_name(corpora)}/cpc"

    def how() -> str:
        from vap_pipeline.runtime.resume import how_to_go_on

        return how_to_go_on(folder)

    with ending_on_request(how) as requests:
        _pretrain(args, corpora, folder, requests)


def _name(corpora: list[dict[str, Any]]) -> str:
    return "+".join(corpus["name"] for corpus in corpora)


def _pretrain(
    args: argparse.Namespace, corpora: list[dict[str, Any]], folder: str, requests: Requests
) -> None:
    types = {name: type_ for name, (type_, *_) in (SETTINGS | SIZES).items()}
    given = command.section("pretrain", types, args, corpora[0])

    import torch
    from accelerate import PartialState

    from vap_pipeline.encoders import cpc_weights
    from vap_pipeline.encoders.cpc import Config
    from vap_pipeline.io import files
    from vap_pipeline.pretrain.card import card
    from vap_pipeline.pretrain.loop import PretrainConfig, pretrain
    from vap_pipeline.pretrain.speech import digest

    requests.act_at_once()
    sizes = {key: given.pop(name) for name, (_, key, _) in SIZES.items() if name in given}
    config = PretrainConfig(**given)
    if args.init and sizes:
        raise InputError(f"--init: the sizes are those of {args.init}; leave out --width, --dim and the like")
    if args.init:
        encoder, start = cpc_weights.load(args.init, download=args.download)
    else:
        try:
            encoder = cpc_weights.random(config.seed, Config(**sizes))
        except ValueError as error:
            raise InputError(f"--width, --dim, --levels, --recurrent: {error}") from error
        start = {"weights": f"random-seed{config.seed}"}
    name = _name(corpora)
    training, held_back = (_speech(corpora, split, SHORTEST_S) for split in ("train", "test"))
    if not training:
        raise InputError(
            f"{name}: nobody speaks for {SHORTEST_S:g} s without a pause in what is for training; "
            "give other conversations"
        )
    settings = {
        "corpus": name,
        "start": start,
        "encoder": asdict(encoder.config),
        "pretrain": asdict(config),
        "data": {"training": digest(training), "held_back": digest(held_back)},
    }
    if args.workers is not None and args.workers < 0:
        raise InputError(f"--workers {args.workers}: give 0 or more")
    workers = args.workers if args.workers is not None else 4 if torch.cuda.is_available() else 0
    progress = pretrain(
        encoder,
        training,
        held_back,
        config,
        settings,
        folder,
        resumed=args.resume,
        workers=workers,
        track=True,
    )
    if PartialState().is_main_process:
        try:
            measured = _measure({f"this, {encoder.dim} wide": encoder.cpu()}, held_back, config.seed)
        except InputError as error:  # no reason to lose a night's work
            measured = f"not measured: {error}\n"
        files.write(f"{folder}/card.md", card(settings, progress, training, held_back, measured).encode())
        log.info("%s%s", measured, folder)


def _probe(args: argparse.Namespace) -> None:
    command.check_seed("--seed", args.seed)
    corpora = _corpora(args)

    from vap_pipeline.encoders import cpc_weights

    encoders = {name: cpc_weights.load(name, args.seed)[0] for name in args.weights}
    command.show(_measure(encoders, _speech(corpora, args.split, SHORTEST_S), args.seed))


def _measure(encoders: dict[str, Any], held_back: list[Any], seed: int) -> str:
    """The table of the probes, with random weights of each shape and log-mel features beside ``encoders``."""
    from vap_pipeline.encoders import cpc_weights
    from vap_pipeline.encoders.cpc import Config
    from vap_pipeline.pretrain.probe import log_mel, probe, table

    configs = dict.fromkeys(encoder.config for encoder in encoders.values())
    others = {_shape(config): cpc_weights.random(seed, config) for config in configs or [Config()]}
    return table(probe({**encoders, **others, "log-mel": log_mel}, held_back, seed))


def _shape(config: Any) -> str:
    levels = f" x {config.nLevelsGRU}" if config.nLevelsGRU > 1 else ""
    return f"random, {config.hiddenEncoder} and {config.arMode} {config.hiddenGar}{levels}"


if __name__ == "__main__":
    sys.exit(main())

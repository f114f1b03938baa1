"""``vap-predict``: a recording or live audio in, turn-taking predictions out."""

import argparse
import sys
from pathlib import Path

from vap_pipeline.io.errors import InputError
from vap_pipeline.runtime import command

DESCRIPTION = """\
Predict who speaks next in two-channel recordings, with a trained model.

MODEL      folder of a checkpoint that vap-train wrote, a published file of the stereo model (.pt, .ckpt), or
           sample-discrete, a small model in the package, trained on synthetic calls alone
RECORDING  audio files with a channel for each speaker, or folders of them; - reads standard input (--live)

Voice activity is found in each channel, unless --manifest names a corpus's. Writes for each recording
  OUT/NAME.parquet         a row per frame of 10 ms: conversation; time_s, the frame's start; va_a and va_b,
                           voice activity; p_a and p_b, who speaks next; and, if the model defines them,
                           p_bc_a and p_bc_b, who is about to give a backchannel, p_now_a to p_future_b,
                           and entropy
  OUT/NAME.events.parquet  with --events: the predicted shifts, holds and backchannels
"""

EXAMPLES = """\
examples:
  vap-predict sample-discrete call.wav --out predictions --page
  vap-predict checkpoints/calls/discrete/fold-0 calls/ --manifest data_manifest/calls --csv --events
  ffmpeg -i call.mp3 -f s16le - | vap-predict MODEL - --live --rate 44100
  vap-predict MODEL - --live --device default
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        "vap-predict",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="MODEL")
    add("recordings", nargs="+", metavar="RECORDING")
    add("--out", type=Path, metavar="DIR", help="folder for the predictions (default: predictions)")
    add("--weights", metavar="FILE", help="the encoder's weights (default: those that the checkpoint names)")
    add(
        "--frame-rate",
        type=float,
        metavar="HZ",
        help="of a published file, if its name and shapes do not tell",
    )
    add("--manifest", type=Path, metavar="DIR", help="manifest with the recordings' voice activity")
    add("--mono", action="store_true", help="take recordings of one channel: the other speaker is silent")
    add("--context", type=float, metavar="S", help="seconds of the model's window (as in training)")
    add(
        "--level",
        choices=("whole", "running"),
        default="whole",
        help="divide channels by their peak over the recording, or by that so far, as live (%(default)s)",
    )
    group = parser.add_argument_group("what else to write")
    add = group.add_argument
    add("--csv", action="store_true", help="also write CSV files")
    add("--events", action="store_true", help="write the predicted shifts, holds and backchannels")
    add(
        "--export",
        nargs="+",
        default=[],
        metavar="FORMAT",
        choices=("textgrid", "eaf", "audacity", "json"),
        help="speech and events for other programs: textgrid, eaf, audacity, json",
    )
    add(
        "--figure",
        nargs="*",
        type=float,
        metavar="S",
        help="draw a stretch as PNG: START END in seconds (the first half minute)",
    )
    add("--page", action="store_true", help="an HTML page to look at and listen to, which needs no network")
    group = parser.add_argument_group("live: one line of JSON a frame on standard output")
    add = group.add_argument
    add("--live", action="store_true", help="predict while the audio comes, from - (WAV or raw 16-bit PCM)")
    add("--rate", type=int, metavar="HZ", help="samples a second of raw PCM, or of the microphone (16000)")
    add("--channels", type=int, choices=(1, 2), help="channels of raw PCM (2)")
    add("--device", metavar="NAME", help="listen to an audio device; needs the extra [live]")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return command.run(body, parser(), argv)


def body(args: argparse.Namespace) -> None:
    """Predict, or listen."""
    if args.figure and len(args.figure) != 2:
        raise InputError("--figure: give START and END in seconds, or nothing for the first half minute")
    if args.live != (args.recordings == ["-"]):
        raise InputError("live audio is read from -; give --live and - together")
    if args.live:
        from vap_pipeline.predict.listen import listen

        listen(args)
        return

    from vap_pipeline.predict.command import predict_all

    if failed := predict_all(args):
        raise InputError(f"{failed} of the recordings could not be predicted; see above")


if __name__ == "__main__":
    sys.exit(main())

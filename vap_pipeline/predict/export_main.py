"""``vap-export``: a trained model as one ONNX file."""

import argparse
import logging
import sys

from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError
from vap_pipeline.runtime import command

DESCRIPTION = """\
Export a trained model as one ONNX file, encoder included, for live use without torch.

A call takes a piece of audio, voice activity and the state, and returns the predictions of a piece and the
state after it. examples/onnx_live.py shows it, docs/onnx.md explains it. Needs the extra [onnx].
"""

EXAMPLES = """\
examples:
  vap-export checkpoints/sample/discrete/fold-0 --out model.onnx
  vap-export checkpoints/sample/discrete/fold-0 --out model-int8.onnx --int8
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        "vap-export",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder of a checkpoint that vap-train wrote")
    add("--out", required=True, metavar="FILE", help="the ONNX file to write")
    add("--weights", metavar="FILE", help="the encoder's weights (default: those that the checkpoint names)")
    add("--piece", type=float, default=0.02, metavar="S", help="seconds of audio in a call (%(default)s)")
    add("--context", type=float, metavar="S", help="seconds of the model's window (as in training)")
    add("--int8", action="store_true", help="quantise weights to 8 bits; docs/onnx.md has what that costs")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return command.run(body, parser(), argv)


def body(args: argparse.Namespace) -> None:
    """Export, and write the file."""
    from vap_pipeline.predict.export import export, quantised
    from vap_pipeline.predict.loading import load
    from vap_pipeline.predict.predictor import Predictor

    predictor = load(args.model, args.weights)
    if not isinstance(predictor, Predictor):
        raise InputError(f"{args.model}: a stereo model cannot be exported yet; give a mono one")
    model = export(predictor, args.piece, args.context)
    content = (quantised(model) if args.int8 else model).SerializeToString()
    files.write(args.out, content)
    logging.getLogger(__name__).info("%s: %.1f MB", args.out, len(content) / 1e6)


if __name__ == "__main__":
    sys.exit(main())

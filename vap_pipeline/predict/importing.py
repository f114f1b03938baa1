"""``vap-import``: make a checkpoint of ours from a published file of the stereo model."""

import argparse
import logging
import sys

from vap_pipeline.runtime import command

DESCRIPTION = """\
Make a checkpoint from a published file of the stereo model, .pt or Lightning's .ckpt.

writes  OUT/model.safetensors, config.json   the model
        OUT/encoder.pt                       the CPC encoder, if the file holds one; otherwise the model names
                                             the official checkpoint
"""

log = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        "vap-import",
        description=DESCRIPTION,
        epilog="example: vap-import VAP_50hz.pt --out checkpoints/published/stereo",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the checkpoint")
    parser.add_argument(
        "--frame-rate", type=float, metavar="HZ", help="frames a second (by the file's name and shapes)"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return command.run(body, parser(), argv)


def body(args: argparse.Namespace) -> None:
    """Read the file and write the checkpoint."""
    from pathlib import Path

    from vap_pipeline.encoders import cpc_weights
    from vap_pipeline.io import files
    from vap_pipeline.models import checkpoint, published

    read = published.load(args.file, args.frame_rate)
    if read.encoder is not None:
        cpc_weights.save(read.encoder, f"{args.out}/encoder.pt")
        described = {"weights": "encoder.pt", "sha256": files.sha256(Path(args.out, "encoder.pt"))}
    else:
        described = cpc_weights.described(cpc_weights.PUBLISHED)
    store = {"dim": read.model.config.input_dim, "encoder": {"name": "cpc", **described}}
    checkpoint.save(read.model, {"imported_from": Path(args.file).name, "store": store}, args.out)
    log.info("%s: %s", args.out, read.rate_from)
    if read.unused:
        log.info("not part of the model, left out: %s", ", ".join(read.unused))


if __name__ == "__main__":
    sys.exit(main())

"""What every console script shares: one-line errors, exit statuses, and output that cannot be written."""

import argparse
import io
import logging
import os
import sys
from collections.abc import Callable

from vap_pipeline.io.errors import InputError


def note_one_process(processes: int) -> None:
    """Say how to start several processes where ``accelerate launch`` started one."""
    if processes == 1 and os.environ.keys() >= {"ACCELERATE_MIXED_PRECISION", "MASTER_PORT"}:
        logging.getLogger(__name__).warning(
            "accelerate launch has started one process; to start several on CPUs, add --multi_gpu"
        )


def count(text: str) -> int:
    """Parse a flag's whole number from 0 on, as an argparse ``type``."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: give a whole number from 0 on")
    return int(text)


def show(text: str) -> None:
    """Print a result on standard output.

    Raises:
        InputError: it cannot be written.
        BrokenPipeError: the reader of a pipe has closed it.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not every terminal can write ± and –
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(
            f"standard output: cannot be written ({error.strerror}); send it to another place"
        ) from error


def run(
    body: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser, argv: list[str] | None
) -> int:
    """Parse the command line, run ``body``, and return the exit status.

    An :class:`InputError`, or an ``OSError`` of a file, becomes one line on standard error and status 2.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    args = parser.parse_args(argv)
    try:
        body(args)
    except InputError as error:
        # From a DataLoader's worker it comes with that process's traceback; its own words are the end.
        message = "error: " + str(error).rpartition("InputError: ")[2].strip()
        print(f"{parser.prog}: {message}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at its end
        return 141
    except OSError as error:
        if error.filename is None:
            raise
        message = f"error: {error.filename}: {error.strerror}; check the path and its permissions"
        print(f"{parser.prog}: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; start the same command again to continue", file=sys.stderr)
        return 130
    return 0

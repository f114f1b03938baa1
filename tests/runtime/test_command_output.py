"""What every command shares: standard output that cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

SHOW = """
import argparse, contextlib, logging, os, sys
from vap_pipeline.runtime import command
def body(args):
    logging.info("a word")
    opened = open("kept", "w")
    command.show("0.8 ± 0.1")
    with contextlib.suppress(OSError):
        os.write(2, b"what a library says")
    opened.write("a result")
sys.exit(command.run(body, argparse.ArgumentParser("vap-show"), []))
"""


def show(tmp_path: Path, redirections: str, **environment: str) -> subprocess.CompletedProcess:
    line = f'exec "$0" -c "$1" {redirections}'
    return subprocess.run(
        ["bash", "-c", line, sys.executable, SHOW],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} | environment,
    )


def test_a_full_standard_output_is_one_line(tmp_path):
    done = show(tmp_path, ">/dev/full")
    assert done.returncode == 2
    assert done.stderr == (
        "a word\nvap-show: error: standard output: cannot be written (No space left on device); "
        "send it to another place\n"
    )


def test_a_reader_that_has_gone(tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", SHOW], stdout=write, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "a word\n")


def test_a_terminal_without_such_letters(tmp_path):
    done = show(tmp_path, "", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "0.8 ? 0.1\n")

"""What every command shares: standard files that cannot be written, and settings without end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vap_pipeline.io.errors import InputError
from vap_pipeline.runtime import command

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
        "a word\nvap-show: error: standard output: cannot be written (No space left on device); mend that\n"
    )


@pytest.mark.parametrize("redirections", ["2>/dev/full", "2>&-", "<&- 2>&-"])
def test_a_result_needs_no_standard_error(tmp_path, redirections):
    done = show(tmp_path, redirections)
    assert (done.returncode, done.stdout) == (0, "0.8 ± 0.1\n")
    assert (tmp_path / "kept").read_text() == "a result"  # and no word of what stderr would have got


def test_all_standard_files_closed(tmp_path):
    assert show(tmp_path, "<&- >&- 2>&-").returncode == 0
    assert (tmp_path / "kept").read_text() == "a result"


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


BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
)


@pytest.mark.parametrize(
    "settings",
    [BOMB + "\ncorpus: {name: tiny, models: *a11}", "corpus: &c {name: tiny, train: {epochs: *c}}"],
)
def test_settings_without_end(tmp_path, settings):
    path = tmp_path / "params.yaml"
    path.write_text(settings)
    with pytest.raises(InputError, match=r"params.yaml: its anchors repeat without end"):
        command.read_corpus(path)


@pytest.mark.parametrize(
    "settings",
    [
        "x: !!timestamp foo",
        "x: !!bool foo",
        "x: !!int ''",
        "x: " + "1:" * 300 + "1.0",
        "x: " + "1:" * 200_000,
    ],
)
def test_settings_that_make_the_parser_stumble(tmp_path, settings):
    path = tmp_path / "params.yaml"
    path.write_text(settings)
    with pytest.raises(InputError, match=r"params.yaml: not readable as YAML"):
        command.read_corpus(path)

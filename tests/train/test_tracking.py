"""The log in Weights & Biases: no prompt, one run through --resume, and no server that holds up a run."""

import os
import pty
import socket
import subprocess
import sys
import time

import pytest
from accelerate import Accelerator

import wandb
from vap_pipeline.runtime import tracking

SETTINGS = {"corpus": "tiny", "fold": 3, "model": {"model": "discrete"}, "train": {"learning_rate": 0.125}}
NAME = "tiny/discrete/fold-3"
ROW = {"step": 10, "epoch": 0.5, "training_loss": 2.5, "gradient_norm": 1.5}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home without a key, and wandb's folders in it."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("WANDB_SERVICE", raising=False)
    monkeypatch.chdir(tmp_path)
    wandb.teardown()  # an earlier test's, whose folder is another
    yield tmp_path
    wandb.teardown()


@pytest.fixture
def checkpoint(home):
    folder = home / "checkpoint"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights of the best model")
    (folder / "config.json").write_text("{}")
    return folder


def logged(home):
    """The bytes of the one run that wandb has written."""
    runs = list(home.glob("wandb/offline-run-*/*.wandb"))
    assert len(runs) == 1
    return runs[0].read_bytes()


def log(checkpoint, run_id="run1"):
    """Log as a run does; return the seconds until its start, and at its end."""
    accelerator = Accelerator(cpu=True, log_with="wandb")
    begin = time.monotonic()
    tracking.start(accelerator, SETTINGS, NAME, run_id)
    started = time.monotonic()
    accelerator.log(ROW, step=ROW["step"])
    tracking.log_checkpoint(accelerator, str(checkpoint))
    ending = time.monotonic()
    tracking.finish(accelerator)
    return started - begin, time.monotonic() - ending


def test_without_a_key_offline_and_silently(home, checkpoint, capfd):
    log(checkpoint)
    assert capfd.readouterr() == ("", "")
    run = logged(home)
    for word in (b"training_loss", b"gradient_norm", b"learning_rate", b"0.125", b"tiny/discrete/fold-3"):
        assert word in run
    assert b"tiny-discrete-fold-3" in run and b"model.safetensors" in run  # the artefact


def test_no_prompt_even_in_a_terminal(home):
    controller, terminal = pty.openpty()
    code = f"""
from accelerate import Accelerator
from vap_pipeline.runtime import tracking
accelerator = Accelerator(cpu=True, log_with="wandb")
tracking.start(accelerator, {SETTINGS}, {NAME!r}, "run2")
accelerator.log({ROW})
tracking.finish(accelerator)
"""
    streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    subprocess.run([sys.executable, "-c", code], **streams, timeout=60, check=True)
    os.set_blocking(controller, False)
    with pytest.raises(BlockingIOError):  # nothing was written to the terminal
        os.read(controller, 1)
    assert b"training_loss" in logged(home)


@pytest.mark.parametrize("answer", ["nothing", "refused"])
def test_a_server_that_does_not_answer_costs_its_timeout_and_loses_nothing(
    home, checkpoint, monkeypatch, caplog, answer
):
    caplog.set_level("INFO")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if answer == "nothing":
            server.listen(100)  # accepts connections and never answers
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
        at_start, at_end = log(checkpoint)
        assert at_start < 20 and at_end < 20
    run = logged(home)
    assert b"training_loss" in run and b"model.safetensors" in run
    assert "`wandb sync` sends it" in caplog.text


def places():
    """Where wandb writes, for a child of a server that was started elsewhere."""
    return {name: os.environ[name] for name in os.environ if name == "HOME" or name.startswith("WANDB_")}


def test_disabled_logs_nothing(arguments, start, home):
    child, errors = start(arguments(home / "out", "--epochs", 1), **(places() | {"WANDB_MODE": "disabled"}))
    child.join()
    assert child.exitcode == 0, errors.read_text()
    assert not list(home.glob("wandb*"))


def test_the_command_logs_its_history_as_one_run_through_resume(arguments, start, home):
    for flags in (["--epochs", 1], ["--epochs", 2, "--resume"]):
        child, errors = start(arguments(home / "out", *flags), **(places() | {"WANDB_MODE": "offline"}))
        child.join()
        assert child.exitcode == 0, errors.read_text()
        assert "wandb" not in errors.read_text()
    runs = list(home.glob("wandb/offline-run-*/*.wandb"))
    assert len(runs) == 2 and len({run.name for run in runs}) == 1  # the name is the run's id
    content = runs[0].read_bytes()
    for word in (b"training_loss", b"f1_hold_shift", b"validation_loss", b"learning_rate", b"gradient_norm"):
        assert word in content
    assert b"model.safetensors" in content


def test_training_with_a_server_that_does_not_answer(arguments, start, home):
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        keyed = {"WANDB_MODE": "online", "WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": url}
        child, errors = start(arguments(home / "out"), **(places() | keyed | {"WANDB_INIT_TIMEOUT": "2"}))
        child.join(60)
        assert child.exitcode == 0, errors.read_text()
    assert "`wandb sync` sends it" in errors.read_text()
    run = logged(home)
    assert b"f1_hold_shift" in run and b"model.safetensors" in run

"""The log in Weights & Biases: kept without a key, without a server, and without holding up the run."""

import os
import pty
import socket
import subprocess
import sys
import time

import pytest

from vap_pipeline.runtime.tracking import Tracker

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
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def checkpoint(home):
    folder = home / "checkpoint"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights of the best model")
    (folder / "config.json").write_text("{}")
    return folder


def logged(home):
    """The bytes of the one run that wandb has written so far."""
    runs = list(home.glob("wandb/offline-run-*/*.wandb"))
    assert len(runs) < 2
    return b"".join(run.read_bytes() for run in runs)


def wait_for(home, *words):
    """Until they stand in the log, which the log's own process may end after the run."""
    end = time.monotonic() + 60
    while not all(word in logged(home) for word in words) and time.monotonic() < end:
        time.sleep(0.1)
    run = logged(home)
    assert all(word in run for word in words)


def log(checkpoint, run_id="run1"):
    """Log as a run does; return the time that the run spent on it before its end, and at its end."""
    begin = time.monotonic()
    with Tracker(SETTINGS, NAME, run_id, enabled=True) as tracker:
        for _ in range(1000):  # 80 kB: more than a pipe holds
            tracker.log(ROW)
        tracker.complete(str(checkpoint))
        during = time.monotonic() - begin
    return during, time.monotonic() - begin - during


def test_without_a_key_offline_and_silently(home, checkpoint, capfd):
    during, _ = log(checkpoint)
    assert during < 1
    assert capfd.readouterr() == ("", "")
    run = logged(home)
    for word in (b"training_loss", b"gradient_norm", b"learning_rate", b"0.125", b"tiny/discrete/fold-3"):
        assert word in run
    assert b"tiny-discrete-fold-3" in run and b"model.safetensors" in run  # the artefact


def test_no_prompt_even_in_a_terminal(home):
    controller, terminal = pty.openpty()
    code = f"""
from vap_pipeline.runtime.tracking import Tracker
with Tracker({SETTINGS}, {NAME!r}, "run2", enabled=True) as tracker:
    tracker.log({ROW})
"""
    streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    subprocess.run([sys.executable, "-c", code], **streams, timeout=60, check=True)
    os.set_blocking(controller, False)
    with pytest.raises(BlockingIOError):  # nothing was said to the terminal
        os.read(controller, 1)
    wait_for(home, b"training_loss")  # the upload goes on behind a run that was not completed


@pytest.mark.parametrize("answer", ["nothing", "refused"])
def test_a_server_that_does_not_answer_holds_up_nothing(home, checkpoint, monkeypatch, capfd, answer):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if answer == "nothing":
            server.listen(100)  # connections are accepted, and no more
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
        during, at_end = log(checkpoint)
        assert during < 1 and at_end < 25
        wait_for(home, b"training_loss", b"model.safetensors")
    assert "wandb sync" in capfd.readouterr().err


def test_a_log_that_dies_is_no_fault_of_the_run(home, checkpoint):
    with Tracker(SETTINGS, NAME, "run3", enabled=True) as tracker:
        tracker.process.kill()
        tracker.process.wait()
        for _ in range(10):
            tracker.log(ROW)
        tracker.complete(str(checkpoint))


@pytest.mark.parametrize(("mode", "enabled"), [("disabled", True), ("offline", False)])
def test_disabled_starts_no_process(home, monkeypatch, mode, enabled):
    monkeypatch.setenv("WANDB_MODE", mode)
    with Tracker(SETTINGS, NAME, "run4", enabled) as tracker:
        tracker.log(ROW)
    assert tracker.process is None and not list(home.iterdir())


def test_the_command_logs_its_history(arguments, start, home):
    child, errors = start(arguments(home / "out"), WANDB_MODE="offline", HOME=str(home))
    child.join()
    assert child.exitcode == 0, errors.read_text()
    run = logged(home)
    for word in (b"training_loss", b"f1_hold_shift", b"validation_loss", b"learning_rate", b"gradient_norm"):
        assert word in run
    assert "wandb" not in errors.read_text()


def test_training_does_not_wait_for_a_server_that_does_not_answer(arguments, start, home):
    """It has ended before the log's process gives the server up; then the log is kept offline, whole."""
    with socket.create_server(
        ("127.0.0.1", 0), backlog=100
    ) as server:  # connections are accepted, and no more
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        keyed = {"WANDB_MODE": "online", "WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": url}
        places = {
            name: os.environ[name] for name in os.environ if name == "HOME" or name.startswith("WANDB_")
        }
        child, errors = start(arguments(home / "out"), **(places | keyed | {"WANDB_INIT_TIMEOUT": "12"}))
        child.join()
        assert child.exitcode == 0
        assert "wandb sync" not in errors.read_text() and not list(home.glob("wandb/offline-run-*"))
        wait_for(home, b"f1_hold_shift", b"model.safetensors")
    assert "wandb sync" in errors.read_text()

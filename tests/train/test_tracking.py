"""The log in Weights & Biases: no prompt, one run through --resume, and no server that holds up a run."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import wandb
from accelerate import Accelerator

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


def log(checkpoint, meanwhile=None):
    """Log as a run does; return the seconds until its start, and at its end."""
    accelerator = Accelerator(cpu=True, log_with="wandb")
    begin = time.monotonic()
    tracking.start(accelerator, SETTINGS, NAME, "run1")
    started = time.monotonic()
    tracking.log_row(accelerator, ROW)
    if meanwhile:
        meanwhile()
    tracking.log_row(accelerator, ROW | {"step": 20})
    ending = time.monotonic()
    tracking.finish(accelerator, str(checkpoint))
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
tracking.log_row(accelerator, {ROW})
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


class Server(BaseHTTPRequestHandler):
    """As much of a server of Weights & Biases as starts a run, until ``silent`` is set."""

    silent = threading.Event()

    def do_POST(self):
        query = self.rfile.read(int(self.headers["Content-Length"]))
        if self.silent.is_set():
            time.sleep(60)
        bucket = {"id": "b", "name": "run1", "displayName": "run1", "config": "{}"}
        bucket["project"] = {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}}
        upserted = {"upsertBucket": {"bucket": bucket, "inserted": True}}
        answer = json.dumps({"data": upserted if b"upsertBucket" in query else {"model": None}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args):
        pass


@pytest.mark.slow
def test_a_server_that_falls_silent_costs_half_a_minute_at_the_end(home, checkpoint, monkeypatch, caplog):
    caplog.set_level("INFO")
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        _, at_end = log(checkpoint, meanwhile=Server.silent.set)
        server.shutdown()
    assert "/runs/run1" in caplog.text  # it was online
    assert at_end < 35
    assert f"the checkpoint in {checkpoint} is not in the log" in caplog.text
    (run,) = home.glob("wandb/run-*/*.wandb")  # what `wandb sync` sends
    assert run.read_bytes().count(b"training_loss") >= 2


def test_a_log_process_that_dies_is_no_fault_of_the_run(home, checkpoint, caplog):
    caplog.set_level("INFO")

    def kill():
        (service,) = (
            int(stat.parent.name)
            for stat in Path("/proc").glob("[0-9]*/stat")
            if (fields := stat.read_text().rpartition(")"))[0].partition("(")[2].startswith("wandb-core")
            and int(fields[2].split()[1]) == os.getpid()
        )
        os.kill(service, signal.SIGKILL)
        os.waitpid(service, 0)

    log(checkpoint, meanwhile=kill)
    assert caplog.text.count("nothing more is logged") == 1


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

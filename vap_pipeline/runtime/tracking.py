"""Weights & Biases, at arm's length: a process of its own keeps the log, so that no server can hold up a run.

The training process sends lines of JSON down a pipe. At the end it waits a moment for the upload, but not for
a server that has not answered yet: then the other process ends by itself. What could not be sent lies in
wandb's folder, from where ``wandb sync`` sends it. Run as a script, this module is that other process, and
needs nothing of the package.
"""

import contextlib
import json
import os
import queue
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

PROJECT = "vap-pipeline"
INIT_TIMEOUT_S = 15.0  # for the server's first answer, where WANDB_INIT_TIMEOUT says nothing; then offline
FINISH_TIMEOUT_S = 30  # for the upload when a run is complete
STOP_TIMEOUT_S = 3  # when it is stopped; the upload goes on behind it
ANSWER_TIMEOUT_S = 1  # at the end, for a server that was asked and has not answered
ASKED, ANSWERED = b"?", b"!"  # what the other process says of the server


class Tracker:
    """The training process's end, used as a context. Whatever happens to the log, the run goes on.

    Args:
        settings: of the run, its configuration in the log.
        name: of the run, such as ``sample/discrete/fold-0``; all but the last part is its group.
        run_id: of the log, which a resumed run goes on with.
        enabled: without, and with ``WANDB_MODE=disabled``, nothing is logged.
    """

    def __init__(self, settings: dict[str, Any], name: str, run_id: str, enabled: bool) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.timeout_s = STOP_TIMEOUT_S
        if enabled and os.environ.get("WANDB_MODE") != "disabled":
            with contextlib.suppress(OSError):
                self.process = subprocess.Popen(
                    [sys.executable, "-P", __file__],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,  # Ctrl-C is for the training process, which then ends this one
                )
        self._send({"settings": settings, "name": name, "id": run_id})

    def log(self, row: dict[str, float]) -> None:
        """Log a row of the history."""
        self._send({"row": row})

    def complete(self, folder: str) -> None:
        """Say that the run is complete, and the checkpoint in ``folder`` its artefact."""
        self._send({"complete": str(Path(folder).resolve())})
        self.timeout_s = FINISH_TIMEOUT_S

    def _send(self, message: dict[str, Any]) -> None:
        if self.process and self.process.stdin:
            with contextlib.suppress(OSError):  # it died: the run goes on without a log
                self.process.stdin.write(json.dumps(message).encode() + b"\n")
                self.process.stdin.flush()

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process and self.process.stdin and self.process.stdout:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
            self._wait(self.process.stdout.fileno())
            self.process.stdout.close()

    def _wait(self, said: int) -> None:
        """Until the other process ends, time is over, or it shows that only the server is waited for."""
        end, last = time.monotonic() + self.timeout_s, b""
        while (left := end - time.monotonic()) > 0:
            left = min(left, ANSWER_TIMEOUT_S) if last == ASKED else left
            if not select.select([said], [], [], left)[0] or not (last := os.read(said, 64)[-1:]):
                return


def main() -> None:
    """The other process: log what comes down the pipe until it closes."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends when the training process does
    said = os.dup(sys.stdout.fileno())  # of which the processes that wandb starts inherit nothing
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def receive() -> None:  # in a thread: the pipe is emptied also while the server keeps us waiting
        for line in sys.stdin.buffer:
            lines.put(line)
        lines.put(b"")

    threading.Thread(target=receive, daemon=True).start()
    first = json.loads(lines.get() or b"null")
    if first is None:
        return
    run = _begin(first["settings"], first["name"], first["id"], said)
    exit_code = 1
    for line in iter(lines.get, b""):
        message = json.loads(line)
        if "row" in message:
            run.log(message["row"], step=message["row"]["step"])
        else:
            run.log_artifact(_artefact(Path(message["complete"]), run.name))
            exit_code = 0
    signal.alarm(FINISH_TIMEOUT_S)  # a server that does not answer now never holds this process
    run.finish(exit_code)


def _tell(said: int, what: bytes) -> None:
    with contextlib.suppress(OSError):  # the training process has ended
        os.write(said, what)


def _say(message: str) -> None:
    print(f"Weights & Biases: {' '.join(message.split())}", file=sys.stderr, flush=True)


def _begin(settings: dict[str, Any], name: str, run_id: str, said: int) -> Any:
    import wandb

    def begin(mode: Literal["offline"] | None) -> Any:
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run_id,
            resume="allow",
            name=name,
            group=name.rpartition("/")[0],
            config=settings,
            mode=mode,  # None: as WANDB_MODE says, else online
            settings=wandb.Settings(
                console="off",
                init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", INIT_TIMEOUT_S)),
            ),
        )

    if os.environ.get("WANDB_MODE") != "offline":
        _tell(said, ASKED)
    try:
        run = begin(None)
    except Exception as error:
        _tell(said, ANSWERED)  # in its way: what follows asks nobody
        if not isinstance(error, wandb.errors.UsageError):  # which is: no key, and that is no fault
            _say(f"{error}; the log is kept in {os.environ.get('WANDB_DIR', 'wandb')}, `wandb sync` sends it")
        wandb.teardown()  # it would go on trying
        run = begin("offline")
    _tell(said, ANSWERED)
    if not run.offline:
        _say(run.url)
    return run


def _artefact(folder: Path, name: str) -> Any:
    import wandb

    artefact = wandb.Artifact(re.sub(r"[^\w.-]+", "-", name), type="model")
    for file in ("model.safetensors", "config.json", "encoder.safetensors"):
        if (folder / file).is_file():
            artefact.add_file(str(folder / file))
    return artefact


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        _say(f"{error}; nothing more is logged")
    os._exit(0)  # all is written; wandb's own end would wait for a server that does not answer

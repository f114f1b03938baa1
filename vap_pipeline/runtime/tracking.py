"""Weights & Biases, through Accelerate's tracker: no prompt, and no failure that ends or long delays a run.

Without an API key the log is kept offline, silently. A server that does not answer costs ``INIT_TIMEOUT_S``
at the start, and at the end some 20 s (for the artefact) and ``FINISH_TIMEOUT_S``. What could not be sent is
in wandb's folder, for ``wandb sync``. All functions are for the main process; on the others they do nothing.
"""

import contextlib
import logging
import os
import re
from pathlib import Path
from typing import Any

from accelerate import Accelerator

PROJECT = "vap-pipeline"
INIT_TIMEOUT_S = 15.0  # until the log goes offline, where WANDB_INIT_TIMEOUT does not say otherwise
FINISH_TIMEOUT_S = 10.0  # for the upload at the end
FILES = ("model.safetensors", "config.json", "encoder.safetensors")  # those of a checkpoint, as an artefact

log = logging.getLogger(__name__)


def is_enabled() -> bool:
    """Whether anything is logged: ``WANDB_MODE=disabled`` turns it off."""
    return os.environ.get("WANDB_MODE") != "disabled"


def start(accelerator: Accelerator, settings: dict[str, Any], name: str, run_id: str) -> None:
    """Start the log of a run.

    Args:
        accelerator: made with ``log_with="wandb"``.
        settings: of the run, its configuration in the log.
        name: of the run, such as ``sample/discrete/fold-0``; all but its last part is the run's group.
        run_id: of the log, which a resumed run continues.
    """
    # Silent, wandb never prompts. Its error reports would delay the end by 10 s if there is no network.
    os.environ |= {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    import wandb

    timeout_s = float(os.environ.get("WANDB_INIT_TIMEOUT", INIT_TIMEOUT_S))
    limits = wandb.Settings(console="off", init_timeout=timeout_s, finish_timeout=FINISH_TIMEOUT_S)
    options = {"id": run_id, "resume": "allow", "name": name, "group": name.rpartition("/")[0]}
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    for mode in None, "offline":  # None: as WANDB_MODE says, else online
        try:
            accelerator.init_trackers(
                project, settings, {"wandb": options | {"mode": mode, "settings": limits}}
            )
            if url := accelerator.get_tracker("wandb", unwrap=True).url:
                log.info("Weights & Biases: %s", url)
            return
        except Exception as error:
            # A UsageError is a missing key: no fault, unless WANDB_MODE asks for more.
            if "WANDB_MODE" in os.environ or not isinstance(error, wandb.errors.UsageError):
                _say(error, "no log" if mode else "the log is kept offline, and `wandb sync` sends it")
            _end(accelerator)


def log_row(accelerator: Accelerator, row: dict[str, float]) -> None:
    """Log a row of the history, with its ``step``."""
    try:
        accelerator.log(row, step=row["step"])
    except Exception as error:
        _say(error, "nothing more is logged")
        _end(accelerator)


def finish(accelerator: Accelerator, folder: str = "", exit_code: int = 0) -> None:
    """End the log, if there is one, with the checkpoint in ``folder`` as its artefact."""
    if not accelerator.trackers:
        return
    import wandb

    run = accelerator.get_tracker("wandb", unwrap=True)
    try:
        if folder:
            artefact = wandb.Artifact(re.sub(r"[^\w.-]+", "-", run.name), type="model")
            for path in (Path(folder, file) for file in FILES):
                if path.is_file():
                    artefact.add_file(str(path))
            run.log_artifact(artefact)
    except Exception as error:
        _say(error, f"the checkpoint in {folder} is not in the log")
    try:
        run.finish(exit_code)
    except Exception as error:
        _say(error, "the end of the log may be missing")
    _end(accelerator)


def _end(accelerator: Accelerator) -> None:
    """End what wandb runs beside this process; otherwise it would go on trying to reach the server."""
    import wandb

    accelerator.trackers.clear()
    with contextlib.suppress(Exception):  # the process may be dead
        wandb.teardown()


def _say(error: Exception, consequence: str) -> None:
    reason = " ".join(str(error).split()) or type(error).__name__
    log.info("Weights & Biases: %s; %s", reason, consequence)

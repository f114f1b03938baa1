"""Weights & Biases, through Accelerate's tracker: no prompt, and no server that ends or long delays a run.

Without an API key the log is kept offline, silently. A server that does not answer costs ``INIT_TIMEOUT_S``
at the start and ``FINISH_TIMEOUT_S`` at the end; ``wandb sync`` sends later what was kept in wandb's folder.
"""

import logging
import netrc
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from accelerate import Accelerator

PROJECT = "vap-pipeline"
INIT_TIMEOUT_S = 15.0  # until the log goes offline, where WANDB_INIT_TIMEOUT does not say otherwise
FINISH_TIMEOUT_S = 30.0  # for the upload at the end
FILES = ("model.safetensors", "config.json", "encoder.safetensors")  # those of a checkpoint, as an artefact

log = logging.getLogger(__name__)


def is_enabled() -> bool:
    """Whether anything is logged: ``WANDB_MODE=disabled`` turns it off."""
    return os.environ.get("WANDB_MODE") != "disabled"


def start(accelerator: Accelerator, settings: dict[str, Any], name: str, run_id: str) -> None:
    """Start the log of a run on the main process.

    Args:
        accelerator: made with ``log_with="wandb"``.
        settings: of the run, its configuration in the log.
        name: of the run, such as ``sample/discrete/fold-0``; all but its last part is the run's group.
        run_id: of the log, which a resumed run continues.
    """
    import wandb

    timeout_s = float(os.environ.get("WANDB_INIT_TIMEOUT", INIT_TIMEOUT_S))
    options: dict[str, Any] = {
        "id": run_id,
        "resume": "allow",
        "name": name,
        "group": name.rpartition("/")[0],
        "settings": wandb.Settings(
            console="off", silent=True, init_timeout=timeout_s, finish_timeout=FINISH_TIMEOUT_S
        ),
    }

    project = os.environ.get("WANDB_PROJECT", PROJECT)
    needs_key = os.environ.get("WANDB_MODE") is None
    for mode in ["offline"] if needs_key and not _has_key() else [None, "offline"]:
        try:
            accelerator.init_trackers(project, settings, {"wandb": options | {"mode": mode}})
            return
        except Exception as error:  # wandb has many for a server that does not answer
            reason = " ".join(str(error).split())
            if mode is None:
                reason += "; the log is kept offline, and `wandb sync` sends it"
            log.info("Weights & Biases: %s", reason)
            accelerator.trackers.clear()
            wandb.teardown()  # or it goes on trying


def log_checkpoint(accelerator: Accelerator, folder: str) -> None:
    """Log the checkpoint in ``folder`` as the artefact of a complete run."""
    import wandb

    if accelerator.trackers and accelerator.is_main_process:
        run = accelerator.get_tracker("wandb", unwrap=True)
        artefact = wandb.Artifact(re.sub(r"[^\w.-]+", "-", run.name), type="model")
        for path in (Path(folder, file) for file in FILES):
            if path.is_file():
                artefact.add_file(str(path))
        run.log_artifact(artefact)


def finish(accelerator: Accelerator) -> None:
    """End the log, also of a run that was stopped."""
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.trackers.clear()


def _has_key() -> bool:
    """Whether there is an API key. (``wandb.login`` would wait for a server that does not answer.)"""
    import wandb

    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(wandb.Settings().base_url).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False

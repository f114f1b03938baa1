"""vap-train in a process that was forked from a server; see conftest."""

import multiprocessing
import os
import sys

import torch

from vap_pipeline.train.__main__ import main


def vap_train(argv, errors, folder, environment, before=None):
    """Run the command in ``folder`` on one thread and exit with its status."""
    os.chdir(folder)
    os.environ.update({"WANDB_MODE": "disabled"} | environment)
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # as in a process of its own
    with open(errors, "w") as file:  # noqa: PTH123
        os.dup2(file.fileno(), 2)
    if before:
        before()
    sys.exit(main(argv))

"""The corpus that the tests of training share, and vap-train run on it."""

import multiprocessing
from pathlib import Path

import pytest
import runs
from synthetic import make

TINY = ["--width", 16, "--layers", 1, "--heads", 1, "--feedforward", 16, "--batch", 5, "--epochs", 4]
TINY += ["--learning-rate", 0.003, "--checks-per-epoch", 1]  # 12 steps, the last of each epoch with 2 windows

# Children of a server that has imported all they need start in a tenth of a second, and share no thread.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["vap_pipeline.train.loop", "torch._dynamo", "runs"])


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def arguments(corpus):
    """Build the arguments of vap-train for a checkpoint's folder and further flags; the last counts."""

    def build(out, *more, model="discrete"):
        data = ["--corpus", "tiny", "--store", corpus / "features.zarr", "--manifest", corpus / "manifest"]
        return [str(each) for each in ("--model", model, "--fold", 0, *data, "--out", out, *TINY, *more)]

    return build


@pytest.fixture
def start(tmp_path):
    """Start vap-train in a process of its own: gives the process and the file of its standard error."""
    started = []

    def start(argv, before=None, **environment):
        errors = tmp_path / f"stderr-{len(started)}"
        child = processes.Process(
            target=runs.vap_train, args=(argv, str(errors), str(tmp_path), environment, before)
        )
        child.start()
        started.append(child)
        return child, errors

    yield start
    for child in started:
        child.kill()
        child.join()

"""Where the real test data lies, for the tests that use it."""

import os
from pathlib import Path

import pytest

# Tests run side by side: one thread each, before torch is imported. Child processes inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real test data beside the repository; tests that need it are skipped without it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real test data in ../shared/data, which is not part of the repository")
    return folder


@pytest.fixture
def unlogged_on_one_thread(monkeypatch):
    """No log, and one thread: the tests' networks and batches are small."""
    import torch

    monkeypatch.setenv("WANDB_MODE", "disabled")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

"""Several processes, and gradients that accumulate: the same global batches, so the same losses."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
SAME = ["--dropout", 0, "--epochs", 7]  # 21 steps


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return tmp_path_factory.mktemp("alone")


def history(folder):
    return pq.read_table(folder / "history.parquet").to_pylist()


def launched(arguments, out, flags, stop_after=None, before=None, **more):
    """Run the command under ``accelerate launch`` and return its status and what it said.

    Where ``stop_after`` is given, every process gets SIGTERM when that file is there, as from SLURM.
    """
    accelerate = [str(Path(sys.executable).with_name("accelerate")), "launch", *flags, "vap-train"]
    environment = os.environ | {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment |= more
    command = [*accelerate, *arguments(out, *SAME, "--resume")]
    streams = {"stderr": subprocess.PIPE, "text": True}
    run = subprocess.Popen(
        command, cwd=ROOT, env=environment, **streams, start_new_session=True, preexec_fn=before
    )
    if stop_after:
        while not stop_after.exists() and run.poll() is None:
            time.sleep(0.005)
        os.killpg(run.pid, signal.SIGTERM)
    said = run.communicate(timeout=15 if stop_after else 120)[1]
    return run.returncode, said


def as_alone(arguments, start, alone, out):
    """Whether the history in ``out`` is that of one process that takes whole batches and is not stopped."""
    if not (alone / "history.parquet").exists():
        child, errors = start(arguments(alone, *SAME))
        child.join()
        assert child.exitcode == 0, errors.read_text()
    one, other = history(alone), history(out)
    assert len(one) == len(other) == 2 + 7 + 7  # every ten steps; before every check; checks
    for expected, row in zip(one, other, strict=True):
        assert row["step"] == expected["step"]
        for measure in ("training_loss", "validation_loss"):
            assert row[measure] == pytest.approx(expected[measure], abs=1e-4)
        assert row["gradient_norm"] == pytest.approx(expected["gradient_norm"], abs=1e-3)
    return True


def test_accumulated_gradients_give_the_same_losses(arguments, start, alone, tmp_path):
    """The last batch of an epoch has two windows, fewer than the pieces into which it is cut."""
    flags = ["--num_processes", "1", "--gradient_accumulation_steps", "3"]
    status, said = launched(arguments, tmp_path / "out", flags)
    assert status == 0, said
    assert as_alone(arguments, start, alone, tmp_path / "out")


def test_two_processes_stopped_and_resumed_give_the_same_losses(arguments, start, alone, tmp_path):
    flags, out = ["--multi_gpu", "--num_processes", "2", "--main_process_port", "0"], tmp_path / "out"
    status, said = launched(arguments, out, flags, stop_after=out / "history.parquet")
    assert status != 0 and said.count(f"stopped by SIGTERM; its state is in {out}; start the same") == 1
    after = said.split("stopped by SIGTERM")[-1]
    assert "vap_pipeline/train/" not in after  # it is the launcher's own
    status, said = launched(arguments, out, flags, WANDB_MODE="offline", WANDB_DIR=str(tmp_path))
    assert status == 0, said
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 1  # one of the processes logs
    assert "continuing at step" in said and said.count("best at step") == 1  # one of the processes speaks
    assert as_alone(arguments, start, alone, out)


def allow_files_of_40_kb():
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))


def test_a_process_whose_peer_could_not_save_ends_in_one_line(arguments, tmp_path):
    """A limit on the size of files stands for a full disk; only the first process writes."""
    flags = ["--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    status, said = launched(arguments, tmp_path / "out", flags, before=allow_files_of_40_kb)
    errors = [line for line in said.splitlines() if "vap-train: error: " in line]
    assert status != 0 and len(errors) == 2, said
    assert sum("resume.safetensors: cannot be written" in line for line in errors) == 1
    assert (
        sum("another of the processes ended early; its own message is above" in line for line in errors) == 1
    )
    assert "vap_pipeline/train/" not in said  # any traceback is the launcher's own


def test_fast_dev_run_in_two_processes(arguments, tmp_path):
    flags = ["--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    status, said = launched(lambda out, *more: [*arguments(out, *more), "--fast-dev-run"], tmp_path, flags)
    assert status == 0 and "nothing is kept" in said, said


def test_another_precision_is_another_run(arguments, start, alone, tmp_path):
    """One that is complete in float32 is not what was asked for in bfloat16."""
    child, errors = start(arguments(tmp_path, "--epochs", 1))
    child.join()
    assert child.exitcode == 0, errors.read_text()
    flags = ["--num_processes", "1", "--mixed_precision", "bf16"]
    status, said = launched(lambda out, *more: arguments(out, "--epochs", 1, "--resume"), tmp_path, flags)
    assert status == 0 and "(precision was no, is bf16) is kept as" in said, said

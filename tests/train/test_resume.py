"""Runs that are killed, stopped, starved of space or robbed of files, and end as if nothing had been."""

import importlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median

import pytest
import safetensors
import torch

from vap_pipeline.models.checkpoint import load

OUTPUTS = ("model.safetensors", "config.json", "history.parquet")


def outputs(folder):
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """Filled by the first test that asks: what an uninterrupted run writes, and how long it takes."""
    return {}


@pytest.fixture
def reference(uninterrupted, arguments, start, tmp_path):
    if not uninterrupted:
        folder = tmp_path / "reference"
        start([*arguments(folder), "--fast-dev-run"])[0].join()  # starts the server, which takes seconds
        begin = time.monotonic()
        child, errors = start(arguments(folder))
        child.join()
        assert child.exitcode == 0, errors.read_text()
        uninterrupted.update(outputs=outputs(folder), seconds=time.monotonic() - begin)
    return uninterrupted


def finish(start, argv, folder, reference):
    child, errors = start([*argv, "--resume"])
    child.join()
    assert child.exitcode == 0, errors.read_text()
    assert outputs(folder) == reference["outputs"]
    return errors.read_text()


def test_a_second_run_in_the_same_folder_is_refused(arguments, start, tmp_path):
    folder = tmp_path / "shared"
    first, _ = start(arguments(folder, "--epochs", 5000, "--patience", 20000))
    while not (folder / "resume.safetensors").exists():
        time.sleep(0.01)
    second, errors = start(arguments(folder, "--resume"))
    second.join()
    assert second.exitcode == 2 and first.is_alive()
    assert f"{folder}: another process is writing there" in errors.read_text()
    first.terminate()
    first.join()
    assert first.exitcode == 128 + signal.SIGTERM


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments(arguments, start, reference, tmp_path, kills):
    generator, folder = random.Random(kills), tmp_path / "killed"
    argv = arguments(folder)
    killed = 0
    while killed < kills:
        child, _ = start([*argv, "--resume"])
        child.join(generator.uniform(0, reference["seconds"]))
        if child.exitcode is None:
            child.kill()
            child.join()
            killed += child.exitcode == -signal.SIGKILL
        else:  # it was done before: once more from the beginning
            for file in folder.iterdir():
                file.unlink()
    finish(start, argv, folder, reference)
    assert not list(folder.glob(".*"))


def die_at_replacement(number):
    """Have the process killed when its ``number``-th file is about to replace the one before."""
    replace, calls = Path.replace, []

    def deadly(self, target):
        calls.append(target)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)

    Path.replace = deadly


@pytest.mark.parametrize("number", [1, 3, 4, 5, 6, 8, 16])
def test_killed_while_saving(arguments, start, reference, tmp_path, number):
    """The fourth and the eighth file are config.json: the model before it is there and can be used."""
    folder = tmp_path / "killed"
    child, _ = start(arguments(folder), before=partial(die_at_replacement, number))
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert (folder / "model.safetensors").exists() == (number > 3)
    if number > 3:
        load(str(folder))
    finish(start, arguments(folder), folder, reference)


def signal_at_step(number, signum):
    """Have all processes of the run get the signal when it makes its ``number``-th step."""
    measure, calls = torch.nn.utils.get_total_norm, []

    def signalling(*args):
        calls.append(args)
        if len(calls) == number:
            os.killpg(os.getpgid(0), signum)
        return measure(*args)

    os.setsid()
    torch.nn.utils.get_total_norm = signalling


def step_of(folder):
    with safetensors.safe_open(folder / "resume.safetensors", "pt") as file:
        return json.loads(file.metadata()["progress"])["step"]


@pytest.mark.parametrize(
    ("signum", "workers"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGTERM, 2), (signal.SIGINT, 2)]
)
def test_asked_to_stop(arguments, start, reference, tmp_path, signum, workers):
    """The signal reaches every process of the run, as from SLURM or Ctrl-C, two steps after a check."""
    folder = tmp_path / "stopped"
    child, errors = start(arguments(folder, "--workers", workers), before=partial(signal_at_step, 5, signum))
    child.join(30)
    assert child.exitcode == 128 + signum
    assert step_of(folder) == 5
    last = errors.read_text().splitlines()[-1]
    assert signum.name in last and str(folder) in last and "--resume" in last
    assert "continuing at step" in finish(start, arguments(folder), folder, reference)


def signal_at(module, name, signum):
    """Have the process get the signal when it calls that function."""
    place = importlib.import_module(module)
    function = getattr(place, name)

    def signalling(*args, **more):
        os.kill(os.getpid(), signum)
        return function(*args, **more)

    setattr(place, name, signalling)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("module", "name"),
    [("artefacts.store", "check_store"), ("train.loop", "Validation"), ("runtime.resume", "load")],
)
def test_asked_to_stop_before_the_first_step(arguments, start, tmp_path, module, name, signum):
    child, errors = start(
        [*arguments(tmp_path / "out"), "--resume"],
        before=partial(signal_at, f"vap_pipeline.{module}", name, signum),
    )
    child.join(30)
    assert child.exitcode == 128 + signum
    last = f"stopped by {signum.name}; nothing was trained yet; start the same command again"
    assert errors.read_text().splitlines()[-1] == last
    assert not (tmp_path / "out").exists()


def test_asked_to_stop_while_it_goes_on(arguments, start, reference, tmp_path):
    """Also the message before the first step of a process says where the state of the ones before is."""
    folder = tmp_path / "stopped"
    for before in (
        partial(signal_at_step, 5, signal.SIGINT),
        partial(signal_at, "vap_pipeline.runtime.resume", "load", signal.SIGTERM),
    ):
        child, errors = start([*arguments(folder), "--resume"], before=before)
        child.join(30)
        assert child.exitcode in (130, 143)
        assert f"its state is in {folder}; start" in errors.read_text().splitlines()[-1]
        assert step_of(folder) == 5
    finish(start, arguments(folder), folder, reference)


SIGNALLED = """
import os, sys
signum = int(sys.argv.pop(1))
class Finder:
    def find_spec(self, name, *_):
        if name == "accelerate":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signum)
sys.meta_path.insert(0, Finder())
from vap_pipeline.train.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_while_it_imports(arguments, tmp_path, signum):
    command = [sys.executable, "-c", SIGNALLED, str(int(signum)), *arguments(tmp_path / "out")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run(
        command, stderr=subprocess.PIPE, text=True, timeout=60, cwd=tmp_path, env=environment
    )
    assert run.returncode == 128 + signum
    assert run.stderr == f"stopped by {signum.name}; nothing was trained yet; start the same command again\n"


def test_outputs_that_dvc_deleted_come_back(arguments, start, reference, tmp_path):
    folder = tmp_path / "checkpoint"
    finish(start, arguments(folder), folder, reference)
    for name in OUTPUTS:
        (folder / name).unlink()
    assert "complete at step" in finish(start, arguments(folder), folder, reference)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--learning-rate", 1], "train.learning_rate was 1.0, is 0.003"),
        (["--width", 8], "model.width was 8, is 16"),
    ],
)
def test_a_state_of_another_run_is_not_gone_on_with(arguments, start, reference, tmp_path, flags, reason):
    folder = tmp_path / "checkpoint"
    child, _ = start(arguments(folder, *flags, "--epochs", 1))
    child.join()
    assert child.exitcode == 0
    said = finish(start, arguments(folder), folder, reference)
    assert reason in said and "starting from the beginning" in said
    (kept,) = set(folder.glob("resume.*.safetensors"))
    assert f"is kept as {kept}" in said
    kept.replace(folder / "resume.safetensors")
    child, errors = start([*arguments(folder, *flags, "--epochs", 1), "--resume"])
    child.join()
    assert child.exitcode == 0 and "complete at step" in errors.read_text()


def config_of(folder):
    return json.loads((folder / "config.json").read_text())["train"]


def test_more_epochs_or_another_patience_continue_the_run(arguments, start, reference, tmp_path):
    """The result is that of a run with these settings from the start, bit for bit."""
    folder = tmp_path / "checkpoint"
    child, _ = start(arguments(folder, "--epochs", 2))
    child.join()
    assert child.exitcode == 0 and config_of(folder)["epochs"] == 2
    said = finish(start, arguments(folder), folder, reference)  # 4 epochs
    assert "continuing at step 6" in said and "starting" not in said
    assert config_of(folder)["epochs"] == 4

    patient, impatient = tmp_path / "patient", tmp_path / "impatient"
    flags = ["--learning-rate", 1e-12, "--epochs", 20]
    for out, patience in ((impatient, 2), (patient, 4)):
        child, _ = start(arguments(out, *flags, "--patience", patience))
        child.join()
    assert step_of(impatient) == 9 and step_of(patient) == 15  # a check ends an epoch of three steps
    child, errors = start([*arguments(impatient, *flags, "--patience", 4), "--resume"])
    child.join()
    assert "continuing at step 9" in errors.read_text() and outputs(impatient) == outputs(patient)


def test_a_new_run_sets_an_unfinished_state_aside(arguments, start, reference, tmp_path):
    folder = tmp_path / "checkpoint"
    before = partial(signal_at_step, 5, signal.SIGTERM)
    child, _ = start(arguments(folder, "--learning-rate", 1), before=before)
    child.join()
    state = (folder / "resume.safetensors").read_bytes()
    child, errors = start(arguments(folder), before=before)
    child.join()
    (kept,) = set(folder.glob("resume.*.safetensors"))
    said = errors.read_text()
    assert f"the state of another run in {folder} (train.learning_rate was 1.0, is 0.003)" in said
    assert f"is kept as {kept}" in said and kept.read_bytes() == state
    # One of the same settings starts again, and says how to continue instead.
    child, errors = start(arguments(folder))
    child.join()
    assert f"{folder} holds this run at step 5: starting again; --resume would" in errors.read_text()
    assert outputs(folder) == reference["outputs"]
    # A finished run leaves nothing to set aside.
    child, errors = start(arguments(folder, "--learning-rate", 1, "--epochs", 1))
    child.join()
    assert "kept as" not in errors.read_text() and set(folder.glob("resume.*.safetensors")) == {kept}


def test_every_check_is_a_line_without_a_terminal(arguments, start, tmp_path):
    child, errors = start(arguments(tmp_path / "checkpoint"))
    child.join()
    said = errors.read_text().splitlines()
    checks = [line for line in said if line.startswith("step ")]
    assert len(checks) == 4 and checks[0].startswith("step 3, epoch 1.0: validation loss ")
    assert "S/H " in checks[0] and "S-pred " in checks[0] and checks[0].endswith("; the best so far")
    (names,) = [line for line in said if line.startswith("scores: ")]
    assert "S-pred is f1_predict_shift" in names


@pytest.mark.parametrize("damage", [b"", b"\x10\0\0\0\0\0\0\0{}", b"\xff" * 100])
def test_a_damaged_state_is_not_gone_on_with(arguments, start, reference, tmp_path, damage):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "resume.safetensors").write_bytes(damage)
    assert "damaged" in finish(start, arguments(folder), folder, reference)


def allow_files_of(size):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_no_space_left(arguments, start, reference, tmp_path):
    """A limit on the size of files stands for a full disk: the same error comes from the same place."""
    folder = tmp_path / "checkpoint"
    child, _ = start(arguments(folder))
    while not (folder / "resume.safetensors").exists():
        time.sleep(0.01)
    child.terminate()
    child.join()
    before = (folder / "resume.safetensors").read_bytes()
    child, errors = start([*arguments(folder), "--resume"], before=partial(allow_files_of, 40_000))
    child.join()
    assert child.exitcode == 2
    assert "resume.safetensors: cannot be written" in errors.read_text().splitlines()[-1]
    assert (folder / "resume.safetensors").read_bytes() == before and not list(folder.glob(".*"))
    finish(start, arguments(folder), folder, reference)


def leak_at_each_step():
    """100 kB, as long as the process lives."""
    measure, kept = torch.nn.utils.get_total_norm, []

    def leaking(*args):
        kept.append(bytearray(b"x" * 100_000))
        return measure(*args)

    torch.nn.utils.get_total_norm = leaking


@pytest.mark.parametrize(("workers", "leak"), [(0, None), (2, None), (0, leak_at_each_step)])
def test_twenty_epochs_leak_nothing(arguments, start, tmp_path, workers, leak):
    """240 steps of a window each; a leak of 100 kB a step is seen."""
    flags = ["--epochs", 20, "--patience", 20, "--batch", 1, "--workers", workers]
    child, errors = start(arguments(tmp_path / "out", *flags), before=leak)
    process, seen = Path(f"/proc/{child.pid}"), []
    while child.exitcode is None:
        if (tmp_path / "out" / "history.parquet").exists():  # after the first check
            with suppress(OSError):  # it ends when it likes
                descriptors, threads = (len(list((process / name).iterdir())) for name in ("fd", "task"))
                resident = int((process / "statm").read_text().split()[1]) * resource.getpagesize()
                seen.append((descriptors, threads, resident / 2**20))
        child.join(0.02)
    assert child.exitcode == 0, errors.read_text()
    first, last = seen[: len(seen) // 3], seen[-len(seen) // 3 :]
    for measure in range(2):  # the fewest: readers hand over what they read in open files
        assert min(each[measure] for each in last) <= min(each[measure] for each in first)
    grown = median(each[2] for each in last) - median(each[2] for each in first)
    assert (grown > 6) == bool(leak)  # MB

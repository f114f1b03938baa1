"""`dvc repro` on a small corpus: killed with its processes, started again, given other audio and weights."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import soundfile
from made import RATE, content, corpus, places, speech

from vap_pipeline.corpora.__main__ import main as vap_manifest
from vap_pipeline.encoders import cpc_weights
from vap_pipeline.encoders.cpc import Config
from vap_pipeline.extract.__main__ import main as vap_extract
from vap_pipeline.train.__main__ import main as vap_train

ROOT = Path(__file__).parents[1]
STORE, CHECKPOINT = Path("data/tiny/features.zarr"), Path("checkpoints/tiny/discrete/fold-0")
PARAMS = """
tiny: &tiny
  name: tiny
  reader: segments
  transcripts: data/tiny/transcripts
  audio: data/tiny/audio
  manifest: {test: 2, folds: 2}
  extract: {weights: small.pt}
  encoder: small.pt
  models: [discrete]
  folds: [0]
  model: {width: 16, layers: 1, heads: 1, feedforward: 16}
  train: {batch: 2, learning_rate: 1.0e-3, epochs: 6, checks_per_epoch: 1}
  events: {}
corpus: *tiny
launch: python
"""


def project(root: Path) -> None:
    """Write what `dvc repro train` needs: the repository's own stages, and settings, audio and tables."""
    made = corpus(root / "data/tiny", 40, 12)
    rows = pq.read_table(root / "data/tiny/tiny/voice_activity.parquet")
    (root / "data/tiny/transcripts").mkdir()
    pyarrow.csv.write_csv(rows, root / "data/tiny/transcripts/calls.csv")
    (root / "data_manifest").mkdir()
    made.root.joinpath("small.pt").rename(root / "small.pt")
    (root / "params.yaml").write_text(PARAMS)
    for name in ("dvc.yaml", "vap-extract", "vap-train"):
        (root / name).write_bytes((ROOT / name).read_bytes())


def results() -> dict[str, dict[str, bytes]]:
    """What the stages have written in the working directory, but for states of runs."""
    parts = {each.name: content(each) for each in (STORE, CHECKPOINT, Path("data_manifest/tiny"))}
    parts[CHECKPOINT.name].pop("resume.safetensors")  # holds the random name of the run's log
    return parts


@pytest.mark.slow
def test_killed_and_started_again_and_given_other_audio_and_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    project(tmp_path / "straight")
    monkeypatch.chdir(tmp_path / "straight")
    assert vap_manifest(["segments", "--corpus", "tiny"]) == 0
    assert vap_extract(["--corpus", "tiny"]) == 0
    assert vap_train(["--corpus", "tiny", "--model", "discrete", "--fold", "0"]) == 0
    straight = results()

    project(tmp_path / "dvc")
    monkeypatch.chdir(tmp_path / "dvc")
    subprocess.run(["dvc", "init", "-q", "--no-scm"], check=True)

    def repro(*targets: str) -> subprocess.Popen[str]:
        command, streams = (
            ["dvc", "repro", *targets],
            {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
        )
        return subprocess.Popen(command, **streams, text=True, start_new_session=True)

    def kill_when(condition) -> None:
        run, end = repro("train"), time.monotonic() + 60
        while not condition():
            assert run.poll() is None and time.monotonic() < end
            time.sleep(0.005)
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
        assert run.returncode == -signal.SIGKILL

    kill_when(lambda: len(places(STORE)) > 6)
    done = places(STORE)
    assert 6 < len(done) < 40
    kill_when((CHECKPOINT / "history.parquet").exists)  # after the first check of six
    assert {name: places(STORE)[name] for name in done} == done
    said, _ = (run := repro("train")).communicate(timeout=120)
    assert run.returncode == 0 and "continuing at step" in said, said
    assert "vap-extract" not in said  # the stage is done
    assert results() == straight

    before = places(STORE)
    soundfile.write("data/tiny/audio/c0007.wav", speech(12.5, seed=99), RATE, subtype="ULAW")
    said, _ = (run := repro("extract")).communicate(timeout=120)
    assert run.returncode == 0 and "1 conversations encoded" in said, said
    assert {name for name, place in places(STORE).items() if place != before[name]} == {"c0007"}

    cpc_weights.save(
        cpc_weights.random(1, Config(16, 8)), "small.pt"
    )  # other weights in a file of the same name
    said, _ = (run := repro("train")).communicate(timeout=120)
    assert run.returncode != 0 and "encoder.sha256 was" in said and str(STORE) in said, said
    shutil.rmtree(STORE)
    said, _ = (run := repro("train")).communicate(timeout=120)
    assert run.returncode == 0 and "40 conversations encoded" in said and "vap-train" in said, said

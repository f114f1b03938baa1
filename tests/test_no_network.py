"""Every command without a network, and training onto a disk that is full, then read-only, then neither."""

import os
import sys
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from made import content, corpus, in_a_namespace

from vap_pipeline.corpora.__main__ import main as vap_manifest
from vap_pipeline.evaluate.__main__ import main as vap_evaluate
from vap_pipeline.extract.__main__ import main as vap_extract
from vap_pipeline.report.__main__ import main as vap_anova
from vap_pipeline.train.__main__ import main as vap_train

PARAMS = """
tiny: &tiny
  name: tiny
  transcripts: data/tiny/calls.csv
  manifest: {test: 2, folds: 2}
  extract: {weights: small.pt}
  models: [discrete]
  folds: [0]
  model: {width: 16, layers: 1, heads: 1, feedforward: 16}
  events: {}
  train: {batch: 2, learning_rate: 1.0e-3, epochs: 4, checks_per_epoch: 1}
corpus: *tiny
"""
RUN = ["--model", "discrete", "--fold", "0"]


def project(root: Path) -> Path:
    made = corpus(root / "data/tiny", 8, 25)
    pyarrow.csv.write_csv(
        pq.read_table(root / "data/tiny/tiny/voice_activity.parquet"), made.root / "calls.csv"
    )
    (made.root / "small.pt").rename(root / "small.pt")
    (root / "params.yaml").write_text(PARAMS)
    return root


@pytest.mark.slow
def test_without_a_network_and_with_a_disk_that_fills_up(tmp_path, monkeypatch):
    """There is a key for Weights & Biases; the disk of the checkpoints is full at the second check."""
    root = project(tmp_path / "hindered")
    script = f"""
        cd {root}
        vap-manifest segments --corpus tiny
        vap-extract --weights 60k_epoch4-d0f474de.pt --download --out other && exit 1 || test $? = 2
        vap-extract
        mkdir checkpoints
        mount -t tmpfs -o size=150k small checkpoints
        vap-train {" ".join(RUN)} --resume && exit 1 || test $? = 2
        mount -o remount,ro checkpoints
        vap-train {" ".join(RUN)} --resume && exit 1 || test $? = 2
        mount -o remount,rw,size=10m checkpoints
        vap-train {" ".join(RUN)} --resume
        cp -r checkpoints/tiny trained
        vap-evaluate score {" ".join(RUN)}
        vap-anova
        sed 's/[.]25$/.75/' data/tiny/calls.csv > longer.csv
        vap-manifest segments --corpus longer --table longer.csv --audio data/tiny/audio
        vap-pretrain --corpus longer --audio data/tiny/audio --out pretrained --init small.pt \\
            --steps 2 --speakers 2 --windows 1
    """
    places = {name: str(root) for name in ("HOME", "TORCH_HOME", "WANDB_DIR", "WANDB_CACHE_DIR")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    keyed = {"WANDB_API_KEY": "0" * 40, "WANDB_INIT_TIMEOUT": "1", "WANDB_MODE": "online"}
    ended = in_a_namespace(script, PATH=path, **places, **keyed)
    assert ended.returncode == 0 and "Traceback" not in ended.stderr, ended.stderr
    said = ended.stderr.splitlines()
    download, full, read_only = [line for line in said if ": error: " in line]
    assert "cannot be fetched" in download and "put it at" in download
    assert "cannot be written (No space left on device)" in full
    assert "cannot be written (Read-only file system)" in read_only
    assert sum("continuing at step" in line for line in said) == 2
    assert (root / "pretrained/encoder.safetensors").is_file()
    assert any("wandb sync" in line for line in said) and list(root.glob("wandb/offline-run-*/*.wandb"))

    straight = project(tmp_path / "straight")
    monkeypatch.chdir(straight)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert vap_manifest(["segments", "--corpus", "tiny"]) == vap_extract([]) == vap_train(RUN) == 0
    assert vap_evaluate(["score", *RUN]) == vap_anova([]) == 0
    for part in ("data/tiny/features.zarr", "scores", "reports"):
        assert content(root / part) == content(straight / part)
    trained, expected = content(root / "trained"), content(straight / "checkpoints/tiny")
    for state in trained, expected:
        assert state.pop("discrete/fold-0/resume.safetensors")  # holds the random name of the run's log
    assert trained == expected

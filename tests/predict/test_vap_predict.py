"""vap-predict on files: what it writes, what it finds, and what it refuses."""

import json
from xml.etree import ElementTree

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

import vap_pipeline
from vap_pipeline.artefacts import manifest
from vap_pipeline.encoders import cpc_weights
from vap_pipeline.models import checkpoint
from vap_pipeline.models.network import ModelConfig, ProjectionModel
from vap_pipeline.predict import loading
from vap_pipeline.predict.__main__ import main

RATE_HZ, SECONDS = 16_000, 12
COLUMNS = ["conversation", "time_s", "va_a", "va_b", "p_a", "p_b"]
BACKCHANNEL = ["p_bc_a", "p_bc_b"]
STATES = ["p_now_a", "p_now_b", "p_future_a", "p_future_b", "entropy"]


@pytest.fixture(scope="module")
def facts():
    return cpc_weights.load("telephone-small")[1]


def saved(folder, facts, name="discrete", **config):
    torch.manual_seed(0)
    sizes = ModelConfig(model=name, width=16, layers=1, heads=1, feedforward=16)
    checkpoint.save(ProjectionModel(sizes), {"store": {"encoder": facts}} | config, str(folder))
    return str(folder)


@pytest.fixture
def call(tmp_path):
    """Two channels of tones in turns: A from 0 to 3 s and 8 to 12 s, B from 4 to 7 s."""
    time = np.arange(SECONDS * RATE_HZ) / RATE_HZ
    tone = 0.3 * np.sin(2 * np.pi * 220 * time) * (1 + np.sin(2 * np.pi * 4 * time))
    a = tone * ((time < 3) | (time >= 8))
    b = tone * ((time >= 4) & (time < 7))
    path = tmp_path / "calls" / "call.flac"
    path.parent.mkdir()
    soundfile.write(path, np.stack([a, b], 1), RATE_HZ)
    return path


@pytest.fixture
def listed(tmp_path, call):
    """A manifest that says who speaks when."""
    rows = [("call", 0, 0.0, 3.0), ("call", 0, 8.0, 12.0), ("call", 1, 4.0, 7.0)]
    columns = [list(column) for column in zip(*rows, strict=True)]
    table = pyarrow.table(dict(zip(manifest.SCHEMA.names, columns, strict=True)), schema=manifest.SCHEMA)
    conversations = [manifest.Conversation("call", "call.flac", float(SECONDS), "test")]
    manifest.write(manifest.Manifest(conversations, table), tmp_path / "manifest")
    return tmp_path / "manifest"


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("discrete", [*COLUMNS, *BACKCHANNEL, *STATES]),
        ("independent", [*COLUMNS, *BACKCHANNEL, *STATES]),
        ("independent-40", [*COLUMNS, *BACKCHANNEL]),
        ("comparative", COLUMNS),
    ],
)
def test_everything_is_written_for_a_folder(tmp_path, facts, call, listed, name, columns):
    model, out = saved(tmp_path / "model", facts, name), tmp_path / "out"
    flags = ["--events", "--csv", "--export", "textgrid", "eaf", "audacity", "json", "--figure", "2", "9"]
    assert main([model, str(call.parent), "--manifest", str(listed), "--out", str(out), *flags]) == 0
    table = pq.read_table(out / "call.parquet")
    assert table.column_names == columns and len(table) == SECONDS * 100 + 1
    assert table["time_s"].to_pylist()[:3] == [0.0, 0.01, 0.02]
    assert table["va_b"].to_numpy().nonzero()[0][[0, -1]].tolist() == [400, 699]
    np.testing.assert_allclose(table["p_a"].to_numpy() + table["p_b"].to_numpy(), 1, atol=1e-6)
    events = pq.read_table(out / "call.events.parquet").to_pylist()
    turns = [(e["start_s"], e["end_s"], e["truth"]) for e in events if e["name"] in ("shift", "hold")]
    assert turns == [(3.0, 4.0, "shift"), (7.0, 8.0, "shift")]
    assert len(pyarrow.csv.read_csv(out / "call.csv")) == len(table)
    assert (out / "call.png").read_bytes()[:4] == b"\x89PNG"

    tiers = json.loads((out / "call.json").read_text())["tiers"]
    speech = [(row["start_s"], row["end_s"]) for row in tiers["speech A"]]
    assert speech == [(0.0, 3.0), (8.0, 12.0)] and [row["start_s"] for row in tiers["turns"]] == [3.0, 7.0]
    labels = [line.split("\t") for line in (out / "call.txt").read_text().splitlines()]
    assert ["4.000000", "7.000000", "speech B: speech"] in labels
    root = ElementTree.parse(out / "call.eaf").getroot()
    slots = {slot.get("TIME_SLOT_ID"): int(slot.get("TIME_VALUE")) for slot in root.iter("TIME_SLOT")}
    first = root.find("TIER[@TIER_ID='speech B']/ANNOTATION/ALIGNABLE_ANNOTATION")
    assert [slots[first.get(f"TIME_SLOT_REF{i}")] for i in (1, 2)] == [4000, 7000]
    grid = (out / "call.TextGrid").read_text()
    assert grid.count('class = "IntervalTier"') == 5 and "xmax = 12.0" in grid


def test_voice_activity_is_found_and_python_gives_the_same(tmp_path, facts, call):
    model, out = saved(tmp_path / "model", facts), tmp_path / "out"
    assert main([model, str(call), "--out", str(out)]) == 0
    table = pq.read_table(out / "call.parquet")
    va = np.stack([table["va_a"].to_numpy(), table["va_b"].to_numpy()], 1)
    again = vap_pipeline.load(model).predict(call)
    assert np.array_equal(again["p_a"].to_numpy(), table["p_a"].to_numpy())
    assert np.array_equal(
        vap_pipeline.load(model).predict(call, va)["p_a"].to_numpy(), table["p_a"].to_numpy()
    )


def test_one_bad_recording_does_not_stop_the_others(tmp_path, facts, call, capsys, caplog):
    caplog.set_level("INFO")
    (call.parent / "broken.wav").write_bytes(b"RIFF")
    model, out = saved(tmp_path / "model", facts), tmp_path / "out"
    assert main([model, str(call.parent), "--out", str(out)]) == 2
    assert (out / "call.parquet").exists() and "left out: " in caplog.text and "broken.wav" in caplog.text
    assert "1 of the recordings could not be predicted" in capsys.readouterr().err


def test_what_is_refused_in_one_line(tmp_path, facts, call, listed, capsys):
    model = saved(tmp_path / "model", facts)
    mono = tmp_path / "mono.wav"
    soundfile.write(mono, np.zeros(RATE_HZ), RATE_HZ)
    other = saved(tmp_path / "other", facts | {"sha256": "0" * 64})
    missing = saved(tmp_path / "missing", facts | {"weights": "mine.pt"})
    for arguments, message in (
        ([str(tmp_path / "no"), str(call)], "no such file"),
        ([model, str(tmp_path / "no.wav")], "no.wav: cannot be read"),
        ([model, str(mono)], "one channel; give --mono"),
        ([model, str(mono), "--manifest", str(listed), "--mono"], "not in the manifest"),
        ([model, str(tmp_path / "manifest")], "no audio below it"),
        ([other, str(call)], "has another SHA-256"),
        ([missing, str(call)], "give the encoder's weights with --weights"),
        ([model, str(call), "--figure", "100", "200"], "lies outside"),
        ([model, str(call), "--figure", "1"], "give START and END"),
        ([model, str(call), "--context", "30"], "trained with 10 s"),
        ([model, "-"], "give --live and - together"),
    ):
        assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert message in lines[-1] and lines[-1].startswith("vap-predict: error: "), lines


def test_a_recording_of_one_speaker(tmp_path, facts, call):
    samples, _ = soundfile.read(call)
    mono = tmp_path / "mono.wav"
    soundfile.write(mono, samples[:, 0], RATE_HZ)
    out = tmp_path / "out"
    assert main([saved(tmp_path / "model", facts), str(mono), "--mono", "--out", str(out)]) == 0
    assert not pq.read_table(out / "mono.parquet")["va_b"].to_numpy().any()


def test_the_model_in_the_package(tmp_path, call):
    """It works right after installation, and is small."""
    folder = loading.SHIPPED["sample-discrete"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3e6
    out = tmp_path / "out"
    assert main(["sample-discrete", str(call), "--out", str(out), "--page"]) == 0
    assert len(pq.read_table(out / "call.parquet")) == SECONDS * 100 + 1
    assert "model sample-discrete" in (out / "call.html").read_text()

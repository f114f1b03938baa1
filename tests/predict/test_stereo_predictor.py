"""The stereo model on recordings: the published numbers, and live as offline."""

import runpy

import numpy as np
import pytest
import soundfile
import torch

import vap_pipeline
from vap_pipeline.predict import importing
from vap_pipeline.predict.__main__ import main

RATE_HZ = 8000


@pytest.fixture(scope="module")
def published(shared, tmp_path_factory):
    """A file of the published layout, with the weights of the shared script."""
    folder = shared / "stereo"
    state_dict = runpy.run_path(str(folder / "formula_weights.py"))["state_dict"]
    path = tmp_path_factory.mktemp("published") / "stereo_50hz.pt"
    torch.save(state_dict(str(folder / "published_layout.json")), path)
    return path


@pytest.mark.parametrize("name", ["MUL1423", "SNG0072", "SNG0480"])
def test_a_published_file_gives_the_published_numbers(shared, published, tmp_path, name):
    samples, rate = soundfile.read(shared / "two_channel_phone" / f"{name}.flac", dtype="float32")
    soundfile.write(tmp_path / "part.wav", samples[20 * rate : 40 * rate], rate, subtype="FLOAT")
    expected = np.load(shared / "stereo" / "expected.npz")
    table = vap_pipeline.load(published).predict(tmp_path / "part.wav").to_pydict()
    assert np.diff(table["time_s"]) == pytest.approx(0.02) and len(table["time_s"]) == 1000
    for key, column in (("p_now", "p_now"), ("p_future", "p_future"), ("vad", "vad")):
        pair = np.stack([table[f"{column}_{x}"] for x in "ab"], 1)
        np.testing.assert_allclose(pair, expected[f"{name}/{key}"], atol=1e-4)
    np.testing.assert_allclose(table["entropy"], expected[f"{name}/H"], atol=1e-4)


def test_live_is_offline(shared, published, tmp_path):
    samples, rate = soundfile.read(shared / "two_channel_phone" / "SNG0072.flac", dtype="float32")
    soundfile.write(tmp_path / "part.wav", samples[: 30 * rate], rate, subtype="FLOAT")
    model, rng = vap_pipeline.load(published), np.random.default_rng(0)
    stream, parts, start = model.stream(rate, context_s=5), [], 0
    while start < 30 * rate:
        length = rng.choice([1, 160, rate, rng.integers(1, 4000)])
        parts.append(stream.push(samples[start : start + min(length, 30 * rate - start)]))
        start += length
    live = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    offline = model.predict(tmp_path / "part.wav", context_s=5).to_pydict()
    n = len(live["time_s"])
    assert n > 1490 and live.keys() == offline.keys()
    for key, values in live.items():
        np.testing.assert_allclose(values, offline[key][:n], atol=1e-4, err_msg=key)


def test_an_imported_file_predicts_the_same(shared, published, tmp_path):
    samples, rate = soundfile.read(shared / "two_channel_phone" / "SNG0480.flac", dtype="float32")
    soundfile.write(tmp_path / "part.wav", samples[: 10 * rate], rate, subtype="FLOAT")
    assert importing.main([str(published), "--out", str(tmp_path / "imported")]) == 0
    ours, theirs = (
        vap_pipeline.load(str(path)).predict(tmp_path / "part.wav")
        for path in (tmp_path / "imported", published)
    )
    assert ours.equals(theirs)
    assert importing.main([str(tmp_path / "part.wav"), "--out", str(tmp_path / "no")]) == 2


def test_the_command_takes_a_published_file(shared, published, tmp_path):
    samples, rate = soundfile.read(shared / "two_channel_phone" / "SNG0480.flac", dtype="float32")
    soundfile.write(tmp_path / "part.flac", samples[: 12 * rate], rate)
    out = tmp_path / "out"
    flags = ["--events", "--export", "textgrid", "--figure", "2", "9", "--page"]
    assert main([str(published), str(tmp_path / "part.flac"), "--out", str(out), *flags]) == 0
    names = {path.name for path in out.iterdir()}
    assert names == {"part.parquet", "part.events.parquet", "part.TextGrid", "part.png", "part.html"}

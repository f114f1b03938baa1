"""Live predictions are those of the whole recording, however the audio is cut."""

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vap_pipeline.encoders import cpc_weights
from vap_pipeline.io.errors import InputError
from vap_pipeline.models.network import ModelConfig, ProjectionModel
from vap_pipeline.predict.history import RunningHistory
from vap_pipeline.predict.predictor import Predictor
from vap_pipeline.turn_taking.projection import MODELS
from vap_pipeline.turn_taking.voice_activity import activity_history

RATE_HZ = 8000


class LoudFrames:
    """A detector that is right about the test's signal: frames of 10 ms with a peak over 0.05 are speech."""

    def __init__(self):
        self.held = torch.zeros(2, 0)

    def push(self, samples):
        held = torch.cat([self.held, samples], dim=1)
        n = held.shape[1] // 160
        self.held = held[:, n * 160 :]
        return (held[:, : n * 160].unflatten(1, (n, 160)).abs().amax(2).T > 0.05).numpy().astype(np.uint8)


def predictor(name):
    torch.manual_seed(1)
    network = ProjectionModel(
        ModelConfig(model=name, width=32, layers=2, heads=2, feedforward=64, input_dim=256)
    )
    encoder, _ = cpc_weights.load("telephone-small")
    return Predictor("test", network.eval(), {}, encoder)


def dialogue(seconds):
    """Two channels of noise in bursts, growing louder."""
    rng = np.random.default_rng(3)
    signal = rng.standard_normal((seconds * RATE_HZ, 2)) * 0.1
    gates = np.repeat(rng.random((seconds * 4 + 1, 2)) < 0.4, RATE_HZ // 4, axis=0)[: len(signal)]
    return np.clip(signal * (0.01 + gates) * np.linspace(0.5, 3, len(signal))[:, None], -1, 1)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 9000), max_size=6), st.floats(0, 1))
def test_the_history_of_a_stream(sizes, share):
    va = (torch.rand(13_000, 2, generator=torch.Generator().manual_seed(2)) < share).to(torch.uint8)
    history, parts, start = RunningHistory(), [], 0
    for size in [*sizes, len(va)]:
        if len(va[start : start + size]):
            parts.append(history.push(va[start : start + size]))
        start += size
    torch.testing.assert_close(torch.cat(parts), activity_history(va))


@pytest.mark.parametrize("name", MODELS)
def test_live_is_offline_over_ten_minutes(tmp_path, name):
    path, rng = tmp_path / "call.flac", np.random.default_rng(4)
    soundfile.write(path, dialogue(600 if name == "discrete" else 40), RATE_HZ)
    samples = soundfile.read(path, dtype="float32")[0]
    model = predictor(name)
    stream = model.stream(RATE_HZ, detector=LoudFrames)
    for _ in range(2):  # the second time after reset
        parts, start = [], 0
        stream.reset()
        while start < len(samples):
            length = rng.choice([1, 80, 160, RATE_HZ, rng.integers(1, 5000)])
            parts.append(stream.push(samples[start : start + length]))
            start += length
    live = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    n = len(live["time_s"])
    assert n > len(samples) // 80 - 20
    va = np.stack([live["va_a"], live["va_b"]], 1)
    whole = np.concatenate([va, np.zeros((len(samples) // 80 + 1 - n, 2), np.uint8)])
    offline = model.predict(path, whole, level="running").to_pydict()
    assert offline.keys() == live.keys() and va.mean() > 0.2
    for key in live:
        np.testing.assert_allclose(live[key], offline[key][:n], atol=1e-4, err_msg=key)
    levelled = model.predict(path, whole).to_pydict()
    assert np.abs(np.array(levelled["p_a"]) - np.array(offline["p_a"])).max() > 1e-3  # the level matters


def test_what_a_stream_refuses():
    stream = predictor("discrete").stream()
    with pytest.raises(InputError, match=r"samples of shape \(3,\); give \(n, 2\)"):
        stream.push(np.zeros(3))
    with pytest.raises(InputError, match="NaN or infinite"):
        stream.push(np.full((3, 2), np.nan))
    with pytest.raises(InputError, match="trained with 10 s"):
        predictor("discrete").stream(context_s=60)
    assert len(stream.push(np.zeros((0, 2)))["time_s"]) == 0

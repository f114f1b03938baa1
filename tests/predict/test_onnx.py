"""An exported model computes what the stream computes."""

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from vap_pipeline.encoders import cpc_weights
from vap_pipeline.encoders.cpc import Config
from vap_pipeline.io.errors import InputError
from vap_pipeline.models import checkpoint
from vap_pipeline.models.network import ModelConfig, ProjectionModel
from vap_pipeline.predict import export, export_main
from vap_pipeline.predict.predictor import Predictor

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_live.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("onnx_live", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def predictor(name, width=32):
    torch.manual_seed(1)
    encoder, _ = cpc_weights.load("telephone-small")
    sizes = ModelConfig(model=name, width=width, layers=2, heads=2, feedforward=64, input_dim=encoder.dim)
    return Predictor("test", ProjectionModel(sizes).eval(), {}, encoder)


def call(seconds):
    """Samples (n, 2) at 16 kHz that grow louder, and voice activity (frames, 2)."""
    rng = np.random.default_rng(3)
    va = np.repeat(rng.random((seconds * 5, 2)) < 0.4, 20, axis=0).astype(np.uint8)
    loudness = np.linspace(0.02, 1, seconds * 16_000)[:, None] * (0.01 + va.repeat(160, axis=0))
    return (rng.standard_normal((seconds * 16_000, 2)) * 0.1 * loudness).astype(np.float32), va


class Listed:
    """A detector that knows the voice activity."""

    def __init__(self, va):
        self.va, self.samples, self.frame = va, 0, 0

    def push(self, samples):
        self.samples += samples.shape[1]
        first, self.frame = self.frame, self.samples // 160
        return self.va[first : self.frame]


def compare(example, path, model, seconds, piece, **context):
    """Return the largest difference of any prediction between ONNX Runtime and the stream."""
    samples, va = call(seconds)
    stream, exported = model.stream(detector=lambda: Listed(va), **context), example.Model(path)
    assert exported.samples == piece * 160
    rows = example.predictions(exported, Listed(va), np.split(samples.T, len(va) // piece, axis=1))
    times, activity, predicted = zip(*rows, strict=True)
    expected = stream.push(samples)
    n = len(va) - 1  # the last frame needs the next one
    assert len(times) == len(expected["time_s"]) == n
    np.testing.assert_allclose(times, expected.pop("time_s"), atol=1e-9)
    np.testing.assert_array_equal(activity, np.stack([expected.pop("va_a"), expected.pop("va_b")], 1))
    assert predicted[0].keys() == expected.keys()
    assert expected["p_a"].std() > 0.01
    columns = {name: np.array([row[name] for row in predicted]) for name in expected}
    return max(np.abs(columns[name] - expected[name]).max() for name in expected)


@pytest.fixture(scope="module")
def discrete(tmp_path_factory):
    """A model, and the ONNX file that the command makes of its checkpoint."""
    model, folder = predictor("discrete"), tmp_path_factory.mktemp("onnx")
    _, facts = cpc_weights.load("telephone-small")
    checkpoint.save(model.network, {"store": {"encoder": facts}}, str(folder / "fold-0"))
    assert export_main.main([str(folder / "fold-0"), "--out", str(folder / "model.onnx")]) == 0
    return model, folder / "model.onnx"


def test_parity_over_seventy_seconds(example, discrete):
    """Longer than the minute of the activity history, and fourteen windows of 10 s."""
    model, path = discrete
    assert compare(example, path, model, 70, 2) < 1e-4


@pytest.mark.parametrize(("name", "frames", "context_s"), [("independent", 3, 0.5), ("comparative", 1, 0.1)])
def test_other_models_pieces_and_contexts(example, tmp_path, name, frames, context_s):
    """Windows of an odd number of pieces, so that they start within one."""
    model, path = predictor(name, width=64 if name == "comparative" else 32), tmp_path / "model.onnx"
    path.write_bytes(export.export(model, frames / 100, context_s).SerializeToString())
    assert compare(example, path, model, 6, frames, context_s=context_s) < 1e-4


def test_int8_is_smaller_and_close(example, discrete, tmp_path):
    model, path = discrete
    small = tmp_path / "int8.onnx"
    small.write_bytes(export.quantised(onnx.load(path)).SerializeToString())
    assert small.stat().st_size < 0.4 * path.stat().st_size
    assert 1e-5 < compare(example, small, model, 10, 2) < 0.05


def test_the_file_says_little_and_old_versions_read_it(discrete):
    _, path = discrete
    exported = onnx.load(path)
    facts = {prop.key: prop.value for prop in exported.metadata_props}
    assert facts == {"model": "discrete", "context_frames": "1000", "backchannel_threshold": "0.5"}
    assert (exported.ir_version, [(o.domain, o.version) for o in exported.opset_import]) == (8, [("", 18)])
    assert b"piece.py" not in path.read_bytes()


def test_the_example_hears_what_the_stream_hears(example, discrete, shared):
    """A real dialogue, with Silero VAD on both sides."""
    import soundfile
    import torchaudio
    from silero_vad import __file__ as silero

    model, path = discrete
    samples, rate = soundfile.read(shared / "two_channel_phone" / "MUL1423.flac", dtype="float32")
    samples = torchaudio.functional.resample(torch.from_numpy(samples[: 30 * rate].T), rate, 16_000).numpy()
    detector = example.VoiceActivity(Path(silero).parent / "data" / "silero_vad.onnx")
    rows = list(example.predictions(example.Model(path), detector, np.split(samples, 1500, axis=1)))
    expected = model.stream().push(samples.T)
    n = len(rows)
    assert n > 30 * 100 - 8 and 0.2 < expected["va_a"].mean() < 0.8
    np.testing.assert_array_equal([va[0] for _, va, _ in rows], expected["va_a"][:n])
    np.testing.assert_allclose([row["p_a"] for *_, row in rows], expected["p_a"][:n], atol=1e-4)


@pytest.mark.parametrize("piece_s", [0, 0.025, 0.51, 0.3])
def test_pieces_that_are_refused(piece_s):
    with pytest.raises(InputError, match=r"give a multiple of 0.01 up to 0.5 and to half the context"):
        export.export(predictor("discrete"), piece_s, context_s=0.5)


def test_an_encoder_that_is_refused():
    model = predictor("discrete")
    model.encoder = cpc_weights.random(0, Config(16, 256, arMode="GRU"))
    with pytest.raises(InputError, match="an encoder with 1 GRU; only one LSTM can be exported"):
        export.export(model)

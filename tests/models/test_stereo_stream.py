"""The stereo model live is the model offline with the same limit of context."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vap_pipeline.io.errors import InputError
from vap_pipeline.models.config import ModelConfig
from vap_pipeline.models.stereo import StereoModel
from vap_pipeline.models.stereo_stream import StereoStream

SMALL = {"input_dim": 8, "width": 16, "layers": 3, "heads": 2, "feedforward": 24}


def made(**config):
    torch.manual_seed(0)
    return StereoModel(ModelConfig(trunk="stereo", **SMALL | config)).eval()


def joined(stream, features, sizes):
    parts, start = [], 0
    for size in sizes:
        parts.append(stream.step(features[:, start : start + size]))
        start += size
    return [torch.cat(rows) for rows in zip(*parts, strict=True)]


@settings(deadline=None, max_examples=40)
@given(
    rate_kernel=st.sampled_from([(100, 1), (50, 5), (20, 11), (20, 5), (12.5, 17), (5, 20)]),
    context_s=st.sampled_from([0.01, 0.2, 1.3, 100]),
    layer=st.sampled_from(["first", "last"]),
    sizes=st.lists(st.integers(0, 60), max_size=12),
)
def test_it_is_the_model_offline_however_it_is_cut(rate_kernel, context_s, layer, sizes):
    rate, kernel = rate_kernel
    model = made(frame_rate_hz=rate, kernel=kernel, activity_layer=layer)
    features = torch.randn(2, 400, 8)
    with torch.inference_mode():
        expected = model(features[None], context_s=context_s)
    live = joined(StereoStream(model, context_s), features, [*sizes, 400])
    for rows, wanted in zip(live, expected, strict=True):
        torch.testing.assert_close(rows, wanted[0], atol=1e-5, rtol=0)


def test_full_size_over_several_contexts():
    torch.manual_seed(1)
    model = StereoModel(ModelConfig(trunk="stereo", context_s=1.0)).eval()
    features = torch.randn(2, 700, 256)
    with torch.inference_mode():
        expected = model(features[None])
    live = joined(StereoStream(model), features, torch.randint(1, 20, (200,)).tolist())
    for rows, wanted in zip(live, expected, strict=True):
        torch.testing.assert_close(rows, wanted[0], atol=1e-4, rtol=0)


def test_its_buffers_never_grow_or_move():
    stream = StereoStream(made(), 0.5)
    places = [(cache.keys.data_ptr(), cache.keys.shape) for cache in stream._caches]
    joined(stream, torch.randn(2, 500, 8), [7] * 70)
    assert places == [(cache.keys.data_ptr(), cache.keys.shape) for cache in stream._caches]
    assert stream._resample.held.untyped_storage().nbytes() < 2 * 8 * 4 * 6


def test_a_piece_without_a_whole_frame_gives_none():
    stream = StereoStream(made(frame_rate_hz=10), 1.0)
    assert len(stream.step(torch.randn(2, 1, 8)).logits) == 1
    assert stream.step(torch.randn(2, 9, 8)).logits.shape == (0, 256)
    assert stream.step(torch.randn(2, 1, 8)).voice_activity.shape == (1, 2)


def test_it_needs_a_limit_and_alibi():
    with pytest.raises(InputError, match="no limit of context"):
        StereoStream(made())
    with pytest.raises(InputError, match="sinusoidal positions cannot run live"):
        StereoStream(made(positions="sinusoidal"), 1.0)

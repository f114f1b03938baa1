"""Live and offline give the same logits, and both those of windows cut by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vap_pipeline.models.network import ModelConfig, ProjectionModel
from vap_pipeline.models.stream import Stream, predict_blocks

CONTEXT = 40


@pytest.fixture(scope="module")
def inputs():
    torch.manual_seed(0)
    model = ProjectionModel(ModelConfig(width=16, layers=2, heads=2, feedforward=32, input_dim=8)).eval()
    features, va = torch.randn(213, 8), (torch.rand(213, 2) < 0.4).float()
    return model, features, va, torch.rand(213, 5)


def by_hand(model, features, va, history):
    """Frame t is read from the window that starts at the last but one multiple of 20, or at 0."""
    rows = []
    for t in range(len(features)):
        start = max(t // 20 - 1, 0) * 20
        rows.append(
            model(features[None, start : t + 1], va[None, start : t + 1], history[None, start : t + 1])[0, -1]
        )
    return torch.stack(rows)


@torch.inference_mode()
def test_offline_is_by_hand(inputs):
    model, features, va, history = inputs
    expected = by_hand(*inputs)
    for sizes in ([213], [1] * 213, [100, 13, 100], [20, 19, 1, 173]):
        blocks = predict_blocks(model, features.split(sizes), va, history, CONTEXT)
        torch.testing.assert_close(torch.cat(list(blocks)), expected, atol=1e-5, rtol=0)
    short = predict_blocks(model, [features[:7]], va[:7], history[:7], CONTEXT)
    torch.testing.assert_close(torch.cat(list(short)), expected[:7], atol=1e-5, rtol=0)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 70), max_size=10))
def test_live_is_by_hand_however_it_is_cut(inputs, sizes):
    model, *rows = inputs
    expected = by_hand(*inputs)
    stream, parts, start = Stream(model, CONTEXT), [], 0
    for size in [*sizes, 213]:
        parts.append(stream.step(*(row[start : start + size] for row in rows)))
        start += size
    torch.testing.assert_close(torch.cat(parts), expected, atol=1e-5, rtol=0)

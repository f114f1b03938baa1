"""Attention with ALiBi or a limit of context against scores written out, and down-sampling by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from vap_pipeline.io.errors import InputError
from vap_pipeline.models.downsample import Downsample, downsample, kernel_of
from vap_pipeline.models.layers import StereoLayer, alibi_slopes, attention_bias, exchanged, window_attention

CPU = torch.device("cpu")


def test_slopes_by_hand():
    assert alibi_slopes(4).tolist() == [1 / 4, 1 / 16, 1 / 64, 1 / 256]
    assert alibi_slopes(8).tolist() == [2.0**-i for i in range(1, 9)]


def test_bias_by_hand():
    frame = torch.arange(4)
    ages = frame[:, None] - frame
    no = -math.inf
    expected = [[0, no, no, no], [-0.5, 0, no, no], [-1, -0.5, 0, no], [no, -1, -0.5, 0]]
    assert attention_bias(ages, torch.tensor([0.5]), 3).tolist() == [[expected]]
    expected = [[0, no, no, no], [0, 0, no, no], [no, 0, 0, no], [no, no, 0, 0]]
    assert attention_bias(ages, None, 2).tolist() == [[expected]]


@pytest.mark.parametrize("alibi", [True, False])
@pytest.mark.parametrize("context", [None, 1, 7, 400])
@pytest.mark.parametrize("frames", [1, 30, 400])
def test_attention_is_that_of_scores_written_out(alibi, context, frames):
    """Also over distances at which keys of the steepest head are left out: 400 · 1/4 > 64."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = 3 * torch.randn(3, 2, 4, frames, 8, generator=generator)
    attend = window_attention(frames, 4, CPU, alibi=alibi, context_frames=context, scale=0.1)
    scores = (q.double() @ k.double().mT) * 0.1
    for head in range(4):
        for i in range(frames):
            scores[:, head, i, i + 1 :] = -math.inf
            if context is not None:
                scores[:, head, i, : max(0, i - context + 1)] = -math.inf
        if alibi:
            scores[:, head] += torch.arange(frames) * 4.0 ** -(head + 1)
    torch.testing.assert_close(attend(q, k, v).double(), scores.softmax(-1) @ v.double(), atol=1e-5, rtol=0)


def test_channels_are_exchanged_within_an_example():
    assert exchanged(torch.tensor([[1], [2], [3], [4]])).flatten().tolist() == [2, 1, 4, 3]


def test_cross_attention_reads_the_other_channels_input_to_the_layer():
    """Self-attention and feed-forward net switched off, uniform weights: the mean of the other's frames."""
    layer = StereoLayer(4, 1, 8, 0.0).eval()
    with torch.no_grad():
        layer.attention_out.weight.zero_()
        layer.feedforward_out.weight.zero_()
        layer.cross_query.weight.zero_()
        layer.cross_key_value.weight.copy_(torch.cat([torch.zeros(4, 4), torch.eye(4)]))
        layer.cross_out.weight.copy_(torch.eye(4))
        x = torch.randn(2, 3, 4)
        y = layer(x, window_attention(3, 1, CPU, alibi=False))
    so_far = x.cumsum(1) / torch.tensor([1, 2, 3])[:, None]
    torch.testing.assert_close(y, x + so_far.flip(0))


def test_usual_kernels():
    rates_hz = (100, 50, 25, 20, 12.5, 10, 5)
    assert [kernel_of(rate_hz) for rate_hz in rates_hz] == [1, 5, 9, 11, 17, 10, 20]


def test_no_other_rate():
    with pytest.raises(InputError, match=r"30 Hz is not supported; choose from 100, 50, 25, 20, 12\.5"):
        kernel_of(30.0)


def test_down_sampling_by_hand():
    """A kernel of ones sums the last 3 inputs; every second output. GELU and LayerNorm follow."""
    module = Downsample(1, 2, 3, 2)
    with torch.no_grad():
        module.convolution.weight.copy_(torch.tensor([[[1.0, 1, 1]], [[0, 0, 0]]]))
        module.convolution.bias.zero_()
        x = torch.tensor([1.0, 10, 100, 1000, 10000])[None, :, None]
        sums = torch.tensor([1.0, 111, 11100])
        expected = F.gelu(F.layer_norm(torch.stack([sums, 0 * sums], -1)[None], (2,)))
        torch.testing.assert_close(module(x), expected)


def test_at_100_hz_features_stay_or_change_their_width():
    x = torch.randn(1, 5, 3)
    assert torch.equal(downsample(3, 3, 100, 1)(x), x) and downsample(3, 4, 100, 1)(x).shape == (1, 5, 4)

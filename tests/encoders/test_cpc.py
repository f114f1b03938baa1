"""The encoder against torch's own convolutions, and against the original package where it is installed."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vap_pipeline.audio.rates import HOP_SAMPLES
from vap_pipeline.encoders.cpc import PADDINGS, STRIDES, Config, CPCEncoder, State
from vap_pipeline.encoders.cpc_weights import random
from vap_pipeline.encoders.original import OriginalEncoder
from vap_pipeline.io.errors import InputError

SMALL = Config(hiddenEncoder=16, hiddenGar=8)


def plain(encoder, audio):
    """The network layer by layer, with Conv1d and the norm by its definition."""
    x = audio[:, None]
    for i, (stride, padding) in enumerate(zip(STRIDES, PADDINGS, strict=True)):
        conv, norm = getattr(encoder.gEncoder, f"conv{i}"), getattr(encoder.gEncoder, f"batchNorm{i}")
        x = F.conv1d(x, conv.weight, conv.bias, stride=stride, padding=padding)
        x = (x - x.mean(1, keepdim=True)) / torch.sqrt(x.var(1, keepdim=True, unbiased=True) + 1e-5)
        x = F.relu(x * norm.weight + norm.bias)
    return encoder.gAR.baseNet(x.transpose(1, 2))[0]


def with_random_norms(encoder, seed=1):
    """Draw weights and biases of the norms: a mistake in them would not show with ones and zeros."""
    generator = torch.Generator().manual_seed(seed)
    for i in range(len(STRIDES)):
        norm = getattr(encoder.gEncoder, f"batchNorm{i}")
        norm.weight.data.uniform_(0.5, 1.5, generator=generator)
        norm.bias.data.normal_(0, 0.3, generator=generator)
    return encoder


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.3


@pytest.mark.parametrize(
    "config",
    [Config(), SMALL, Config(24, 12, 2, "GRU"), Config(16, 16, 1, "RNN")],
    ids=["published", "small", "gru", "rnn"],
)
def test_features_equal_those_of_the_plain_network(config):
    encoder = with_random_norms(random(3, config))
    audio = noise(2, 160 * 60)
    with torch.no_grad():
        expected = plain(encoder, audio)
        assert expected.shape == (2, 60, config.hiddenGar)
        torch.testing.assert_close(encoder(audio), expected, atol=2e-5, rtol=0)  # features up to 1


@pytest.mark.parametrize("samples", [160, 1_599, 1_600, 1_601, 7_777])
def test_audio_of_any_length(samples):
    encoder = random(0, SMALL)
    with torch.no_grad():
        torch.testing.assert_close(encoder(noise(1, samples)), plain(encoder, noise(1, samples)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 700), min_size=1, max_size=30))
def test_a_stream_gives_the_same_features_wherever_it_is_cut(lengths):
    encoder = with_random_norms(random(0, SMALL))
    audio = noise(sum(lengths) // HOP_SAMPLES * HOP_SAMPLES + HOP_SAMPLES)
    pieces = audio.split([*lengths, len(audio) - sum(lengths)]) if sum(lengths) <= len(audio) else [audio]
    with torch.no_grad():
        whole = encoder(audio[None])[0]
    torch.testing.assert_close(torch.cat(list(encoder.stream(pieces))), whole, atol=2e-5, rtol=0)


def test_a_long_signal_in_long_pieces():
    encoder = random(0)
    audio = noise(16_000 * 12)
    with torch.no_grad():
        expected = plain(encoder, audio[None])[0]
    for seconds in (2, 5):
        features = torch.cat(list(encoder.stream(audio.split(16_000 * seconds))))
        torch.testing.assert_close(features, expected, atol=2e-5, rtol=0)


def test_gradients_equal_those_of_the_plain_network():
    encoder = with_random_norms(random(0, SMALL)).double()
    audio = noise(2, 3_200).double()
    gradients = []
    for network in (encoder, lambda x: plain(encoder, x)):
        encoder.zero_grad()
        network(audio).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in encoder.parameters()])
    torch.testing.assert_close(*gradients)


def test_a_stream_leaves_inference_mode_off():
    stream = random(0, SMALL).stream([noise(1_600)])
    next(stream)
    assert not torch.is_inference_mode_enabled()


def test_the_state_holds_only_the_ends_of_the_inputs():
    encoder, state = random(0, SMALL), State()
    with torch.no_grad():
        for _ in range(4):
            encoder(noise(1, 16_000), state, last=False)
    assert all(held.shape[1] < 2 * stride for held, stride in zip(state.inputs, STRIDES, strict=True))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"normMode": "batchNorm"}, "normMode is 'batchNorm', expected layerNorm"),
        ({"arMode": "transformer"}, "arMode is 'transformer', expected LSTM or GRU or RNN"),
        ({"encoder_type": "mfcc"}, "encoder_type is 'mfcc', expected cpc"),
    ],
)
def test_a_wrong_configuration_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        CPCEncoder(Config(**settings))


@pytest.mark.parametrize("config", [Config(), Config(24, 12, 2, "GRU")], ids=["published", "gru"])
def test_equals_the_original_package(config):
    pytest.importorskip("cpc.model", reason="needs the original package, cpc_audio")
    encoder = with_random_norms(random(5, config))
    original = OriginalEncoder(encoder)
    audio = noise(16_000 * 9 + 160)
    with torch.no_grad():
        whole = original(audio[None])[0]
        torch.testing.assert_close(encoder(audio[None])[0], whole, atol=5e-5, rtol=0)
    for lengths in (16_000, 32_000, 777):
        streamed = torch.cat(list(original.stream(audio.split(lengths))))
        torch.testing.assert_close(streamed, whole, atol=5e-5, rtol=0)


def test_without_the_original_package_its_backend_says_so(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cpc.model", None)
    with pytest.raises(InputError, match=r"not installed.*--backend native"):
        OriginalEncoder(random(0, SMALL))

"""Audio as it is heard gives the features of the whole signal, however it is cut."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vap_pipeline.encoders.cpc import Config, CPCEncoder
from vap_pipeline.encoders.cpc_live import LiveEncoder
from vap_pipeline.encoders.cpc_weights import random

CONFIGS = {
    "published": Config(),
    "small": Config(hiddenEncoder=16, hiddenGar=8),
    "two layers": Config(24, 12, 2, "GRU"),
    "plain": Config(16, 16, 1, "RNN"),
}


def encoder_of(config: Config) -> CPCEncoder:
    """Weights and biases of the norms are one and zero at first, which would hide a mistake in them."""
    encoder, generator = random(3, config), torch.Generator().manual_seed(1)
    for name, parameter in encoder.named_parameters():
        if "batchNorm" in name:
            parameter.data.normal_(1, 0.3, generator=generator)
    return encoder


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.one_of(st.integers(0, 700), st.just(16_000)), max_size=20))
def test_however_it_is_cut(config, lengths):
    encoder = encoder_of(config)
    audio = torch.randn(sum(lengths) + 1_600, generator=torch.Generator().manual_seed(0)) * 0.3
    live = LiveEncoder(encoder)
    features = torch.cat([live.push(piece) for piece in audio.split([*lengths, 1_600])])
    with torch.no_grad():
        whole = encoder(audio[None])[0]
    assert len(whole) - 4 <= len(features) <= len(whole)  # the last ones would need samples to come
    torch.testing.assert_close(features, whole[: len(features)], atol=5e-5, rtol=0)

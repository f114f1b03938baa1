"""p_now, p_future and entropy: cases worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vap_pipeline.turn_taking.near_future import bin_probabilities, entropy, p_future, p_now


def logits_of(shares: dict[int, float]) -> torch.Tensor:
    logits = torch.full((1, 256), -math.inf)
    for number, share in shares.items():
        logits[0, number] = math.log(share)
    return logits


def approx(*values: float):
    return pytest.approx(list(values), abs=1e-4)


def test_by_hand():
    """Class 1 has bin 1 of A; class 16 + 128 + 2 has bin 2 of A, bins 1 and 4 of B."""
    logits = logits_of({1: 0.25, 146: 0.75})
    bins = bin_probabilities(logits, "discrete")[0]
    assert bins[0].tolist() == approx(0.25, 0.75, 0, 0) and bins[1].tolist() == approx(0.75, 0, 0, 0.75)
    assert p_now(logits)[0].tolist() == approx(1 / 1.75, 0.75 / 1.75)
    assert p_future(logits)[0].tolist() == approx(0, 1)
    assert entropy(logits).item() == pytest.approx(0.25 * 2 + 0.75 * math.log2(4 / 3))


def test_silence_gives_no_speaker_a_share():
    assert p_now(logits_of({0: 1.0}))[0].tolist() == p_future(logits_of({0: 1.0}))[0].tolist() == [0, 0]


def test_entropy_at_its_ends():
    assert entropy(torch.zeros(3, 256)).tolist() == pytest.approx([8.0] * 3)
    assert entropy(logits_of({77: 1.0})).tolist() == [0]
    assert entropy(torch.zeros(3, 8), "independent").tolist() == pytest.approx([8.0] * 3)
    assert entropy(torch.full((1, 8), 200.0), "independent").tolist() == [0]


@given(st.lists(st.floats(-8, 8), min_size=8, max_size=8))
def test_independent_bins_are_the_discrete_model_of_the_same_distribution(numbers):
    """The logit of a class is the sum of the log-probabilities of its bits."""
    logits = torch.tensor(numbers, dtype=torch.float64)
    bits = torch.arange(256)[:, None] >> torch.arange(8) & 1
    joint = torch.where(bits == 1, logits, -logits).sigmoid().log().sum(-1)
    for quantity in (p_now, p_future, entropy):
        torch.testing.assert_close(
            quantity(logits, "independent"), quantity(joint, "discrete"), atol=1e-4, rtol=1e-4
        )


@given(st.integers(0, 2**32))
def test_swapped_speakers_swap_the_probabilities(seed):
    logits = torch.randn(4, 256, generator=torch.Generator().manual_seed(seed))
    swapped = logits.unflatten(-1, (16, 16)).mT.flatten(-2)
    for quantity in (p_now, p_future):
        torch.testing.assert_close(quantity(swapped), quantity(logits).flip(-1))
    torch.testing.assert_close(entropy(swapped), entropy(logits))


@pytest.mark.parametrize("model", ["independent-40", "comparative"])
def test_only_models_with_four_bins(model):
    for quantity in (p_now, p_future, entropy):
        with pytest.raises(ValueError, match="four bins"):
            quantity(torch.zeros(1, 80), model)

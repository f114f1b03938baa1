"""Labels, losses and zero-shot probabilities: cases worked out by hand, and the plain reference."""

import math

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vap_pipeline.turn_taking.projection import (
    HORIZON_FRAMES,
    MODELS,
    OUTPUTS,
    labels,
    loss,
    probabilities,
)

SILENCE, ONLY_A, ONLY_B, BOTH = (0, 0), (1, 0), (0, 1), (1, 1)
SEEDS = st.integers(0, 2**32)


def activity(seed: int, *shape: int) -> Tensor:
    """Random voice activity (*shape, 2) in stretches of random length, some of one frame."""
    generator = torch.Generator().manual_seed(seed)
    *batch, n = shape
    edges = torch.rand(*batch, n, 2, generator=generator) < torch.rand(1, generator=generator)
    return (edges.cumsum(-2) + torch.randint(0, 2, (*batch, 1, 2), generator=generator)) % 2


def window(*stretches: tuple[int, int, int]) -> Tensor:
    """A frame and its projection window (201, 2); stretches are (speaker, first, last) frame after it."""
    va = torch.zeros(1 + HORIZON_FRAMES, 2)
    for speaker, first, last in stretches:
        va[first : last + 1, speaker] = 1
    return va


def logits_of(shares: dict[int, float]) -> Tensor:
    """Logits (1, 256) of a distribution over classes, given by its nonzero shares."""
    logits = torch.full((1, 256), -math.inf)
    for number, share in shares.items():
        logits[0, number] = math.log(share)
    return logits


def number(a: str, b: str) -> int:
    """The class of two patterns of bits such as 0011, the first bin first."""
    return sum(int(bit) * 2**i for i, bit in enumerate(a + b))


def p_of(logits: Tensor, frame: tuple[int, int], model: str) -> list[float]:
    return probabilities(logits, torch.tensor([frame]), model)[0][0].tolist()


def p_bc_of(logits: Tensor, model: str, frame: tuple[int, int] = SILENCE) -> list[float]:
    p_bc = probabilities(logits, torch.tensor([frame]), model)[1]
    assert p_bc is not None
    return p_bc[0].tolist()


# Labels


@pytest.mark.parametrize(
    ("stretches", "a", "b"),
    [
        ([], "0000", "0000"),
        ([(0, 1, 10)], "1000", "0000"),  # half of the first bin's 20 frames
        ([(0, 1, 9)], "0000", "0000"),
        ([(0, 11, 20)], "1000", "0000"),
        ([(0, 12, 40)], "0100", "0000"),  # 9 frames of the first bin, 20 of the second's 40
        ([(0, 12, 39)], "0000", "0000"),
        ([(0, 61, 90)], "0010", "0000"),  # half of 60
        ([(0, 62, 90)], "0000", "0000"),
        ([(0, 161, 200)], "0001", "0000"),  # half of 80
        ([(0, 162, 200)], "0000", "0000"),
        ([(1, 1, 20)], "0000", "1000"),
        ([(1, 21, 60), (0, 121, 200)], "0001", "0100"),
        ([(0, 1, 200), (1, 1, 200)], "1111", "1111"),
    ],
)
def test_bins_are_active_from_half_of_their_frames_on(stretches, a, b):
    va = window(*stretches)
    va[0] = 1  # the frame itself is no part of its window
    assert labels(va, "discrete").tolist() == [number(a, b)]
    expected = [[[float(bit) for bit in a], [float(bit) for bit in b]]]
    assert labels(va, "independent").tolist() == expected


def test_a_s_first_bin_is_the_lowest_bit():
    bins = [(1, 20), (21, 60), (61, 120), (121, 200)]
    found = [labels(window((speaker, *ends)), "discrete").item() for speaker in (0, 1) for ends in bins]
    assert found == [1, 2, 4, 8, 16, 32, 64, 128]


def test_a_bin_of_five_frames_needs_three():
    va = window((0, 1, 2), (0, 8, 10), (1, 196, 200))
    expected = torch.zeros(1, 2, 40)
    expected[0, 0, 1] = expected[0, 1, 39] = 1
    assert torch.equal(labels(va, "independent-40"), expected)


def test_comparative_is_speaker_a_s_share():
    assert labels(window((0, 1, 30), (1, 191, 200)), "comparative").tolist() == [0.75]
    assert labels(window((1, 1, 1)), "comparative").tolist() == [0.0]
    assert labels(window(), "comparative").tolist() == [0.0]
    assert labels(window((0, 7, 7)), "comparative").tolist() == [1.0]


@pytest.mark.parametrize("model", MODELS)
@settings(deadline=None, max_examples=40)
@given(seed=SEEDS)
def test_labels_are_those_of_the_reference(model, seed):
    va = activity(seed, 3, HORIZON_FRAMES + 30)
    found = labels(va, model)
    assert found.shape[:2] == (3, 30)
    assert found.dtype == (torch.int64 if model == "discrete" else torch.float32)
    for t in (0, 13, 29):
        frames = [tuple(frame) for frame in va[1].tolist()]
        np.testing.assert_allclose(found[1, t], reference.label(frames, t, model), rtol=0, atol=1e-6)
    assert torch.equal(found, torch.stack([labels(each, model) for each in va]))
    assert torch.equal(found[:, 7:], labels(va[:, 7:], model))
    assert torch.equal(found, labels(va.to(torch.uint8), model))
    swapped = labels(va.flip(-1), model)
    if model == "discrete":
        assert torch.equal(swapped, found % 16 * 16 + found // 16)
    elif model == "comparative":
        spoken = va.unfold(1, HORIZON_FRAMES, 1)[:, 1:].any(-1).any(-1)
        torch.testing.assert_close(swapped, torch.where(spoken, 1 - found, 0.0), rtol=0, atol=1e-6)
    else:
        assert torch.equal(swapped, found.flip(-2))


# Loss


@pytest.mark.parametrize("model", MODELS)
def test_loss_of_knowing_nothing(model):
    target = labels(activity(0, 2, HORIZON_FRAMES + 5), model)
    nothing = torch.zeros(2, 5, OUTPUTS[model])
    expected = math.log(256) if model == "discrete" else math.log(2)
    assert loss(nothing, target, model).item() == pytest.approx(expected)


def test_loss_is_the_mean_over_frames_speakers_and_bins():
    logits = torch.tensor([[[math.log(3)] * 8, [0.0] * 8]])  # σ = 3/4 everywhere in the first frame
    target = torch.zeros(1, 2, 2, 4)
    target[0, 0, 0] = 1  # A's bins
    in_first = (4 * math.log(4 / 3) + 4 * math.log(4)) / 8
    assert loss(logits, target, "independent").item() == pytest.approx((in_first + math.log(2)) / 2)
    share = loss(torch.tensor([[[math.log(3)]]]), torch.tensor([[0.5]]), "comparative")
    assert share.item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)


def test_loss_pairs_the_logits_of_a_with_the_bits_of_a():
    target = labels(window((0, 1, 200)), "independent-40")
    logits = torch.cat([torch.full((1, 40), 20.0), torch.full((1, 40), -20.0)], dim=-1)
    assert loss(logits, target, "independent-40").item() < 1e-6


# Probabilities


def test_discrete_in_silence_weighs_who_starts_late_and_alone():
    shares = {
        number("0011", "0000"): 0.1,
        number("1111", "0000"): 0.2,
        number("0000", "0111"): 0.1,
        number("0011", "1000"): 0.3,  # not alone
        number("0001", "0000"): 0.3,  # not both of the last bins
    }
    assert p_of(logits_of(shares), SILENCE, "discrete") == pytest.approx([0.75, 0.25])


def test_discrete_while_somebody_speaks_weighs_taking_over_against_keeping_on():
    shares = {
        number("1100", "0011"): 0.10,  # B takes over
        number("1000", "1011"): 0.05,
        number("0000", "0111"): 0.05,  # B takes over; A, asked to take over, stays silent
        number("0011", "0000"): 0.20,  # A takes over; B, asked to take over, stays silent
        number("1011", "1000"): 0.40,  # A takes over
        number("0100", "0011"): 0.20,  # A's pattern is none of the three
    }
    a_a, a_b = 0.6 / (0.6 + 0.05), 0.2 / (0.2 + 0.2)
    logits = logits_of(shares)
    assert p_of(logits, ONLY_A, "discrete") == pytest.approx([1 - a_b, a_b])
    assert p_of(logits, ONLY_B, "discrete") == pytest.approx([a_a, 1 - a_a])
    assert p_of(logits, BOTH, "discrete") == pytest.approx([a_a / (a_a + a_b), a_b / (a_a + a_b)])


def test_discrete_backchannels():
    shares = {
        number("1000", "0001"): 0.1,
        number("0110", "1111"): 0.2,
        number("1001", "0001"): 0.3,  # A's last bin is active
        number("0000", "0001"): 0.1,  # nothing of A
        number("0101", "0010"): 0.3,  # of B
    }
    for frame in (SILENCE, ONLY_A, ONLY_B, BOTH):
        assert p_bc_of(logits_of(shares), "discrete", frame) == pytest.approx([0.3, 0.3])


def test_discrete_rules_have_4_12_4_and_56_classes():
    uniform = torch.zeros(1, 256)
    assert p_of(uniform, SILENCE, "discrete") == pytest.approx([4 / 8, 4 / 8])
    assert p_of(uniform, ONLY_A, "discrete") == pytest.approx([4 / 16, 12 / 16])
    assert p_of(uniform, ONLY_B, "discrete") == pytest.approx([12 / 16, 4 / 16])
    assert p_of(uniform, BOTH, "discrete") == pytest.approx([0.5, 0.5])
    assert p_bc_of(uniform, "discrete") == pytest.approx([56 / 256, 56 / 256])


def test_independent_weighs_the_sums_of_the_bins():
    active = torch.tensor([[0.9, 0.3, 0.2, 0.1, 0.1, 0.1, 0.4, 0.4]])
    logits = active.logit()
    assert p_of(logits, SILENCE, "independent") == pytest.approx([1.5 / 2.5, 1.0 / 2.5])
    for frame in (ONLY_A, ONLY_B, BOTH):  # without the first two bins
        assert p_of(logits, frame, "independent") == pytest.approx([0.3 / 1.1, 0.8 / 1.1])


def test_independent_40_leaves_out_twelve_bins():
    active = torch.full((1, 80), 0.25)
    active[0, :12] = 0.75
    logits = active.logit()
    assert p_of(logits, SILENCE, "independent-40") == pytest.approx([16 / 26, 10 / 26])
    assert p_of(logits, ONLY_A, "independent-40") == pytest.approx([0.5, 0.5])
    active[0, 12] = 0.75
    assert p_of(active.logit(), ONLY_B, "independent-40") == pytest.approx([7.5 / 14.5, 7 / 14.5])


@pytest.mark.parametrize(
    ("a", "b", "p_bc"),
    [
        ([0.2, 0.7, 0.1, 0.3], [0.1, 0.1, 0.9, 0.6], [0.7, 0.0]),
        ([0.2, 0.2, 0.1, 0.3], [0.1, 0.1, 0.9, 0.6], [0.0, 0.0]),  # A's largest is its last
        ([0.2, 0.3, 0.1, 0.3], [0.1, 0.1, 0.9, 0.6], [0.0, 0.0]),  # as large as its last
        ([0.2, 0.7, 0.1, 0.3], [0.1, 0.1, 0.9, 0.3], [0.0, 0.0]),  # the last bins are as probable
        ([0.2, 0.7, 0.1, 0.4], [0.1, 0.1, 0.9, 0.3], [0.0, 0.9]),
    ],
)
def test_independent_backchannels(a, b, p_bc):
    assert p_bc_of(torch.tensor([a + b]).logit(), "independent") == pytest.approx(p_bc)


@pytest.mark.parametrize("frame", [SILENCE, ONLY_A, ONLY_B, BOTH])
def test_comparative_says_the_same_in_every_state(frame):
    logits = torch.tensor([[0.8]]).logit()
    assert p_of(logits, frame, "comparative") == pytest.approx([0.8, 0.2])
    assert probabilities(logits, torch.tensor([frame]), "comparative")[1] is None


@pytest.mark.parametrize("model", MODELS)
@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, scale=st.sampled_from([0.1, 1.0, 4.0]))
def test_probabilities_are_those_of_the_reference(model, seed, scale):
    va = activity(seed, 2, 9)
    logits = scale * torch.randn(2, 9, OUTPUTS[model], generator=torch.Generator().manual_seed(seed))
    p, p_bc = probabilities(logits, va, model)
    assert p.dtype == torch.float32
    for i, t in [(0, 0), (0, 5), (1, 4), (1, 8)]:
        frame = tuple(va[i, t].tolist())
        expected, expected_bc = reference.probabilities(logits[i, t].tolist(), frame, model)
        np.testing.assert_allclose(p[i, t], expected, rtol=0, atol=1e-6)
        if expected_bc is not None:
            assert p_bc is not None
            np.testing.assert_allclose(p_bc[i, t], expected_bc, rtol=0, atol=1e-6)


@pytest.mark.parametrize("model", MODELS)
@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, scale=st.sampled_from([1.0, 30.0, 1e4]))
def test_probabilities_are_probabilities_and_swap_with_the_speakers(model, seed, scale):
    va = activity(seed, 2, 50)
    logits = scale * torch.randn(2, 50, OUTPUTS[model], generator=torch.Generator().manual_seed(seed))
    p, p_bc = probabilities(logits, va, model)
    assert ((p >= 0) & (p <= 1)).all()
    torch.testing.assert_close(p.sum(-1), torch.ones(2, 50), rtol=0, atol=1e-6)

    if model == "discrete":
        swapped = logits.unflatten(-1, (16, 16)).mT.flatten(-2)
    elif model == "comparative":
        swapped = -logits
    else:
        swapped = logits.unflatten(-1, (2, -1)).flip(-2).flatten(-2)
    q, q_bc = probabilities(swapped, va.flip(-1), model)
    torch.testing.assert_close(q, p.flip(-1), rtol=0, atol=1e-6)
    single = [probabilities(logits[i], va[i], model) for i in (0, 1)]
    torch.testing.assert_close(torch.stack([each for each, _ in single]), p, rtol=0, atol=1e-6)
    if p_bc is not None and q_bc is not None:
        assert ((p_bc >= 0) & (p_bc <= 1 + 1e-6)).all()
        torch.testing.assert_close(q_bc, p_bc.flip(-1), rtol=0, atol=1e-6)

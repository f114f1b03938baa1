"""Frame rates below 100 Hz: voice activity, labels, and values held, by hand and by loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vap_pipeline.io.errors import InputError
from vap_pipeline.turn_taking.frame_rates import RATES_HZ, activity_at, at_frame_ends, held, stride
from vap_pipeline.turn_taking.projection import bins, labels

RATES = st.sampled_from(RATES_HZ)


def activity(frames: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(frames, 2, generator=generator) < 0.5).to(torch.uint8)


def test_strides():
    assert [stride(rate) for rate in RATES_HZ] == [1, 2, 4, 5, 8, 10, 20]
    with pytest.raises(InputError, match="40 Hz is not supported"):
        stride(40)


def test_a_frame_is_active_when_at_least_half_of_it_is():
    a, b = [1, 0, 0, 0, 0, 1, 1, 1, 1], [1, 1, 0, 0, 1, 0, 0, 0, 0]
    va = torch.tensor([a, b]).T
    assert activity_at(va, 50).T.tolist() == [[1, 0, 1, 1, 1], [1, 0, 1, 0, 0]]
    assert activity_at(va, 25).T.tolist() == [[0, 1, 0], [1, 0, 0]]
    assert activity_at(va, 20).T.tolist() == [[0, 1], [1, 0]]
    assert activity_at(va, 100) is not va and torch.equal(activity_at(va, 100), va)


@given(st.integers(1, 90), RATES, st.integers(0, 99))
def test_activity_is_that_of_a_loop(frames, rate_hz, seed):
    va, size = activity(frames, seed), stride(rate_hz)
    expected = [(va[t : t + size].sum(0) >= size / 2).int().tolist() for t in range(0, frames, size)]
    assert activity_at(va, rate_hz).tolist() == expected
    assert activity_at(va.float()[None].repeat(3, 1, 1), rate_hz)[2].int().tolist() == expected


def test_values_at_frame_ends():
    values = torch.arange(10)[:, None]
    assert at_frame_ends(values, 100).flatten().tolist() == list(range(10))
    assert at_frame_ends(values, 50).flatten().tolist() == [1, 3, 5, 7, 9]
    assert at_frame_ends(values, 25).flatten().tolist() == [3, 7, 9]
    assert at_frame_ends(values, 5).flatten().tolist() == [9]


def test_values_are_held_from_the_end_of_their_frame():
    values = torch.tensor([[1.0], [2], [3]])
    assert held(values, 25, 12).flatten().tolist() == [1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3]
    assert held(values, 100, 3).flatten().tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="do not cover 16"):
        held(values, 25, 16)


@given(st.integers(1, 90), RATES)
def test_held_values_know_nothing_of_the_future(frames, rate_hz):
    """Values are the number of the last 10 ms of their frame: none is read before its time."""
    times = torch.arange(frames, dtype=torch.float)[:, None]
    numbers = held(at_frame_ends(times, rate_hz), rate_hz, frames)
    size = stride(rate_hz)
    late = torch.arange(frames) >= size - 1
    assert (numbers[late] <= times[late]).all() and (numbers > times - size).all()


@pytest.mark.parametrize(
    ("rate_hz", "expected"),
    [
        (100, (20, 40, 60, 80)),
        (50, (10, 20, 30, 40)),
        (25, (5, 10, 15, 20)),
        (20, (4, 8, 12, 16)),
        (12.5, (3, 5, 7, 10)),
        (10, (2, 4, 6, 8)),
        (5, (1, 2, 3, 4)),
    ],
)
def test_bins_of_a_rate(rate_hz, expected):
    assert bins("discrete", round(2 * rate_hz), rate_hz) == expected


def test_forty_bins_of_a_rate():
    assert bins("independent-40", 100, 50) == (3, 2) * 20
    assert bins("independent-40", 40, 20) == (1,) * 40
    for rate_hz in (12.5, 10.0, 5.0):
        with pytest.raises(InputError, match=f"shorter than a frame at {rate_hz:g} Hz"):
            bins("independent-40", round(2 * rate_hz), rate_hz)


def test_labels_at_12_5_hz_by_hand():
    """Bins are frames 1-3, 4-8, 9-15 and 16-25 after the present one."""
    va = torch.zeros(26, 2)
    va[[1, 2], 0] = 1  # 2 of 3
    va[[9, 10, 11], 0] = 1  # 3 of 7
    va[[4, 5, 6], 1] = 1  # 3 of 5
    va[16:21, 1] = 1  # 5 of 10
    bits = labels(va, "independent", 25, 12.5)
    assert bits.tolist() == [[[1, 0, 0, 0], [0, 1, 0, 1]]]
    assert labels(va, "discrete", 25, 12.5).tolist() == [1 + 32 + 128]


@given(st.integers(0, 99))
def test_labels_at_50_hz_are_those_of_part_1_on_frames_of_20_ms(seed):
    """Every 20 ms twice over at 100 Hz: the label of its second half is that at 50 Hz."""
    slow = activity(130, seed)
    fast = slow.repeat_interleave(2, 0)
    assert torch.equal(activity_at(fast, 50), slow)
    for model in ("discrete", "independent", "comparative"):
        torch.testing.assert_close(labels(slow, model, 100, 50), labels(fast, model)[1::2])

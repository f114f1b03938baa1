"""Frames, voice activity and activity history: cases worked out by hand, and the plain reference."""

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vap_pipeline.turn_taking.voice_activity import activity_history, frames, voice_activity

# First and last age, in frames, of what each of the five periods of the history covers.
AGES = [(6000, None), (3000, 5999), (1000, 2999), (500, 999), (0, 499)]


def mark(*segments: tuple[int, float, float], n_frames: int = 20) -> np.ndarray:
    channel, start, end = np.array(segments, dtype=float).reshape(-1, 3).T
    return voice_activity(channel.astype(np.int8), start, end, n_frames)


@pytest.mark.parametrize(("seconds", "n"), [(0.0, 1), (0.009, 1), (0.01, 2), (1.15, 116), (599.999, 60000)])
def test_a_conversation_has_one_frame_more_than_whole_hundredths(seconds, n):
    assert frames(seconds) == n


def test_every_time_in_hundredths_falls_on_its_own_frame():
    times = [i / 100 for i in range(100_000)]
    assert [frames(t) - 1 for t in times] == list(range(100_000))


def test_a_segment_fills_from_the_floor_of_its_start_up_to_the_floor_of_its_end():
    va = mark((0, 0.025, 0.05), (1, 0.07, 0.1199))
    assert va.dtype == np.uint8
    assert va.shape == (20, 2)
    assert np.flatnonzero(va[:, 0]).tolist() == [2, 3, 4]
    assert np.flatnonzero(va[:, 1]).tolist() == [7, 8, 9, 10]


def test_a_product_that_floats_round_down_falls_on_its_frame():
    assert 100 * 1.15 < 115  # the trap
    assert np.flatnonzero(mark((0, 1.15, 1.16), n_frames=200)[:, 0]).tolist() == [115]


def test_segments_may_overlap_touch_vanish_and_run_over_the_end():
    va = mark((0, 0.01, 0.05), (0, 0.03, 0.07), (0, 0.07, 0.08), (0, 0.101, 0.109), (0, 0.18, 9.0))
    assert np.flatnonzero(va[:, 0]).tolist() == [1, 2, 3, 4, 5, 6, 7, 18, 19]
    assert not va[:, 1].any()
    assert not mark().any()


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 3100), st.integers(0, 900)).map(
            lambda s: (s[0], s[1] / 1000, (s[1] + s[2]) / 1000)
        )
    )
)
def test_voice_activity_is_that_of_the_reference(segments):
    va = mark(*segments, n_frames=300)
    assert list(map(tuple, va.tolist())) == reference.voice_activity(segments, 300)


@pytest.mark.parametrize("period", range(5))
def test_each_period_of_the_history_has_its_borders(period):
    first_age, last_age = AGES[period]
    va = torch.zeros(8000, 2, dtype=torch.uint8)
    va[100, 0] = 1
    share = activity_history(va)[:, period]
    expected = torch.full((8000,), 0.5)
    expected[100 + first_age : None if last_age is None else 100 + last_age + 1] = 1
    assert torch.equal(share, expected)


def test_the_history_is_speaker_a_s_share():
    va = torch.zeros(1000, 2, dtype=torch.uint8)
    va[0:100, 0] = 1
    va[50:350, 1] = 1
    history = activity_history(va)
    assert history.dtype == torch.float32
    assert history[0].tolist() == [0.5, 0.5, 0.5, 0.5, 1.0]
    assert history[399].tolist() == [0.5, 0.5, 0.5, 0.5, 0.25]  # 100 frames of A, 300 of B
    assert history[549].tolist() == pytest.approx([0.5, 0.5, 0.5, 1.0, 50 / 350])  # up to 49, and 50 to 549
    assert history[999].tolist() == [0.5, 0.5, 0.5, 0.25, 0.5]


def test_a_long_history_is_exact():
    torch.manual_seed(1)
    # Speech in stretches of about a second; A talks twice as much.
    va = (torch.rand(90, 2) < torch.tensor([0.6, 0.3])).repeat_interleave(100, dim=0)
    history = activity_history(va)
    frames_of_va = [tuple(frame) for frame in va.int().tolist()]
    for t in [*range(0, 9000, 311), 499, 500, 999, 1000, 2999, 3000, 5999, 6000, 8999]:
        np.testing.assert_allclose(history[t], reference.activity_history(frames_of_va, t), rtol=0, atol=1e-6)


def test_a_cut_with_a_minute_of_context_has_the_history_of_the_whole():
    torch.manual_seed(2)
    va = (torch.rand(2, 120, 2) < 0.4).repeat_interleave(100, dim=1)
    whole = activity_history(va)
    before = va[:, :3700].sum(1)
    cut = activity_history(va[:, 3700:], before)
    assert torch.equal(cut[:, 6000:], whole[:, 9700:])


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 700), st.floats(0, 1), st.floats(0, 1))
def test_swapping_the_speakers_turns_the_history_over_and_batch_equals_single(seed, n, a, b):
    torch.manual_seed(seed)
    va = (torch.rand(3, n, 2) < torch.tensor([a, b])).to(torch.uint8)
    history = activity_history(va)
    torch.testing.assert_close(activity_history(va.flip(-1)), 1 - history, rtol=0, atol=1e-6)
    assert torch.equal(history, torch.stack([activity_history(each) for each in va]))
    assert torch.equal(history, activity_history(va.float()))

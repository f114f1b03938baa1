"""Which windows a step trains on."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vap_pipeline.train.batches import Plan, pieces


@given(windows=st.integers(1, 200), batch=st.integers(1, 60), seed=st.integers(0, 5), epoch=st.integers(0, 3))
def test_an_epoch_is_every_window_once(windows, batch, seed, epoch):
    plan = Plan(windows, batch, 0.5, seed)
    steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
    indices = [plan(step)[0] for step in steps]
    assert sorted(np.concatenate(indices)) == list(range(windows))
    assert [len(index) for index in indices[:-1]] == [batch] * (plan.steps_per_epoch - 1)


def test_epochs_and_seeds_differ_and_a_plan_remembers_nothing():
    plan = Plan(100, 100, 0.5, seed=1)
    orders = [plan(0), plan(1), Plan(100, 100, 0.5, seed=2)(0)]
    assert len({index.tobytes() for index, _ in orders}) == 3
    assert len({swapped.tobytes() for _, swapped in orders}) == 3
    assert np.array_equal(plan(0)[0], orders[0][0]) and np.array_equal(plan(0)[1], orders[0][1])


def test_a_window_swaps_with_its_probability_whatever_the_batch():
    def swapped(swap, batch):
        steps = [Plan(9000, batch, swap, 0)(step) for step in range(9000 // batch)]
        index, mask = (np.concatenate(each) for each in zip(*steps, strict=True))
        return mask[index.argsort()]

    assert not swapped(0.0, 9000).any() and swapped(1.0, 9000).all()
    assert abs(swapped(0.5, 9000).mean() - 0.5) < 0.02
    assert np.array_equal(swapped(0.3, 9000), swapped(0.3, 10))


@given(size=st.integers(1, 40), n=st.integers(1, 12))
def test_pieces_are_the_batch_and_their_weights_its_mean(size, n):
    index, swapped = np.arange(100, 100 + size), np.arange(size) % 2 == 0
    cut = pieces(index, swapped, n)
    assert len(cut) == n
    counted = [piece for piece in cut if piece.weight]
    assert np.array_equal(np.concatenate([piece.windows for piece in counted]), index)
    assert np.array_equal(np.concatenate([piece.swapped for piece in counted]), swapped)
    values = np.random.default_rng(size).random(200)
    mean = sum(piece.weight * values[piece.windows].mean() for piece in cut)  # no piece is empty
    np.testing.assert_allclose(mean, values[index].mean())

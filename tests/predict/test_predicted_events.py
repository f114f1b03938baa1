"""Predicted events of a made-up dialogue, worked out by hand."""

import numpy as np
import pytest

from vap_pipeline.predict.events import predicted_events


def test_a_shift_a_hold_and_a_backchannel_by_hand():
    """A speaks 0-1 s, B 1.5-2.5 s, B again 3-4 s, nobody until 5 s."""
    va = np.zeros((500, 2), np.uint8)
    va[:100, 0] = va[150:250, 1] = va[300:400, 1] = 1
    p = np.full((500, 2), 0.5)
    p[100:150] = [0.2, 0.8]  # in A's silence B is expected: a shift, rightly
    p[250:300] = [0.7, 0.3]  # in B's pause A is expected: a shift, wrongly
    p[400:500] = [0.1, 0.9]  # at the end B is expected to go on
    p_bc = np.zeros((500, 2))
    p_bc[200:215, 0] = p_bc[225:240, 0] = 0.4  # A's, with a break of 0.1 s
    p_bc[10:15, 1] = 0.9  # B's, too short
    p_bc[20:60, 0] = 0.9  # A's while A speaks
    first, bc, second, last = predicted_events(va, p, p_bc, threshold=0.3)
    assert first[:4] == ("shift", 1, 1.0, 1.5) and first.truth == "shift"
    assert first.probability == pytest.approx(0.8) and first.error == pytest.approx(0.2)
    assert bc[:4] == ("backchannel", 0, 2.0, 2.4) and bc.probability == pytest.approx(0.4 * 30 / 40)
    assert (
        second[:4] == ("shift", 0, 2.5, 3.0) and second.truth == "hold" and second.error == pytest.approx(0.7)
    )
    assert last[:4] == ("hold", 1, 4.0, 5.0) and last.truth is None and last.error is None
    assert predicted_events(va, p, None) == [first, second, last]


def test_nothing_is_predicted_where_nobody_speaks():
    assert predicted_events(np.zeros((50, 2), np.uint8), np.full((50, 2), 0.5), np.zeros((50, 2))) == []

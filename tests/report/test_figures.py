import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from sklearn.metrics import precision_recall_curve as sklearn_curve

from vap_pipeline.report.figures import Curve, points, precision_recall, precision_recall_curve


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=60))
def test_curve_is_sklearns(examples: list[tuple[bool, int]]):
    label = np.array([int(positive) for positive, _ in examples])
    label[:2] = 0, 1
    score = np.array([value / 8 for _, value in examples], np.float32)
    recall, precision = precision_recall_curve(label, score)
    expected_precision, expected_recall, _ = sklearn_curve(
        label, score
    )  # from the lowest threshold on, and (1, 0)
    assert recall == pytest.approx(expected_recall[-2::-1])
    assert precision == pytest.approx(expected_precision[-2::-1])
    average = np.sum(np.diff(recall, prepend=0) * precision)
    assert average == pytest.approx(average_precision_score(label, score))


def test_a_task_without_events_is_drawn_empty():
    curves = {task: {} for task in ("hold_shift", "short_long", "predict_shift", "predict_backchannel")}
    assert precision_recall("small", curves)[:4] == b"\x89PNG"
    assert points(curves) == b""
    curves["hold_shift"]["a model of one's own"] = Curve(
        [np.linspace(1, 0.5, 201)] * 2, [0.7] * 2, [(0.5, 0.7)] * 2
    )
    assert len(precision_recall("small", curves)) > len(
        precision_recall("small", {**curves, "hold_shift": {}})
    )

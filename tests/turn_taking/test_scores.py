import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from vap_pipeline.turn_taking.events import windows
from vap_pipeline.turn_taking.scores import (
    LEVELS,
    TASKS,
    THRESHOLDS,
    collect,
    count,
    f1,
    majority,
    regions,
    scores,
    thresholds,
)


def conversation(seed: int, frames: int = 6000) -> np.ndarray:
    """Random turns and gaps, long enough for every event."""
    generator = np.random.default_rng(seed)
    va = np.zeros((frames, 2), np.uint8)
    frame, speaker = 0, 0
    while frame < frames:
        turn = int(generator.integers(110, 400))
        va[frame : frame + turn, speaker] = 1
        if turn > 350:  # a backchannel of the other
            va[frame + 110 : frame + 150, 1 - speaker] = 1
        frame += turn + int(generator.integers(15, 60))
        speaker ^= int(generator.random() < 0.5)
    return va


def outputs(number_of_windows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(number_of_windows, 1000, generator=generator)
    return torch.stack([p, 1 - p], -1), torch.rand(number_of_windows, 1000, 2, generator=generator)


def table(task: str, label: int, probabilities: list[float]) -> pa.Table:
    return pa.table(
        {
            "task": [task],
            "label": pa.array([label], pa.int8()),
            "probability": pa.array([np.mean(probabilities)], pa.float32()),
            "probabilities": pa.array([probabilities], pa.list_(pa.float32())),
        }
    )


def score(rows: list[dict], metric: str, level: str) -> dict:
    (row,) = [row for row in rows if row["metric"] == metric and row["level"] == level]
    return row


def test_every_cell_of_the_definition():
    """One region of each task and label, window 3 of the set, each probability read from its own place."""
    cells = [  # task, label, speaker, expected value at frame t of (p of A, p of B, p_bc of A, p_bc of B)
        ("hold_shift", 1, 0, lambda a, b, x, y: a),
        ("hold_shift", 0, 1, lambda a, b, x, y: 1 - b),
        ("predict_shift", 1, 1, lambda a, b, x, y: b),
        ("predict_shift", 0, 0, lambda a, b, x, y: 1 - a),
        ("predict_backchannel", 1, 0, lambda a, b, x, y: x),
        ("predict_backchannel", 0, 0, lambda a, b, x, y: y),
        ("short_long", 1, 1, lambda a, b, x, y: y),
        ("short_long", 0, 0, lambda a, b, x, y: x),
    ]
    found = pa.table(
        {
            "index": pa.array([3] * len(cells), pa.int64()),
            "conversation": ["c"] * len(cells),
            "window": pa.array([3] * len(cells), pa.int32()),
            "task": [cell[0] for cell in cells],
            "label": pa.array([cell[1] for cell in cells], pa.int8()),
            "speaker": pa.array([cell[2] for cell in cells], pa.int8()),
            "start": pa.array([400 + i for i in range(len(cells))], pa.int16()),
            "end": pa.array([402 + i for i in range(len(cells))], pa.int16()),
        }
    )
    generator = torch.Generator().manual_seed(0)
    p, p_bc = torch.rand(2, 1000, 2, generator=generator), torch.rand(2, 1000, 2, generator=generator)
    collected = collect(found, np.array([7, 3]), p, p_bc)
    swapped = collect(found, np.array([7, 3]), p.flip(-1), p_bc.flip(-1), swapped=True)
    for i, (task, _, _, expected) in enumerate(cells):
        values = [float(expected(*p[1, t], *p_bc[1, t])) for t in (400 + i, 401 + i)]
        assert collected["probabilities"][i].as_py() == pytest.approx(values, abs=1e-6), task
        assert collected["probability"][i].as_py() == pytest.approx(np.mean(values), abs=1e-6)
        assert swapped["probabilities"][i].as_py() == collected["probabilities"][i].as_py()
    assert set(swapped["swapped"].to_pylist()) == {True}

    comparative = collect(found, np.array([7, 3]), p)  # no backchannels; 1 - p of X for short and long
    assert comparative["task"].to_pylist() == [task for task, *_ in cells if task != "predict_backchannel"]
    assert comparative["probabilities"][4].as_py() == pytest.approx((1 - p[1, 406:408, 1]).tolist(), abs=1e-6)
    assert comparative["probabilities"][5].as_py() == pytest.approx((1 - p[1, 407:409, 0]).tolist(), abs=1e-6)


def test_weighted_f1_by_hand():
    # Frames: shifts .9 .4, holds .5 (at the threshold: says shift) .1 .2 .3
    # shift: TP 1, FP 1, FN 1 -> F1 1/2; hold: TP 3, FP 1, FN 1 -> F1 3/4; weighted (2·1/2 + 4·3/4)/6 = 2/3.
    # Events: shift mean .65 right; hold mean .275 right -> 1.
    counts = count(
        pa.concat_tables([table("hold_shift", 1, [0.9, 0.4]), table("hold_shift", 0, [0.5, 0.1, 0.2, 0.3])])
    )
    rows = scores(counts, thresholds(counts))
    assert score(rows, "f1_hold_shift", "frame") == {
        "metric": "f1_hold_shift",
        "level": "frame",
        "value": pytest.approx(2 / 3),
        "threshold": 0.5,
        "support_0": 4,
        "support_1": 2,
    }
    assert score(rows, "f1_shift", "frame")["value"] == pytest.approx(1 / 2)
    assert score(rows, "f1_hold_shift", "event")["value"] == 1
    assert score(rows, "f1_hold_shift", "event")["support_0"] == 1
    assert {row["metric"] for row in rows} == {"f1_hold_shift", "f1_shift"}  # nothing else was collected


def test_the_threshold_is_chosen_on_one_set_and_used_on_another():
    validation = count(
        pa.concat_tables([table("short_long", 1, [0.31, 0.9]), table("short_long", 0, [0.02, 0.2])])
    )
    best = thresholds(validation)
    # 0.21 … 0.31 are all without a mistake: the lowest of them.
    assert THRESHOLDS[best[TASKS.index("short_long"), LEVELS.index("frame")]] == pytest.approx(0.21)
    test = count(pa.concat_tables([table("short_long", 1, [0.21, 0.2]), table("short_long", 0, [0.9, 0.1])]))
    row = score(scores(test, best), "f1_short_long", "frame")
    assert row["value"] == pytest.approx(0.5)
    assert row["threshold"] == 0.21


def test_thresholds_without_anything_to_score_are_one_half():
    best = thresholds(np.zeros((len(TASKS), len(LEVELS), 2, len(THRESHOLDS) + 1), np.int64))
    assert (THRESHOLDS[best] == np.float32(0.5)).all()
    assert scores(np.zeros((len(TASKS), len(LEVELS), 2, len(THRESHOLDS) + 1), np.int64), best) == []


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([0, 0.01, 0.5, 0.99, 1]) | st.floats(0, 1, width=32)),
        min_size=1,
        max_size=40,
    )
)
def test_f1_is_sklearns(examples: list[tuple[bool, float]]):
    labels = np.array([label for label, _ in examples])
    probability = np.array([value for _, value in examples], np.float32)
    parts = [
        table("short_long", int(label), probability[labels == label].tolist()) for label in np.unique(labels)
    ]
    weighted, positive = f1(count(pa.concat_tables(parts))[TASKS.index("short_long"), 0])
    for threshold, value, own in list(zip(THRESHOLDS, weighted, positive, strict=True))[
        ::14
    ]:  # .01 .15 … .99
        said = probability >= threshold
        if 0 < labels.sum() < len(labels):
            assert value == pytest.approx(f1_score(labels, said, average="weighted", zero_division=0))
            assert own == pytest.approx(f1_score(labels, said, zero_division=0))
        else:  # nothing to tell apart
            assert np.isnan(value) and np.isnan(own)


def test_majority_is_the_score_of_a_constant_answer():
    for zeros, ones in [(5, 3), (3, 5), (4, 4)]:
        labels = np.repeat([0, 1], [zeros, ones])
        answer = np.full(len(labels), int(ones > zeros))
        assert majority(zeros, ones) == pytest.approx(f1_score(labels, answer, average="weighted"))
    assert majority(100, 100) == pytest.approx(1 / 3)  # .333, the published row of both predictions


def test_negatives_lie_in_non_shift_and_are_as_many_as_the_positives():
    va = conversation(1, 40_000)
    found = regions([("c", va)], seed=5).to_pylist()
    for task in ("predict_shift", "predict_backchannel"):
        rows = [row for row in found if row["task"] == task]
        negatives = [row for row in rows if row["label"] == 0]
        assert len(negatives) == len(rows) - len(negatives) > 3
        covered = set()
        for row in negatives:
            assert row["end"] - row["start"] == 50
            for t in range(row["start"], row["end"]):
                frame = 800 * row["window"] + t
                speaker = row["speaker"]
                assert t >= 300 and t < 1000
                ahead = va[frame + 1 : frame + 201]
                assert ahead[:, speaker].any() and not ahead[:, 1 - speaker].any()
                spoken = va[800 * row["window"] : frame + 1]
                last = spoken[spoken.any(1)][-1]
                assert last[speaker] and not last[1 - speaker]
                if task == "predict_shift":
                    assert va[frame].sum() == 1
                assert (frame, task) not in covered
                covered.add((frame, task))


def test_all_pieces_are_taken_where_there_are_fewer_than_positives():
    va = np.zeros((1200, 2), np.uint8)
    va[100:310, 0] = va[470:, 0] = 1
    va[330:450, 1] = 1
    va[[640, 900, 1100], 1] = 1  # no 2 s without B but after frame 640, until 900 comes into the look-ahead
    rows = [row for row in regions([("c", va)], seed=0).to_pylist() if row["task"] == "predict_shift"]
    assert [(row["label"], row["speaker"], row["start"], row["end"]) for row in rows] == [
        (0, 0, 641, 691),
        (1, 1, 260, 310),
        (1, 0, 400, 450),
    ]


def test_drawing_depends_on_seed_and_conversation_alone():
    names = ["sw1", "sw2", "sw3"]
    talks = [(name, conversation(i, 20_000)) for i, name in enumerate(names)]
    together = regions(talks, seed=3)
    for i, talk in enumerate(talks):
        alone = regions([talk], seed=3).drop_columns("index")
        part = together.filter(np.array(together["conversation"]) == names[i]).drop_columns("index")
        assert part.equals(alone)
        assert not regions([talk], seed=4).drop_columns("index").equals(alone)
        assert not regions([("other", talk[1])], seed=3)["start"].equals(alone["start"])
    assert together["index"].to_pylist() == sorted(together["index"].to_pylist())
    last = len(windows(torch.from_numpy(talks[0][1])))
    assert together.filter(np.array(together["conversation"]) == "sw2")["index"][0].as_py() >= last


def test_swapping_the_speakers_swaps_the_regions():
    va = conversation(2, 30_000)
    found, other = (regions([("c", a)], seed=0) for a in (va, va[:, ::-1].copy()))
    key = ("window", "task", "label", "start", "end", "speaker")

    def rows(table: pa.Table, flip: bool) -> set[tuple]:
        return {tuple(row[k] if k != "speaker" else row[k] ^ flip for k in key) for row in table.to_pylist()}

    positives = {row for row in rows(found, False) if row[2] == 1 or row[1] in ("hold_shift", "short_long")}
    assert positives <= rows(other, True)


def test_batches_and_their_order_change_nothing():
    talks = [(f"c{i}", conversation(i, 12_000)) for i in range(3)]
    found = regions(talks, seed=1)
    n = sum(len(windows(torch.from_numpy(va))) for _, va in talks)
    p, p_bc = outputs(n)
    whole = collect(found, np.arange(n), p, p_bc)
    assert len(whole) == len(found)
    assert len(set(whole["task"].to_pylist())) == len(TASKS)
    generator = np.random.default_rng(0)
    order = generator.permutation(n)
    parts = [collect(found, part, p[part], p_bc[part]) for part in np.array_split(order, 5)]
    keys = [(name, "ascending") for name in ("conversation", "window", "task", "label", "start", "speaker")]
    assert pa.concat_tables(parts).sort_by(keys).equals(whole.sort_by(keys))
    assert (sum(count(part) for part in parts) == count(whole)).all()


def test_outputs_may_end_after_the_last_region():
    found = regions([("c", conversation(4))], seed=1)
    n = len(windows(torch.from_numpy(conversation(4))))
    p, p_bc = outputs(n)
    end = max(found["end"].to_pylist())
    assert collect(found, np.arange(n), p[:, :end], p_bc[:, :end]).equals(
        collect(found, np.arange(n), p, p_bc)
    )


def test_nothing_to_score():
    found = regions(
        [("short", np.zeros((500, 2), np.uint8)), ("silent", np.zeros((3000, 2), np.uint8))], seed=0
    )
    assert len(found) == 0
    collected = collect(found, np.arange(3), *outputs(3))
    assert len(collected) == 0
    assert count(collected).sum() == 0
    assert len(regions([], seed=0)) == 0

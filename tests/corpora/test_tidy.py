"""The tolerant layer: differences of form change no frame, and impossible values are refused."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vap_pipeline.corpora import tidy
from vap_pipeline.corpora.build import Speech
from vap_pipeline.corpora.formats.row import Row
from vap_pipeline.io.errors import InputError
from vap_pipeline.turn_taking.voice_activity import voice_activity

FRAMES = 1_200
MILLISECONDS = st.integers(0, 11_900)
SPANS = st.lists(st.tuples(MILLISECONDS, MILLISECONDS).map(sorted), min_size=1, max_size=30)


def speech(rows: list[tuple[Row, int]], unit: str = "s") -> tuple[Speech, Counter[str]]:
    counts: Counter[str] = Counter()
    return tidy.speech_of(rows, unit, counts), counts


def triples(found: Speech) -> list[tuple[int, float, float]]:
    return list(zip(found.channel.tolist(), found.start_s.tolist(), found.end_s.tolist(), strict=True))


@given(spans=SPANS)
def test_the_union_is_the_or_of_every_frame(spans: list[list[int]]) -> None:
    segments = [(a / 1000, b / 1000) for a, b in spans]
    joined = tidy.union(segments)
    active = np.zeros(FRAMES, np.uint8)
    for a, b in spans:  # whole frames of 10 ms, counted in integers
        active[a // 10 : b // 10] = 1
    found = voice_activity(np.zeros(len(joined), int), joined[:, 0], joined[:, 1], FRAMES)
    np.testing.assert_array_equal(found[:, 0], active)
    assert (joined[1:, 0] > joined[:-1, 1]).all()  # sorted and apart
    assert sum(joined[:, 1] - joined[:, 0]) == pytest.approx(
        len({t for a, b in spans for t in range(a, b)}) / 1000
    )


@given(spans=SPANS, seed=st.randoms(), repeat=st.integers(1, 3))
def test_order_and_repetition_change_nothing(spans: list[list[int]], seed, repeat: int) -> None:
    rows = [(Row(a / 1000, b / 1000), i % 2) for i, (a, b) in enumerate(spans)]
    shuffled = rows * repeat
    seed.shuffle(shuffled)
    assert triples(speech(shuffled)[0]) == triples(speech(rows)[0])


@given(spans=SPANS)
def test_spellings_of_numbers_and_units_change_nothing(spans: list[list[int]]) -> None:
    numbers = [(Row(a / 1000, b / 1000), 0) for a, b in spans]
    commas = [(Row(f"{a / 1000}".replace(".", ","), f"{b / 1000:.3f}"), 0) for a, b in spans]
    by_ms = [(Row(str(a), b, unit="ms"), 0) for a, b in spans]
    asked = [(Row(a, str(b)), 0) for a, b in spans]
    expected = triples(speech(numbers)[0])
    assert triples(speech(commas)[0]) == triples(speech(by_ms)[0]) == expected
    assert triples(speech(asked, unit="ms")[0]) == expected


def test_what_is_joined_is_counted() -> None:
    """1.1 + 2.2 lies 4e-16 s behind 3.3."""
    rows = [
        (Row(1.1, duration=2.2), 0),
        (Row(3.3, 4.0), 0),
        (Row(5, 6.01), 1),
        (Row(6, 7), 1),
        (Row(6, 7), 1),
    ]
    found, counts = speech(rows)
    assert triples(found) == [(0, 1.1, 4.0), (1, 5.0, 7.0)]
    assert counts["overlapping, touching or repeated segments joined"] == 3


def test_words_are_joined_over_short_gaps_and_segments_are_not() -> None:
    spans = [(1.0, 2.0), (2.04, 3.0), (3.06, 4.0)]
    words, _ = speech([(Row(a, b, word=True), 1) for a, b in spans])
    assert triples(words) == [(1, 1.0, 3.0), (1, 3.06, 4.0)]
    kept, _ = speech([(Row(a, b), 1) for a, b in spans])
    assert triples(kept) == [(1, a, b) for a, b in spans]


def test_times_before_the_start_are_cut() -> None:
    found, counts = speech([(Row(-0.5, 1.0), 0), (Row("-1", "-0.2"), 1)])
    assert triples(found) == [(0, 0.0, 1.0)]
    assert counts["times before the start cut"] == 2
    with pytest.raises(InputError, match=r"t\.csv: row 3: from -1\.01 to 2 s"):
        speech([(Row(-1.01, 2, place="t.csv: row 3"), 0)])


@pytest.mark.parametrize(
    ("last_s", "suspected"), [(9_500, True), (12_900, True), (14_000, False), (110, False)]
)
def test_milliseconds_are_suspected(last_s: float, suspected: bool) -> None:
    """Of 12 s of audio: speech to 9.5 or 12.9 s, 14 s, or 110 ms."""
    found, _ = speech([(Row(0, last_s), 0)])
    if suspected:
        with pytest.raises(InputError, match="look like milliseconds: give --unit ms"):
            tidy.check_unit("call0", found, 12.0)
    else:
        tidy.check_unit("call0", found, 12.0)


@given(value=st.one_of(st.text(max_size=8), st.booleans(), st.none(), st.lists(st.integers()), st.floats()))
def test_any_value_is_a_time_or_is_refused(value: object) -> None:
    row = Row(value, 11.0, place="t.json: row 1")
    try:
        start_s, _ = tidy.times(row, "s")
    except InputError as error:
        assert str(error).startswith("t.json: row 1: ") and "\n" not in str(error)
    else:
        assert -1 <= start_s <= 11

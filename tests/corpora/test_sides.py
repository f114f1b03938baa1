"""The sides of conversations by their names."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vap_pipeline.corpora import sides
from vap_pipeline.corpora.formats.row import Row
from vap_pipeline.corpora.layout import Recording
from vap_pipeline.corpora.speakers import Speakers
from vap_pipeline.io.errors import InputError

SPELLINGS = [
    ("0", "1"), ("1", "2"), ("0.0", "1.0"), ("01", "02"), ("A", "B"), ("a", "b"), ("L", "R"),
    ("Left", "right"), ("ch_0", "ch_1"), ("channel 1", "channel 2"), ("SPEAKER_00", "SPEAKER_01"),
    ("Speaker A", "Speaker B"), ("spk1", "spk2"),
]  # fmt: skip


@pytest.mark.parametrize("pair", SPELLINGS)
def test_pairs_of_labels(pair: tuple[str, str]) -> None:
    for labels in permutations(pair):
        assert sides.numbering(labels) == {pair[0]: 0, pair[1]: 1}


def test_numbers_are_decided_for_the_whole_table() -> None:
    assert sides.numbering(["1"]) == {"1": 1}  # as vap-manifest has always read it
    assert sides.numbering(["1", "2"]) == {"1": 0, "2": 1}
    assert sides.numbering(["1", "2", "B", "agent"]) == {"1": 0, "2": 1, "B": 1}
    with pytest.raises(InputError, match=r"name channels '0' and 'ch2'.* --channels 0,1"):
        sides.numbering(["0", "1", "ch2"])


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("call0_A", ("call0", "a")), ("call0.left", ("call0", "left")), ("call 0-ch1", ("call 0", "1")),
        ("x_speaker_2", ("x", "2")), ("x-caller", ("x", "caller")), ("x_bob", ("x", "bob")),
        ("V00_S0809_I00000582_P0947", ("V00_S0809_I00000582", "p0947")),
        ("callA", None), ("agenda", None), ("A", None), ("session_3", ("session", "3")),
    ],
)  # fmt: skip
def test_names_with_a_side(stem: str, expected: tuple[str, str] | None) -> None:
    assert sides.split(stem, ["ann", "bob"]) == expected


def rows(*labels: tuple[str | None, str | None]) -> dict[str, list[tuple[Row, str | None]]]:
    return {"call0": [(Row(0, 1, channel=channel, speaker=speaker), None) for channel, speaker in labels]}


def channels(found: dict[str, list[tuple[Row, str | None]]], given: list[str], **of: object) -> list[int]:
    recording = Recording("call0", (), **of)  # type: ignore[arg-type]
    assigned = Speakers(found, given).assign("call0", found["call0"], recording)
    return [channel for _, channel in assigned]


def test_the_column_that_names_both_sides_counts() -> None:
    assert channels(rows(("1", "A"), ("1", "B")), []) == [0, 1]  # as diarisers write RTTM of a mono file
    assert channels(rows(("A", "ann"), ("B", "bob")), []) == [0, 1]
    assert channels(rows((None, "call0-B"), (None, "call0-A")), []) == [1, 0]
    assert channels(rows(("0", "0"), ("1", "2"), ("1", "7")), []) == [0, 1, 1]  # numbers of people
    assert channels(rows(("1", "ann"), ("1", "ann")), []) == [1, 1]
    with pytest.raises(InputError, match="channel is 'ann'"):
        channels(rows(("A", "ann"), ("A", "bob")), [])  # of two people, one on each channel


def test_names_that_the_user_gives_come_first(caplog: pytest.LogCaptureFixture) -> None:
    found = rows(("agent", None), ("customer", None), ("hold music", None))
    assert channels(found, ["agent", "customer"]) == [0, 1]
    assert channels(found, ["customer", "agent"]) == [1, 0]
    with pytest.raises(InputError, match=r"channel is 'agent'; .*--channels agent,customer"):
        channels(found, [])
    assert channels(rows(("0", None), ("2", None), ("1", None)), ["0", "2"]) == [0, 1]
    speakers = Speakers(found, ["agent", "customer"])
    speakers.assign("call0", found["call0"], None)
    with caplog.at_level("INFO"):
        speakers.report()
    assert "rows of other channels left out: hold music (1)" in caplog.text


def test_a_role_names_a_file_of_the_same_role() -> None:
    """As in Harper Valley, whose channel 1 is the caller."""
    found = rows(("1", "caller"), ("2", "agent"))
    assert channels(found, [], sides=("agent", "caller")) == [1, 0]
    assert channels(found, []) == [0, 1]


def test_a_file_of_one_speaker_has_no_rows_of_two() -> None:
    two = {"call0": [(Row(0, 1, speaker="A"), "a"), (Row(2, 3, speaker="B"), "a")]}
    with pytest.raises(InputError, match="the file of 'a' has rows of A and B"):
        channels(two, [])
    text = {"call0": [(Row(0, 1, speaker="yes"), "b"), (Row(2, 3, speaker="no"), "b")]}
    assert channels(text, []) == [1, 1]


@given(st.lists(st.text(max_size=6), max_size=6))
def test_any_labels_are_read_or_refused(labels: list[str]) -> None:
    try:
        assert set(sides.numbering(labels).values()) <= {0, 1}
    except InputError as error:
        assert "\n" not in str(error)

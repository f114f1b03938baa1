"""The page on a corpus's turn-taking: a conversation measured by hand, and odd corpora."""

import io
from dataclasses import replace

import matplotlib.image
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vap_pipeline.artefacts import manifest
from vap_pipeline.evaluate.__main__ import main
from vap_pipeline.evaluate.statistics import measure, pool
from vap_pipeline.evaluate.statistics_page import page, write_statistics
from vap_pipeline.turn_taking.events import EVENTS

# A speaks, B after a gap of 0.4 s; A gives a backchannel at 5.0 s, and takes over from 8.6 to 9.0 s;
# A pauses (10.0 to 10.3 s); B answers at once.
DIALOGUE = [(0, 0, 300), (1, 340, 900), (0, 500, 540), (0, 860, 1000), (0, 1030, 1200), (1, 1200, 1300)]


def dialogue(n: int = 1400) -> Tensor:
    va = torch.zeros(n, 2, dtype=torch.uint8)
    for speaker, start, end in DIALOGUE:
        va[start:end, speaker] = 1
    return va


def corpus_of(folder, *conversations: tuple[str, str, int | None], speech: bool = True):
    """Write a manifest of conversations (name, split, fold) that are all the dialogue, or all silent."""
    rows = sorted(
        (name, speaker, start / 100, end / 100)
        for name, _, _ in conversations
        for speaker, start, end in DIALOGUE
        if speech
    )
    activity = pa.table(
        {key: [row[i] for row in rows] for i, key in enumerate(manifest.SCHEMA.names)}, manifest.SCHEMA
    )
    listed = [manifest.Conversation(name, "", 13.99, split, fold) for name, split, fold in conversations]
    manifest.write(manifest.Manifest(listed, activity), folder)
    return folder


def cells(page: str) -> dict[str, list[str]]:
    """The rows of all tables by their name."""
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    return {name: values for name, *values in rows}


def test_a_dialogue_measured_by_hand():
    found = measure(dialogue(), 13.99)
    np.testing.assert_allclose(found.states, [[1.7, 5.7, 5.8, 0.8]])
    np.testing.assert_allclose(sorted(found.offsets), [-0.4, 0, 0.4])
    np.testing.assert_allclose(found.pauses, [0.3])
    np.testing.assert_allclose(found.turns, [3.0, 5.2, 3.0, 1.0])
    assert found.backchannels.tolist() == [1]
    assert found.windows.tolist() == [1]
    counted = dict(zip(EVENTS, found.events[0].tolist(), strict=True))
    assert counted == {"shift": 1, "hold": 0, "pre_shift": 1, "long": 1, "short": 1, "pre_backchannel": 1}


def test_transfers_through_silence_and_overlap_are_left_out():
    va = torch.zeros(1000, 2, dtype=torch.uint8)
    va[100:200, 0] = 1
    va[150:200, 1] = 1  # only A, both, silence, only B
    va[230:400, 1] = 1
    found = measure(va, 9.99)
    assert len(found.offsets) == len(found.pauses) == 0
    np.testing.assert_allclose(found.turns, [0.5, 1.7])


def test_a_backchannel_in_a_pause_ends_no_turn():
    va = torch.zeros(1000, 2, dtype=torch.uint8)
    va[100:300, 0] = va[330:370, 1] = va[400:700, 0] = 1
    found = measure(va, 9.99)
    assert found.backchannels.tolist() == [1]
    np.testing.assert_allclose(found.turns, [6.0])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 300)), min_size=1, max_size=40))
def test_measures_do_not_depend_on_who_is_who(runs):
    state, length = (torch.tensor(column) for column in zip(*runs, strict=True))
    state = state.repeat_interleave(length)
    va = torch.stack([state % 2, state // 2], dim=-1).to(torch.uint8)
    found, swapped = (measure(each, len(va) / 100) for each in (va, va.flip(-1)))
    assert found.states.sum() == pytest.approx(len(va) / 100)
    np.testing.assert_allclose(swapped.states, found.states[:, [0, 2, 1, 3]])
    np.testing.assert_allclose(np.sort(swapped.offsets), np.sort(found.offsets))
    for name in "pauses", "turns", "backchannels", "windows", "events":
        np.testing.assert_array_equal(getattr(swapped, name), getattr(found, name))
    # Turns lie one after the other, and hold all that is said alone but for backchannels.
    assert found.turns.sum() <= len(va) / 100 + 1e-9
    assert len(found.turns) == 0 or found.turns.min() >= 0.01


def test_pooling_is_measuring_together():
    one = measure(dialogue(), 13.99)
    both = pool([one, measure(dialogue().flip(-1), 13.99)])
    assert both.states.shape == (2, 4)
    assert both.events.sum(0).tolist() == (2 * one.events[0]).tolist()
    np.testing.assert_allclose(both.turns, [*one.turns, *one.turns])


def test_the_page_says_what_was_measured(tmp_path):
    folder = corpus_of(tmp_path / "small", ("a", "train", 0), ("b", "train", 1), ("c", "test", None))
    out = tmp_path / "report"
    assert main(["statistics", "--manifest", str(folder), "--out", str(out)]) == 0
    text = (out / "statistics.md").read_text()
    assert text.startswith("# Turn-taking in small\n")
    rows = cells(text)
    assert rows["conversations"] == ["2", "1", "3"]
    assert rows["hours"] == ["0.01", "0.00", "0.01"]
    assert "*All*" not in text
    assert rows["one speaker"] == ["82.1%"] * 3
    assert rows["both speakers"] == ["5.7%"] * 3
    assert rows["silence"] == ["12.1%"] * 3
    assert rows["floor transfers a minute"] == ["12.9"] * 3  # 3 in 14 s
    assert rows["… through a gap"] == ["33.3%"] * 3
    assert rows["floor transfer offset, ms"][1] == "0 (-200, 200)"
    assert rows["overlap at a floor transfer, ms"][0] == "400 (400, 400)"
    assert rows["pause, ms"][0] == "300 (300, 300)"
    assert rows["turn, s"][1] == "3.00 (2.50, 3.55)"
    assert rows["backchannels a minute"] == ["4.29"] * 3
    assert rows["shift"] == ["2", "1", "3"]
    assert rows["hold"] == ["0", "0", "0"]
    # There are no holds, so S/H has no score; as many shorts as longs: ½ · 2/3.
    assert rows["test"] == ["–", ".333", ".333", ".333"]
    assert "published" not in text
    image = matplotlib.image.imread(io.BytesIO((out / "statistics.png").read_bytes()))
    assert image.shape[0] > 500 and image.shape[1] > 1000
    assert "statistics.png" in text


def test_conversations_that_are_not_used_are_counted_and_named(tmp_path):
    folder = corpus_of(tmp_path / "small", ("a", "test", None), ("b", "", None), ("c", "", None))
    text = write_statistics(folder, tmp_path).read_text()
    assert cells(text)["conversations"] == ["1", "3"]
    assert "*All* counts 2 conversations" in text


def test_the_majority_s_scores_come_from_each_task_s_own_events():
    found = replace(measure(dialogue(), 13.99), events=np.array([[2, 6, 3, 5, 4, 7]]))
    # ¾ · 12/14, 5/9 · 10/14, ½ · 2/3
    assert cells(page("any", {"all": found}))["all"] == [".643", ".397", ".333", ".333"]


def test_the_published_row_stands_below_switchboard_s(tmp_path):
    folder = corpus_of(tmp_path / "switchboard", ("sw2001", "test", None))
    rows = cells(write_statistics(folder, tmp_path).read_text())
    assert rows["*published, test*"] == ["*.843*", "*.565*", "*.333*", "*.333*"]


def test_a_silent_corpus_has_a_page_and_a_figure(tmp_path):
    folder = corpus_of(tmp_path / "quiet", ("a", "test", None), speech=False)
    with np.errstate(all="raise"):
        rows = cells(write_statistics(folder, tmp_path).read_text())
    assert rows["silence"] == ["100.0%", "100.0%"]
    assert rows["turn, s"] == ["–", "–"]
    assert rows["test"] == ["–"] * 4
    assert (tmp_path / "statistics.png").stat().st_size > 10_000


def test_a_conversation_too_short_for_a_window():
    found = measure(dialogue(999), 9.98)
    assert found.windows.tolist() == [0]
    assert found.events.tolist() == [[0] * len(EVENTS)]
    assert page("tiny", {"all": found})

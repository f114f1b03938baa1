"""Events with other settings than the paper's: worked out by hand, and against the plain reference."""

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vap_pipeline.io.errors import InputError
from vap_pipeline.settings.events import PAPER, EventSettings
from vap_pipeline.settings.fields import parse
from vap_pipeline.turn_taking.events import EVENTS, find_events, lengths, window_starts, windows
from vap_pipeline.turn_taking.projection import bins, labels
from vap_pipeline.turn_taking.scores import regions

CHANGES = [
    {"hs": {"pre_offset_shift": 0.5}, "bc": {"max_duration_frames": 1.5}},
    {"hs": {"post_onset_shift": 0.3, "pre_offset_hold": 2, "post_onset_hold": 0}},
    {"hs": {"metric_pad": 0.1, "metric_dur": 0.2, "metric_pre_label_dur": 1, "metric_onset_dur": 0.3}},
    {"hs": {"non_shift_horizon": 1}, "metric": {"min_context": 1}},
    {"bc": {"min_duration_frames": 0.5, "pre_silence_frames": 0, "post_silence_frames": 0.4}},
    {"bc": {"metric_dur_frames": 0.1, "metric_pre_label_dur": 0.2}},
    {"metric": {"pad": 0, "dur": 0.4, "pre_label_dur": 0.3, "onset_dur": 0.1}},
    {"window_s": 6, "hop_s": 6, "horizon_s": 4, "metric": {"min_context": 2}},
]


def made(change: dict) -> EventSettings:
    return parse(EventSettings, change, "params.yaml: tiny.events")


def talk(seed: int, n_windows: int, n_frames: int) -> torch.Tensor:
    """(windows, frames, 2): turns, pauses, overlaps and backchannels with lengths of a multiple of 0.05 s."""
    generator = torch.Generator().manual_seed(seed)
    mean = 10 ** (0.5 + 2 * torch.rand(n_windows, 1, 2, generator=generator))
    edges = torch.rand(n_windows, n_frames, 2, generator=generator) < 5 / mean
    edges &= (torch.arange(n_frames) % 5 == 0)[:, None]
    return (edges.cumsum(1) % 2).to(torch.uint8)


def rows_of(events, window: int) -> list[tuple[str, int, int, int]]:
    own = events.window == window
    columns = (column[own].tolist() for column in (events.event, events.speaker, events.start, events.end))
    return [(EVENTS[event], speaker, start, end) for event, speaker, start, end in zip(*columns, strict=True)]


def in_order(rows: list[tuple[str, int, int, int]]) -> list[tuple[str, int, int, int]]:
    return sorted(rows, key=lambda row: (EVENTS.index(row[0]), row[2], row[1]))


@pytest.mark.parametrize("change", CHANGES, ids=[str(change) for change in CHANGES])
def test_events_are_those_of_the_reference_with_the_same_settings(change):
    chosen = made(change)
    frames = lengths(chosen)
    va = talk(0, 1500, frames.window + frames.look_ahead)
    events, paper = find_events(va, chosen), 0
    assert torch.bincount(events.event.long(), minlength=len(EVENTS)).min() > 5
    for i, window in enumerate(va):
        plain = [tuple(frame) for frame in window.tolist()]
        expected = sorted(
            reference.find_events(plain, chosen.described()),
            key=lambda row: (EVENTS.index(row[0]), row[2], row[1]),
        )
        assert rows_of(events, i) == expected, i
        paper += frames.window == 1000 and rows_of(events, i) != sorted(
            reference.find_events(plain), key=lambda row: (EVENTS.index(row[0]), row[2], row[1])
        )
        if i % 50 == 0:
            mask = torch.zeros(frames.window, 2, dtype=torch.bool)
            for frame, speaker in reference.non_shift(plain, chosen.described()):
                mask[frame, speaker] = True
            assert torch.equal(events.non_shift[i], mask), i
    assert paper or frames.window != 1000  # the settings make a difference


def test_a_shift_after_half_a_second_alone():
    va = torch.zeros(1, 1200, 2, dtype=torch.uint8)
    va[0, 440:500, 0] = 1  # A alone for 0.6 s
    va[0, 540:700, 1] = 1
    assert rows_of(find_events(va), 0) == []
    shorter = made({"hs": {"pre_offset_shift": 0.5}})
    expected = [("shift", 1, 505, 515), ("pre_shift", 1, 450, 500), ("long", 1, 540, 560)]
    assert rows_of(find_events(va, shorter), 0) == expected
    assert rows_of(find_events(va, made({"hs": {"pre_offset_shift": 0.61}})), 0) == []
    assert rows_of(find_events(va, made({"hs": {"pre_offset_hold": 0.5}})), 0) == []


def test_a_backchannel_of_up_to_one_and_a_half_seconds():
    va = torch.zeros(1, 1200, 2, dtype=torch.uint8)
    va[0, :1200, 0] = 1  # A talks
    va[0, 500:650, 1] = 1  # B for 1.5 s
    assert rows_of(find_events(va), 0) == []
    longer = made({"bc": {"max_duration_frames": 1.5}})
    assert rows_of(find_events(va, longer), 0) == [("short", 1, 500, 520), ("pre_backchannel", 1, 450, 500)]


def test_metric_lengths_hold_unless_a_kind_of_event_has_its_own():
    both = made({"metric": {"pad": 0.1, "pre_label_dur": 0.3}, "hs": {"metric_pre_label_dur": 0.4}})
    frames = lengths(both)
    assert (frames.pad, frames.pre_shift, frames.pre_backchannel) == (10, 40, 30)


def test_windows_of_another_length_and_hop():
    chosen = made({"window_s": 6, "hop_s": 3, "horizon_s": 2})
    assert window_starts(1500, chosen).tolist() == [0, 300, 600, 900]
    va = torch.arange(2 * 1500).view(1500, 2) % 2
    cut = windows(va, chosen)
    assert cut.shape == (4, 800, 2)
    assert torch.equal(cut[2], va[600:1400])
    assert torch.equal(cut[3, :600], va[900:]) and not cut[3, 600:].any()


@pytest.mark.parametrize("model", ["discrete", "independent", "independent-40", "comparative"])
@settings(deadline=None, max_examples=20)
@given(st.sampled_from([40, 80, 120, 400]), st.integers(0, 10**6))
def test_labels_of_another_horizon_are_those_of_the_reference(model, horizon, seed):
    va = talk(seed, 1, horizon + 20)[0]
    target = labels(va, model, horizon)
    plain = [tuple(frame) for frame in va.tolist()]
    for t in range(len(target)):
        expected = reference.label(plain, t, model, horizon)
        assert target[t].numpy() == pytest.approx(np.array(expected))


def test_bins_are_in_proportion_to_the_horizon():
    assert bins("discrete", 200) == (20, 40, 60, 80)
    assert bins("discrete", 100) == (10, 20, 30, 40)
    assert bins("independent-40", 400) == (10,) * 40
    with pytest.raises(InputError, match=r"events.horizon_s is 1\.5; .*independent-40.*multiple of 0\.4 s"):
        bins("independent-40", 150)


def test_negatives_are_as_long_as_the_regions_before_the_events():
    chosen = made({"hs": {"metric_pre_label_dur": 0.3}, "bc": {"metric_pre_label_dur": 0.8}})
    va = talk(0, 100, 1200).flatten(0, 1).numpy()
    rows = regions([("c", va)], 0, chosen).to_pylist()
    for task, length in ("predict_shift", 30), ("predict_backchannel", 80):
        mine = [row for row in rows if row["task"] == task]
        assert {row["label"] for row in mine} == {0, 1}
        assert {row["end"] - row["start"] for row in mine} == {length}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"hs": {"pre_ofset_shift": 1}},
            "events.hs: unknown setting 'pre_ofset_shift'; did you mean 'pre_off",
        ),
        ({"metrics": {}}, "events: unknown setting 'metrics'; did you mean 'metric'"),
        ({"hs": {"pre_offset_shift": 0.505}}, "events.hs.pre_offset_shift is 0.505 s; frames last 0.01 s"),
        ({"hs": {"pre_offset_shift": -1}}, "it must be at least 0"),
        ({"hs": {"pre_offset_shift": "long"}}, "it must be a number"),
        ({"hs": 1}, "give a section of settings"),
        ({"horizon_s": 1}, "hs.non_shift_horizon must be at most horizon_s"),
        ({"hop_s": 11}, "hop_s must be at most window_s"),
        (
            {"bc": {"max_duration_frames": 0.1}},
            "bc.min_duration_frames must be at most bc.max_dur",
        ),
        ({"metric": {"min_context": 0.2}}, "regions would start before their window"),
        ({"metric": {"min_context": 10}}, "metric.min_context must be less than window_s"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(InputError) as raised:
        made(change)
    assert message in str(raised.value) and str(raised.value).startswith("params.yaml: ")


def reference_names(described: dict) -> dict:
    """The values of the plain reference where it has them."""
    return described | {key: described[key] | reference.PAPER[key] for key in ("hs", "bc", "metric")}


def test_the_default_is_the_paper():
    assert made({}) == PAPER
    assert made(PAPER.described()).described() == PAPER.described() == reference_names(PAPER.described())

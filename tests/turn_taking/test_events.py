"""Events: every condition of every kind at its border, properties, the plain reference, real dialogues."""

import tarfile
from collections import Counter
from pathlib import Path

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vap_pipeline.corpora import switchboard
from vap_pipeline.turn_taking.events import (
    EVENTS,
    Events,
    find_events,
    lengths,
    window_starts,
    windows,
)
from vap_pipeline.turn_taking.voice_activity import frames, voice_activity

A, B = 0, 1
N = 1200
WINDOW, HOP, _, MIN_CONTEXT = lengths()[:4]

Row = tuple[str, int, int, int]  # event, speaker, start, end


def va_of(*segments: tuple[int, int, int]) -> Tensor:
    """A window (1200, 2) of segments (speaker, first frame, frame after the last)."""
    va = torch.zeros(N, 2, dtype=torch.uint8)
    for speaker, start, end in segments:
        va[start:end, speaker] = 1
    return va


def rows_of(events: Events, window: int = 0) -> list[Row]:
    own = events.window == window
    columns = (each[own].tolist() for each in (events.event, events.speaker, events.start, events.end))
    return [(EVENTS[event], speaker, start, end) for event, speaker, start, end in zip(*columns, strict=True)]


def found_in(*segments: tuple[int, int, int]) -> list[Row]:
    return rows_of(find_events(va_of(*segments)[None]))


def turns_in(*segments: tuple[int, int, int]) -> list[Row]:
    """Shifts, holds and what belongs to them; a last speech of a second or less may be a backchannel, too."""
    return [row for row in found_in(*segments) if row[0] in ("shift", "hold", "pre_shift", "long")]


def non_shift_in(*segments: tuple[int, int, int]) -> dict[int, list[int]]:
    """The non-shift frames of A and of B."""
    mask = find_events(va_of(*segments)[None]).non_shift[0]
    return {speaker: mask[:, speaker].nonzero().flatten().tolist() for speaker in (A, B)}


def shift(s: int, end: int) -> list[Row]:
    return [
        ("shift", B, s + 5, s + 15),
        ("pre_shift", B, s - 50, s),
        ("long", B, end, end + 20),
    ]


# Shift: A speaks until s, B from e on.


@pytest.mark.parametrize(
    ("s", "e", "kept"),
    [
        (500, 540, True),
        (500, 515, True),  # the silence is pad + dur long
        (500, 514, False),
        (295, 400, True),  # s + pad is min_context
        (294, 400, False),
        (890, 979, True),  # long ends at 999
    ],
)
def test_shift_by_its_silence(s, e, kept):
    assert found_in((A, s - 150, s), (B, e, e + 150)) == (shift(s, e) if kept else [])


@pytest.mark.parametrize(
    ("s", "e", "events"),
    [
        (900, 980, ["shift", "pre_shift"]),  # long would end at max_frame
        (984, 1000, ["shift", "pre_shift"]),  # the region ends at 999
        (985, 1001, ["pre_shift"]),  # the region would end at max_frame
        (999, 1030, ["pre_shift"]),
        (1000, 1030, []),  # the silence starts at max_frame
    ],
)
def test_shift_at_the_end_of_the_window(s, e, events):
    assert [row[0] for row in found_in((A, s - 150, s), (B, e, e + 150))] == events
    assert set(found_in((A, s - 150, s), (B, e, e + 150))) <= set(shift(s, e))


@pytest.mark.parametrize(
    ("segments", "kept"),
    [
        ([(A, 400, 500), (B, 540, 640)], True),  # both a second long
        ([(A, 401, 500), (B, 540, 640)], False),
        ([(A, 400, 500), (B, 540, 639)], False),
        ([(A, 380, 450), (A, 480, 500), (B, 540, 560), (B, 561, 640)], True),  # pauses are filled
        ([(A, 380, 450), (A, 480, 500), (B, 460, 470), (B, 540, 640)], False),  # B in A's pause
        ([(A, 380, 500), (B, 399, 400), (B, 540, 640)], True),  # overlap, a second before
        ([(A, 380, 500), (B, 400, 401), (B, 540, 640)], False),  # overlap in the second before
        ([(A, 380, 500), (B, 540, 660), (A, 640, 650)], True),  # overlap, a second after
        ([(A, 380, 500), (B, 540, 660), (A, 639, 650)], False),
        ([(B, 380, 400), (A, 430, 500), (B, 540, 640)], False),  # a silence between the two is not A's
        ([(B, 300, 450), (A, 300, 500), (B, 540, 640)], False),  # both, then A for half a second
        ([(A, 380, 500), (B, 499, 500), (B, 540, 640)], False),  # the silence comes after both
        ([(A, 380, 500), (A, 540, 541), (B, 540, 641)], False),  # and before both
        ([(A, 380, 500), (B, 380, 500), (B, 540, 640)], False),  # both for a second before the silence
        ([(A, 400, 500), (A, 540, 660), (B, 540, 660)], False),  # and after it
        ([(A, 0, 500), (B, 1105, N)], False),  # B is cut off by the window's end
        ([(A, 0, 500), (B, 1100, N)], True),
    ],
)
def test_shift_needs_one_speaker_alone_on_both_sides(segments, kept):
    shifts = [row for row in turns_in(*segments) if row[0] == "shift"]
    assert shifts == ([("shift", B, 505, 515)] if kept else [])


def test_shift_to_a():
    assert turns_in((B, 400, 500), (A, 540, 640)) == [
        ("shift", A, 505, 515),
        ("pre_shift", A, 450, 500),
        ("long", A, 540, 560),
    ]


# Hold: A speaks until s and again from e on.


@pytest.mark.parametrize(
    ("s", "e", "kept"),
    [
        (500, 515, True),
        (500, 514, False),
        (295, 400, True),
        (294, 400, False),
        (984, 1000, True),
        (985, 1001, False),
        (600, 1100, True),
        (600, 1101, False),  # less than a second after it lies in the window
    ],
)
def test_hold_by_its_silence(s, e, kept):
    expected = [("hold", A, s + 5, s + 15)] if kept else []
    assert found_in((A, s - 100, s), (A, e, e + 100)) == expected


@pytest.mark.parametrize(
    ("segments", "kept"),
    [
        ([(B, 401, 500), (B, 540, 640)], False),
        ([(B, 400, 500), (B, 540, 639)], False),
        ([(B, 300, 410), (B, 420, 500), (B, 540, 640)], True),
        ([(B, 400, 500), (A, 450, 460), (B, 540, 640)], False),
        ([(B, 400, 500), (A, 510, 520), (B, 540, 640)], False),  # A speaks in between
    ],
)
def test_hold_needs_its_speaker_alone_on_both_sides(segments, kept):
    assert (("hold", B, 505, 515) in found_in(*segments)) == kept


def test_holds_follow_one_another():
    assert found_in((A, 0, 500), (A, 520, 560), (A, 600, 900)) == [
        ("hold", A, 505, 515),
        ("hold", A, 565, 575),
    ]


# Backchannel: A talks, B says something short.


def backchannel(start: int) -> list[Row]:
    return [("short", B, start, start + 20), ("pre_backchannel", B, start - 50, start)]


@pytest.mark.parametrize(
    ("segments", "events"),
    [
        ([(B, 500, 560)], backchannel(500)),
        ([(B, 500, 520)], backchannel(500)),  # 0.2 s
        ([(B, 500, 519)], []),
        ([(B, 500, 600)], backchannel(500)),  # 1 s
        ([(B, 500, 601)], []),
        ([(B, 350, 400), (B, 500, 560)], backchannel(500)),  # 1 s after B's last word
        ([(B, 350, 401), (B, 500, 560)], []),
        ([(B, 500, 560), (B, 760, 1000)], backchannel(500)),  # 2 s before B's next word
        ([(B, 500, 560), (B, 759, 1000)], []),
        ([(B, 0, 100), (B, 500, 560)], backchannel(500)),
        ([(B, 300, 360)], backchannel(300)[:1]),  # too early for its own second of context
        ([(B, 299, 360)], []),
        ([(B, 350, 400)], backchannel(350)),
        ([(B, 349, 400)], backchannel(349)[:1]),
        ([(B, 979, 1000)], backchannel(979)),
        ([(B, 980, 1000)], []),  # the region ends at max_frame
        ([(B, 940, 1000)], backchannel(940)),  # the last 2 s of the window are B's silence
        ([(B, 941, 1001)], []),
    ],
)
def test_backchannel_while_the_other_talks(segments, events):
    assert found_in((A, 0, N), *segments) == events


@pytest.mark.parametrize(
    ("segments", "kept"),
    [
        ([(A, 200, 450)], True),  # in the silence after A
        ([(A, 200, 450), (A, 520, 600)], True),
        ([(A, 500, 700)], False),  # nobody spoke before
        ([(B, 200, 300)], False),  # B spoke before
        ([(A, 100, 300), (B, 200, 300)], False),  # after an overlap there is no last speaker
        ([(A, 100, 301), (B, 200, 300)], True),  # A alone for a frame
        ([(A, 499, 500)], True),
    ],
)
def test_backchannel_needs_the_other_as_the_last_speaker(segments, kept):
    found = [
        row for row in found_in((B, 500, 560), *segments) if "backchannel" in row[0] or row[0] == "short"
    ]
    assert found == (backchannel(500) if kept else [])


def test_both_may_give_backchannels():
    rows = found_in((A, 0, 500), (B, 400, 450), (B, 660, N), (A, 800, 850))
    assert [row for row in rows if row[0] == "short"] == [("short", B, 400, 420), ("short", A, 800, 820)]


# Non-shift


def test_non_shift_ends_where_the_other_comes_into_sight():
    non_shift = non_shift_in((A, 0, 500), (B, 650, N))
    assert non_shift[A] == list(range(300, 450))  # frame 449 sees 450 to 649
    assert non_shift[B] == list(range(650, 1000))


def test_non_shift_needs_activity_in_sight():
    non_shift = non_shift_in((A, 0, 400), (A, 700, 710))
    # 399 sees 400 to 599, nothing; 500 sees 700; 709 sees nothing any more.
    assert non_shift == {A: [*range(300, 399), *range(500, 709)], B: []}


def test_non_shift_belongs_to_the_last_single_speaker():
    non_shift = non_shift_in((A, 0, 350), (B, 340, 350), (A, 360, 600))
    # From 300 on B is in sight; 340 to 349 both speak, and the silence after that has no last speaker.
    assert non_shift == {A: [*range(360, 599)], B: []}


# Windows


def test_windows_start_every_8_s_as_long_as_10_s_fit():
    assert window_starts(999).tolist() == []
    assert window_starts(1000).tolist() == [0]
    assert window_starts(1799).tolist() == [0]
    assert window_starts(1800).tolist() == [0, 800]
    assert window_starts(2700).tolist() == [0, 800, 1600]


@pytest.mark.parametrize("n", [1000, 1001, 1200, 1799, 1800, 2000, 2001, 4321])
def test_windows_look_ahead_and_end_in_silence(n):
    va = (torch.arange(2 * n) % 251).view(n, 2)
    cut = windows(va)
    padded = torch.cat([va, torch.zeros(N, 2, dtype=va.dtype)])
    assert torch.equal(cut, torch.stack([padded[start : start + N] for start in window_starts(n)]))


def test_no_windows():
    for n in (0, 1, 999):
        cut = windows(torch.zeros(n, 2, dtype=torch.uint8))
        assert cut.shape == (0, N, 2)
        events = find_events(cut)
        assert len(events.window) == 0
        assert events.non_shift.shape == (0, WINDOW, 2)


@pytest.mark.parametrize("shape", [(N, 2), (1, 1000, 2), (1, N, 1), (1, 2, N)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="1200"):
        find_events(torch.zeros(shape))


# Any voice activity


RunList = list[tuple[int, int]]  # state, frames; the state is 1 where A speaks, plus 2 where B does


def talk() -> st.SearchStrategy[RunList]:
    """Turns and gaps, or long turns with something short of the other's in between: what events need."""
    who, about_a_second = st.integers(1, 2), st.integers(98, 106)
    speech, gap = about_a_second | st.integers(95, 260), st.integers(13, 40)
    turn = st.builds(lambda x, speech, gap: [(x, speech), (0, gap)], who, speech, gap)
    short = st.builds(  # while X talks, or in a pause
        lambda x, before, pause, both, length, after: [
            (x, before),
            (0, pause),
            (3 if both else 3 - x, length),
            (x, after),
        ],
        who,
        about_a_second | st.integers(95, 300),
        st.sampled_from([0, 20]),
        st.booleans(),
        st.integers(18, 102),
        st.integers(190, 260),
    )
    pieces = st.lists(turn, min_size=8, max_size=10) | st.lists(short, min_size=3, max_size=4)
    return pieces.map(lambda pieces: [run for piece in pieces for run in piece])


@st.composite
def vas(draw: st.DrawFn, n_frames: int = N) -> Tensor:
    """Voice activity (n_frames, 2): talk, or runs of any state, from one frame to the whole window."""
    lengths = st.one_of(st.integers(1, 3), st.integers(1, 150), st.integers(1, n_frames))
    runs = draw(st.lists(st.tuples(st.integers(0, 3), lengths), max_size=60) | talk())
    state = torch.tensor([state for state, _ in runs] + [draw(st.integers(0, 3))])
    length = torch.tensor([length for _, length in runs] + [n_frames])
    state = state.repeat_interleave(length)[:n_frames]
    return torch.stack([state % 2, state // 2], dim=-1).to(torch.uint8)


def inside(va: Tensor, by: int = 0) -> Tensor:
    """A window (1200, 2): shorter activity lies in it where it meets no border, 150 frames later at most."""
    window = torch.zeros(N, 2, dtype=torch.uint8)
    start = 350 + by if len(va) < N else 0
    window[start : start + len(va)] = va
    return window


def random_va(seed: int, n_windows: int) -> Tensor:
    """(n_windows, 1200, 2): stretches of speech and silence, from single frames to seconds."""
    generator = torch.Generator().manual_seed(seed)
    mean = 10 ** (2.5 * torch.rand(n_windows, 1, 2, generator=generator))
    edges = torch.rand(n_windows, N, 2, generator=generator) < 1 / mean
    # A few speech-like lengths make borders that are met to the frame likely.
    edges[::2] &= (torch.arange(N) % 5 == 0)[:, None]
    return (edges.cumsum(1) % 2).to(torch.uint8)


def reference_rows(window: Tensor) -> list[Row]:
    rows = reference.find_events([tuple(frame) for frame in window.tolist()])
    return sorted(rows, key=lambda row: (EVENTS.index(row[0]), row[2], row[1]))


def reference_non_shift(window: Tensor) -> Tensor:
    mask = torch.zeros(WINDOW, 2, dtype=torch.bool)
    for frame, speaker in reference.non_shift([tuple(frame) for frame in window.tolist()]):
        mask[frame, speaker] = True
    return mask


@pytest.mark.parametrize("strategy", [vas(), vas(n_frames=450)], ids=["1200", "450"])
def test_properties_are_tried_on_every_event(strategy):
    seen = Counter()

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(strategy)
    def look(va):
        seen.update({event for event, *_ in rows_of(find_events(inside(va)[None]))})

    look()
    assert min(seen[event] for event in EVENTS) >= 5


@settings(deadline=None, max_examples=100)
@given(vas())
def test_events_are_those_of_the_reference(va):
    events = find_events(va[None])
    assert rows_of(events) == reference_rows(va)
    assert torch.equal(events.non_shift[0], reference_non_shift(va))


def test_events_of_thousands_of_windows_are_those_of_the_reference():
    va = random_va(seed=0, n_windows=2000)
    events = find_events(va)
    assert torch.bincount(events.event.long(), minlength=len(EVENTS)).min() > 30
    for i, window in enumerate(va):
        assert rows_of(events, i) == reference_rows(window), i
        if i % 20 == 0:
            assert torch.equal(events.non_shift[i], reference_non_shift(window)), i


@pytest.mark.parametrize(
    "va",
    [
        va_of(),
        va_of((A, 0, N)),
        va_of((A, 0, N), (B, 0, N)),
        va_of(*((A, t, t + 1) for t in range(0, N, 2)), *((B, t, t + 1) for t in range(1, N, 2))),
        va_of(*((A, t, t + 1) for t in range(0, N, 2)), *((B, t, t + 1) for t in range(0, N, 3))),
    ],
    ids=["silence", "one talks", "both talk", "frame by frame in turn", "frame by frame"],
)
def test_odd_windows_hold_no_events(va):
    events = find_events(va[None])
    assert rows_of(events) == []
    assert torch.equal(events.non_shift[0], reference_non_shift(va))


@settings(deadline=None, max_examples=100)
@given(st.lists(vas(), min_size=1, max_size=4))
def test_batch_equals_single_whatever_the_type(singles):
    events = find_events(torch.stack(singles))
    for i, va in enumerate(singles):
        single = find_events(va[None].float() if i % 2 else va[None].bool())
        assert rows_of(events, i) == rows_of(single)
        assert torch.equal(events.non_shift[i], single.non_shift[0])
    order = list(
        zip(*(x.tolist() for x in (events.window, events.event, events.start, events.speaker)), strict=True)
    )
    assert order == sorted(set(order))


@settings(deadline=None, max_examples=100)
@given(vas())
def test_swapping_the_speakers_swaps_the_events(va):
    events, swapped = find_events(va[None]), find_events(va.flip(-1)[None])
    expected = [(event, 1 - speaker, start, end) for event, speaker, start, end in rows_of(events)]
    assert sorted(rows_of(swapped)) == sorted(expected)
    assert torch.equal(swapped.non_shift, events.non_shift.flip(-1))


@settings(deadline=None, max_examples=400)
@given(vas(n_frames=450), st.integers(0, 150))
def test_shifting_a_window_in_time_shifts_its_events(va, shift):
    still, moved = find_events(inside(va)[None]), find_events(inside(va, shift)[None])
    assert rows_of(moved) == [(e, x, start + shift, end + shift) for e, x, start, end in rows_of(still)]
    assert torch.equal(moved.non_shift, still.non_shift.roll(shift, dims=1))


LENGTH = {"shift": 10, "hold": 10, "pre_shift": 50, "long": 20, "short": 20, "pre_backchannel": 50}
EARLIEST = {"shift": 300, "hold": 300, "pre_shift": 245, "long": 310, "short": 300, "pre_backchannel": 300}
LATEST_END = {"shift": 999, "hold": 999, "pre_shift": 999, "long": 999, "short": 999, "pre_backchannel": 979}


@settings(deadline=None, max_examples=100)
@given(vas())
def test_events_lie_in_their_frames_and_shifts_and_holds_apart(va):
    events = find_events(va[None])
    covered = torch.zeros(N, dtype=torch.int)
    for event, speaker, start, end in rows_of(events):
        assert end - start == LENGTH[event]
        assert EARLIEST[event] <= start and end <= LATEST_END[event]
        assert speaker in (A, B)
        if event in ("shift", "hold"):
            covered[start:end] += 1
            assert not va[start - 5 : end].any()
    assert covered.max() <= 1
    assert not events.non_shift[0].all(-1).any()
    assert not events.non_shift[0, :MIN_CONTEXT].any()


# Switchboard


@pytest.fixture(scope="module")
def test_conversations(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Tensor]:
    """Voice activity of Switchboard's 135 test conversations."""
    folder = tmp_path_factory.mktemp("ms98")
    with tarfile.open(shared / "swb_ms98_transcriptions.tar.xz", "r|xz") as archive:
        for member in archive:
            name = Path(member.name).name
            if name.endswith("-word.text") and name >= "sw4600":
                content = archive.extractfile(member)
                assert content is not None
                (folder / name).write_bytes(content.read())
    manifest = switchboard.read(folder, None, test=135, folds=2)
    segments, duration = manifest.segments(), {c.conversation: c.duration_s for c in manifest.conversations}
    return [
        torch.from_numpy(voice_activity(*segments[name], frames(duration[name])))
        for name in manifest.test_set()
    ]


def test_switchboard_has_13470_events(test_conversations):
    va = torch.cat([windows(each) for each in test_conversations])
    events = find_events(va)
    assert len(va) == 4979
    counts = dict(zip(EVENTS, torch.bincount(events.event.long()).tolist(), strict=True))
    assert counts == {
        "shift": 837,
        "hold": 7895,
        "pre_shift": 850,
        "long": 772,
        "short": 1617,
        "pre_backchannel": 1499,
    }
    assert sum(counts.values()) == 13_470


def test_events_of_100_real_conversations_are_those_of_the_reference(test_conversations):
    for conversation in test_conversations[:100]:
        va = windows(conversation)
        events = find_events(va)
        for i, window in enumerate(va):
            assert rows_of(events, i) == reference_rows(window)
        for i in range(0, len(va), 12):
            assert torch.equal(events.non_shift[i], reference_non_shift(va[i]))


def test_windows_of_a_conversation_follow_each_other(test_conversations):
    va = test_conversations[0]
    events = find_events(windows(va))
    at = torch.cat([events.window * HOP + events.start, torch.tensor([len(va) + 1])])
    assert at.max() > 0.8 * len(va)

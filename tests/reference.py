"""The definitions once more, written for reading: plain Python, one frame after the other, no arrays.

The package computes the same for all windows at once; the tests hold it against this, and the benchmark times
it too. Voice activity is a list of pairs (a, b) of 0 and 1, one a frame. Speakers are 0 (A) and 1 (B).
"""

import math
from itertools import groupby, product

RATE = 100
SILENCE, ONLY_A, ONLY_B, BOTH = "silence", "only A", "only B", "both"
ONLY = (ONLY_A, ONLY_B)
PAPER = {
    "window_s": 10,
    "hs": {
        "post_onset_shift": 1,
        "pre_offset_shift": 1,
        "post_onset_hold": 1,
        "pre_offset_hold": 1,
        "non_shift_horizon": 2,
        "metric_pad": 0.05,
        "metric_dur": 0.1,
        "metric_pre_label_dur": 0.5,
        "metric_onset_dur": 0.2,
    },
    "bc": {
        "max_duration_frames": 1.0,
        "pre_silence_frames": 1.0,
        "post_silence_frames": 2.0,
        "min_duration_frames": 0.2,
        "metric_dur_frames": 0.2,
        "metric_pre_label_dur": 0.5,
    },
    "metric": {"min_context": 3.0},
}
BINS = {"discrete": [20, 40, 60, 80], "independent": [20, 40, 60, 80], "independent-40": [5] * 40}

Frames = list[tuple[int, int]]


# Voice activity and its history


def voice_activity(segments: list[tuple[int, float, float]], n_frames: int) -> Frames:
    """Segments (channel, start_s, end_s) as frames."""
    va = [[0, 0] for _ in range(n_frames)]
    for channel, start_s, end_s in segments:
        for frame in range(math.floor(RATE * start_s + 1e-6), math.floor(RATE * end_s + 1e-6)):
            if frame < n_frames:
                va[frame][channel] = 1
    return [(a, b) for a, b in va]


def activity_history(va: Frames, t: int) -> list[float]:
    """The five shares of speaker A at frame ``t``."""
    periods = [(math.inf, 60), (60, 30), (30, 10), (10, 5), (5, 0)]  # seconds ago, from … to
    shares = []
    for earliest, latest in periods:
        period = [va[f] for f in range(t + 1) if latest * RATE <= t - f < earliest * RATE]
        a, b = sum(a for a, _ in period), sum(b for _, b in period)
        shares.append(a / (a + b) if a + b else 0.5)
    return shares


# Labels and probabilities


def label(va: Frames, t: int, model: str, horizon: int = 200) -> int | float | list[list[int]]:
    """The target of a model at frame ``t``; the bins grow in proportion to the horizon."""
    window = va[t + 1 : t + 1 + horizon]
    if model == "comparative":
        a, b = sum(a for a, _ in window), sum(b for _, b in window)
        return a / (a + b + 1e-9)
    bits: list[list[int]] = [[], []]
    for speaker in (0, 1):
        start = 0
        for size in [size * horizon // 200 for size in BINS[model]]:
            active = sum(frame[speaker] for frame in window[start : start + size])
            bits[speaker].append(1 if active >= size / 2 else 0)
            start += size
    if model == "discrete":
        return sum(bit * 2**i for i, bit in enumerate(bits[0] + bits[1]))
    return bits


def probabilities(
    logits: list[float], frame: tuple[int, int], model: str
) -> tuple[tuple[float, float], tuple[float, float] | None]:
    """p and p_bc of A and B in one frame."""
    if model == "comparative":
        p = 1 / (1 + math.exp(-logits[0]))
        return (p, 1 - p), None
    if model == "discrete":
        in_silence, a_a, a_b, p_bc = _discrete(logits)
    else:
        in_silence, a_a, a_b, p_bc = _independent(logits)
    match frame:
        case (0, 0):
            p_a = in_silence
        case (1, 0):
            p_a = 1 - a_b
        case (0, 1):
            p_a = a_a
        case _:
            p_a = a_a / (a_a + a_b)
    return (p_a, 1 - p_a), p_bc


def _discrete(logits: list[float]) -> tuple[float, float, float, tuple[float, float]]:
    total = sum(math.exp(logit) for logit in logits)
    s, turn, keep, backchannel = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
    for bits in product((0, 1), repeat=8):  # A1 A2 A3 A4 B1 B2 B3 B4
        probability = math.exp(logits[sum(bit * 2**i for i, bit in enumerate(bits))]) / total
        for x in (0, 1):
            mine, other = (bits[:4], bits[4:]) if x == 0 else (bits[4:], bits[:4])
            if mine[2:] == (1, 1) and other == (0, 0, 0, 0):
                s[x] += probability
            if mine[2:] == (1, 1) and other in [(0, 0, 0, 0), (1, 0, 0, 0), (1, 1, 0, 0)]:
                turn[x] += probability
            if mine == (0, 0, 0, 0) and other[2:] == (1, 1):
                keep[x] += probability
            if any(mine[:3]) and not mine[3] and other[3]:
                backchannel[x] += probability
    a = [turn[x] / (turn[x] + keep[x]) for x in (0, 1)]
    return s[0] / (s[0] + s[1]), a[0], a[1], (backchannel[0], backchannel[1])


def _independent(logits: list[float]) -> tuple[float, float, float, tuple[float, float]]:
    n = len(logits) // 2
    active = [1 / (1 + math.exp(-logit)) for logit in logits]
    bins = active[:n], active[n:]
    in_silence = sum(bins[0]) / (sum(bins[0]) + sum(bins[1]))
    late = [sum(b[{4: 2, 40: 12}[n] :]) for b in bins]
    a_a = late[0] / (late[0] + late[1])
    p_bc = [0.0, 0.0]
    for x in (0, 1):
        if bins[x][-1] < bins[1 - x][-1] and max(bins[x][:-1]) > bins[x][-1]:
            p_bc[x] = max(bins[x][:-1])
    return in_silence, a_a, 1 - a_a, (p_bc[0], p_bc[1])


# Events, with the settings of a params.yaml: {"hs": {...}, "bc": {...}, "metric": {...}}, all in seconds


def _frames(seconds: float) -> int:
    return round(RATE * seconds)


def find_events(va: Frames, settings: dict | None = None) -> list[tuple[str, int, int, int]]:
    """The events (event, speaker, start, end) of a window."""
    settings = PAPER if settings is None else settings
    hs, bc, metric = settings["hs"], settings["bc"], settings["metric"]
    max_frame, min_context = _frames(settings["window_s"]), _frames(metric["min_context"])
    pad, dur = _frames(hs["metric_pad"]), _frames(hs["metric_dur"])
    onset, before = _frames(hs["metric_onset_dur"]), _frames(hs["metric_pre_label_dur"])
    states = _states(va)
    # A run is a maximal stretch of one state.
    runs = _runs(states)
    # A silent run between two runs of the same single speaker counts as that speaker's.
    filled = list(states)
    for i in range(1, len(runs) - 1):
        (previous, _, _), (state, start, end), (following, _, _) = runs[i - 1 : i + 2]
        if state == SILENCE and previous == following and previous in ONLY:
            filled[start:end] = [previous] * (end - start)

    events = []
    for i in range(1, len(runs) - 1):
        (previous, _, _), (state, s, end), (following, _, _) = runs[i - 1 : i + 2]
        # Shift to X: runs (only Y, silence, only X). Hold by X: (only X, silence, only X).
        if state != SILENCE or previous not in ONLY or following not in ONLY:
            continue
        x = ONLY.index(following)
        kind = "hold" if previous == following else "shift"
        # The silence is at least pad + dur long and starts at s < max_frame with s + pad ≥ min_context.
        if end - s < pad + dur or s >= max_frame or s + pad < min_context:
            continue
        # Y alone is active through the 1 s before s, and X alone through the 1 s after the silence.
        solo_before, solo_after = _frames(hs[f"pre_offset_{kind}"]), _frames(hs[f"post_onset_{kind}"])
        if filled[s - solo_before : s] != [previous] * solo_before:
            continue
        if filled[end : end + solo_after] != [following] * solo_after:
            continue
        # An event whose region ends at or past max_frame is dropped.
        kept = s + pad + dur < max_frame
        if kept:
            events.append((kind, x, s + pad, s + pad + dur))
        if previous != following:
            # Pre-shift: also when the shift's own region was dropped.
            events.append(("pre_shift", x, s - before, s))
            # Long: the first 0.2 s after the silence of a kept shift, if it ends before max_frame.
            if kept and end + onset < max_frame:
                events.append(("long", x, end, end + onset))

    shortest, longest = _frames(bc["min_duration_frames"]), _frames(bc["max_duration_frames"])
    silence_before, silence_after = _frames(bc["pre_silence_frames"]), _frames(bc["post_silence_frames"])
    onset, before = _frames(bc["metric_dur_frames"]), _frames(bc["metric_pre_label_dur"])
    last_speaker = _last_speaker(states)
    for x in (0, 1):
        own = _runs([frame[x] for frame in va])
        # A run of activity, not the first or the last run of the window,
        for i in range(1, len(own) - 1):
            active, start, end = own[i]
            _, silence_start, _ = own[i - 1]
            _, _, silence_end = own[i + 1]
            # of 0.2 to 1.0 s, after at least 1 s of X's silence and before at least 2 s of it;
            if not active or not shortest <= end - start <= longest:
                continue
            if start - silence_start < silence_before or silence_end - end < silence_after:
                continue
            # the last speaker before it is Y alone.
            if last_speaker[start - 1] != ONLY[1 - x]:
                continue
            # Its first 0.2 s, starting at or after min_context and ending before max_frame.
            if start >= min_context and start + onset < max_frame:
                events.append(("short", x, start, start + onset))
                if start - before >= min_context:
                    events.append(("pre_backchannel", x, start - before, start))
    return events


def non_shift(va: Frames, settings: dict | None = None) -> list[tuple[int, int]]:
    """The non-shift frames (frame, speaker) of a window."""
    settings = PAPER if settings is None else settings
    max_frame, min_context = _frames(settings["window_s"]), _frames(settings["metric"]["min_context"])
    horizon = _frames(settings["hs"]["non_shift_horizon"])
    last_speaker = _last_speaker(_states(va))
    frames = []
    # Frames from min_context on whose last speaker is X and whose next 2 s hold activity, all of it X's.
    for t in range(min_context, max_frame):
        ahead = va[t + 1 : t + 1 + horizon]
        for x in (0, 1):
            if last_speaker[t] == ONLY[x] and any(f[x] for f in ahead) and not any(f[1 - x] for f in ahead):
                frames.append((t, x))
    return frames


def _states(va: Frames) -> list[str]:
    """Every frame of a window is in a state."""
    name = {(0, 0): SILENCE, (1, 0): ONLY_A, (0, 1): ONLY_B, (1, 1): BOTH}
    return [name[frame] for frame in va]


def _last_speaker(states: list[str]) -> list[str]:
    """Silence hands on the state before it."""
    last: list[str] = []
    for state in states:
        last.append(last[-1] if state == SILENCE and last else state)
    return last


def _runs(values: list) -> list[tuple]:
    """(value, start, end) of the maximal stretches of one value."""
    runs, start = [], 0
    for value, stretch in groupby(values):
        length = len(list(stretch))
        runs.append((value, start, start + length))
        start += length
    return runs

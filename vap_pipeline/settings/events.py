"""What counts as a turn-taking event: the section ``events``, with the published names and values.

Ekstedt & Skantze, "Voice Activity Projection" (Interspeech 2022), and the settings behind its published
numbers. All lengths are seconds and whole numbers of frames of 10 ms, also those whose published name ends in
``_frames``. docs/definitions.md, "Events", says how they are used.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

from vap_pipeline.io.errors import InputError
from vap_pipeline.settings.fields import Section, parse, setting

FRAME_RATE_HZ = 100  # of voice activity, labels and events
LONGEST_WINDOW_S = 300.0


def in_frames(seconds: float) -> int:
    """Return a length in frames of 10 ms."""
    return round(seconds * FRAME_RATE_HZ)


def _seconds(default: float | None, help: str, least: float = 0.0) -> Any:
    return setting(default, help, least=least, most=LONGEST_WINDOW_S)


@dataclass(frozen=True)
class _Lengths(Section):
    """A section of lengths in seconds.

    Raises:
        InputError: a length is not a whole number of frames.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, seconds in vars(self).items():
            if isinstance(seconds, float) and abs(seconds * FRAME_RATE_HZ - in_frames(seconds)) > 1e-6:
                nearest_s = in_frames(seconds) / FRAME_RATE_HZ
                raise InputError(
                    f"{self.NAME}.{name} is {seconds:g} s; frames last 0.01 s, so give {nearest_s:g} s or "
                    "another multiple of 0.01 s"
                )


@dataclass(frozen=True)
class ShiftHoldSettings(_Lengths):
    """Shifts and holds; the ``metric_…`` lengths are those of ``metric`` unless given here."""

    NAME: ClassVar[str] = "events.hs"
    post_onset_shift: float = _seconds(1.0, "the next speaker alone after the silence of a shift")
    pre_offset_shift: float = _seconds(1.0, "the last speaker alone before the silence of a shift")
    post_onset_hold: float = _seconds(1.0, "the speaker alone after the silence of a hold")
    pre_offset_hold: float = _seconds(1.0, "the speaker alone before the silence of a hold")
    non_shift_horizon: float = _seconds(
        2.0, "in which only the last speaker speaks next, at a non-shift", 0.01
    )
    metric_pad: float | None = _seconds(None, "from the start of a silence to the region of a shift or hold")
    metric_dur: float | None = _seconds(None, "length of the region of a shift or hold", 0.01)
    metric_pre_label_dur: float | None = _seconds(None, "length of the region before a shift", 0.01)
    metric_onset_dur: float | None = _seconds(
        None, "length of the region at the start of a turn (long)", 0.01
    )


@dataclass(frozen=True)
class BackchannelSettings(_Lengths):
    """Backchannels; the ``metric_…`` lengths are those of ``metric`` unless given here."""

    NAME: ClassVar[str] = "events.bc"
    max_duration_frames: float = _seconds(1.0, "longest backchannel", 0.01)
    min_duration_frames: float = _seconds(0.2, "shortest backchannel", 0.01)
    pre_silence_frames: float = _seconds(1.0, "silence of its speaker before it")
    post_silence_frames: float = _seconds(2.0, "silence of its speaker after it")
    metric_dur_frames: float | None = _seconds(None, "metric.onset_dur of backchannels (short)", 0.01)
    metric_pre_label_dur: float | None = _seconds(None, "metric.pre_label_dur of backchannels", 0.01)


@dataclass(frozen=True)
class MetricSettings(_Lengths):
    """The regions of frames that the scores look at."""

    NAME: ClassVar[str] = "events.metric"
    pad: float = _seconds(0.05, "from the start of a silence to the region of a shift or hold")
    dur: float = _seconds(0.1, "length of the region of a shift or hold", 0.01)
    pre_label_dur: float = _seconds(0.5, "length of the region before a shift or a backchannel", 0.01)
    onset_dur: float = _seconds(0.2, "length of the region at the start of a turn or a backchannel", 0.01)
    min_context: float = _seconds(3.0, "start of a window in which there are no events")


def _completed(section: Any, values: dict[str, float]) -> Any:
    return replace(section, **{key: value for key, value in values.items() if getattr(section, key) is None})


@dataclass(frozen=True)
class EventSettings(_Lengths):
    """All that events, and the windows that they are found in, depend on.

    Raises:
        InputError: the lengths do not go together.
    """

    NAME: ClassVar[str] = "events"
    window_s: float = _seconds(10.0, "length of a window", 0.01)
    hop_s: float = _seconds(8.0, "from the start of a window to the start of the next", 0.01)
    horizon_s: float = _seconds(2.0, "projection window, and look-ahead behind a window", 0.1)
    hs: ShiftHoldSettings = field(default_factory=ShiftHoldSettings)
    bc: BackchannelSettings = field(default_factory=BackchannelSettings)
    metric: MetricSettings = field(default_factory=MetricSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        complete, metric = self.complete(), self.metric
        before_s = metric.min_context - (complete.hs.metric_pad or 0)
        for wrong, message in (
            (self.hop_s > self.window_s, "hop_s must be at most window_s, or frames are left out"),
            (metric.min_context >= self.window_s, "metric.min_context must be less than window_s"),
            (self.hs.non_shift_horizon > self.horizon_s, "hs.non_shift_horizon must be at most horizon_s"),
            (
                self.bc.min_duration_frames > self.bc.max_duration_frames,
                "bc.min_duration_frames must be at most bc.max_duration_frames",
            ),
            (
                (complete.hs.metric_pre_label_dur or 0) > before_s,
                "hs.metric_pre_label_dur must be at most metric.min_context less hs.metric_pad, or regions "
                "would start before their window",
            ),
        ):
            if wrong:
                raise InputError(f"events: {message}")

    def complete(self) -> "EventSettings":
        """Return the settings with the ``metric_…`` lengths of ``hs`` and ``bc`` filled in."""
        metric = self.metric
        hs = {
            "metric_pad": metric.pad,
            "metric_dur": metric.dur,
            "metric_pre_label_dur": metric.pre_label_dur,
            "metric_onset_dur": metric.onset_dur,
        }
        bc = {"metric_dur_frames": metric.onset_dur, "metric_pre_label_dur": metric.pre_label_dur}
        if None not in (*vars(self.hs).values(), *vars(self.bc).values()):
            return self
        return replace(self, hs=_completed(self.hs, hs), bc=_completed(self.bc, bc))

    def described(self) -> dict[str, Any]:
        """Return every value, as checkpoints and scores record them."""
        return asdict(self.complete())


PAPER = EventSettings()


def recorded(described: Any, where: str) -> EventSettings:
    """Return the settings of a file that recorded them; the paper's where it is from before they could vary.

    Raises:
        InputError: they are damaged.
    """
    return parse(EventSettings, described, f"{where}: ")

"""A stretch of a conversation as a figure: speech, events, and curves of probabilities."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vap_pipeline.views import plots


class Region(NamedTuple):
    """A stretch of time to mark.

    Attributes:
        label: in the legend.
        colour: of the mark.
        speaker: 0 or 1, above whose speech it is drawn.
        start_s, end_s: its place.
        row: of the curves that it belongs to: ``p`` or ``p_bc``.
    """

    label: str
    colour: str
    speaker: int
    start_s: float
    end_s: float
    row: str


def timeline(
    title: str,
    time_s: np.ndarray,
    va: np.ndarray,
    p: np.ndarray,
    p_bc: np.ndarray | None,
    regions: list[Region],
) -> bytes:
    """Draw speech and events of both speakers, then ``p`` and ``p_bc``; return the figure as PNG.

    Args:
        title: above the figure.
        time_s: (frames,) start of the frames.
        va: (frames, 2) voice activity.
        p: (frames,) probability that A speaks next.
        p_bc: (frames, 2) probability of a backchannel of A, B; None for a model without.
        regions: events inside the stretch, in the order of the legend.
    """
    with plots.style():
        figure = Figure(figsize=(13, 4.8 if p_bc is None else 6.5), layout="constrained")
        rows = figure.subplots(2 if p_bc is None else 3, 1, sharex=True)
        figure.suptitle(title, x=0.01, ha="left", weight="bold")
        _draw_speech(rows[0], time_s, va, regions)
        for speaker, colour in enumerate(plots.SPEAKERS):
            side = p > 0.5 if speaker == 0 else p < 0.5
            rows[1].fill_between(time_s, 0.5, p, where=side, color=colour, alpha=0.5, lw=0, step="post")
        rows[1].plot(time_s, p, color=plots.BLACK, lw=0.8)
        rows[1].set(
            ylim=(0, 1), yticks=[0, 0.5, 1], yticklabels=["B  0", "0.5", "A  1"], ylabel="p: next speaker"
        )
        _shade(rows[1], regions, "p")
        if p_bc is not None:
            for speaker, colour in enumerate(plots.SPEAKERS):
                rows[2].plot(time_s, p_bc[:, speaker], color=colour, lw=1.2, label="AB"[speaker])
            rows[2].set(ylim=(0, None), ylabel="p_bc: backchannel")
            rows[2].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
            _shade(rows[2], regions, "p_bc")
        rows[-1].set(xlim=(time_s[0], time_s[-1]), xlabel="time in the conversation (s)")
        return plots.png(figure)


def _draw_speech(axes: Axes, time_s: np.ndarray, va: np.ndarray, regions: list[Region]) -> None:
    step_s = time_s[1] - time_s[0] if len(time_s) > 1 else 0.0
    for speaker, colour in enumerate(plots.SPEAKERS):
        edges = np.diff(np.pad(va[:, speaker].astype(np.int8), 1))
        begin, end = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
        bars = list(zip(time_s[begin], (end - begin) * step_s, strict=True))
        axes.broken_barh(bars, (0.75 - speaker, 0.5), color=colour)
    for region in regions:
        length_s = region.end_s - region.start_s
        axes.broken_barh(
            [(region.start_s, length_s)], (1.28 - region.speaker, 0.16), color=region.colour, lw=0.8
        )
    axes.set(ylim=(-0.4, 1.5), yticks=[1, 0], yticklabels=["A", "B"], ylabel="speech and events")
    legend = dict.fromkeys((region.label, region.colour) for region in regions)
    handles = [Patch(color=colour, label=label) for label, colour in legend]
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=6, borderaxespad=0)


def _shade(axes: Axes, regions: list[Region], row: str) -> None:
    for region in regions:
        if region.row == row:
            axes.axvspan(region.start_s, region.end_s, color=region.colour, alpha=0.35, lw=0)

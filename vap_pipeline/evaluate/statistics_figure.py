"""The figure of a corpus's turn-taking, as PNG."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from vap_pipeline.evaluate.statistics import TurnTaking
from vap_pipeline.turn_taking.speaker_runs import BOTH, ONLY_A, ONLY_B, SILENCE
from vap_pipeline.views import plots

SPEECH, OVERLAP, GAP, PAUSE = plots.BLUE, plots.VERMILION, plots.GREEN, plots.GREY
BACKCHANNEL = plots.PINK
# Edges of bins are between the multiples of 10 ms that durations are.
OFFSETS_S = np.arange(-2.025, 3.03, 0.05)
SILENCES_S = np.arange(0.005, 2.03, 0.05)
TURNS_S = np.round(np.geomspace(0.1, 100, 37), 2) - 0.005


def figure(corpus: str, measured: TurnTaking) -> bytes:
    """Draw the floor transfer offsets, silences, turns and backchannels of a corpus."""
    with plots.style():
        drawing = Figure(figsize=(9, 6.6), layout="constrained")
        grid = drawing.add_gridspec(3, 3, height_ratios=[0.28, 1.5, 1])
        _states(drawing.add_subplot(grid[0, :]), corpus, measured)
        _offsets(drawing.add_subplot(grid[1, :]), measured)
        _silences(drawing.add_subplot(grid[2, 0]), measured)
        _turns(drawing.add_subplot(grid[2, 1]), measured)
        _backchannels(drawing.add_subplot(grid[2, 2]), measured)
        return plots.png(drawing, dpi=160)


def _states(axes: Axes, corpus: str, measured: TurnTaking) -> None:
    seconds = measured.states.sum(0)
    hours = measured.durations.sum() / 3600
    axes.set_title(
        f"Turn-taking in {corpus}: {len(measured.states):,} conversations, {hours:,.2f} h", fontsize=12
    )
    parts = [
        ("one speaker", seconds[[ONLY_A, ONLY_B]].sum(), SPEECH),
        ("both", seconds[BOTH], OVERLAP),
        ("silence", seconds[SILENCE], PAUSE),
    ]
    left = 0.0
    for name, part, colour in parts:
        share = part / seconds.sum()
        axes.barh(0, share, left=left, color=colour)
        wide = share > 0.12
        axes.annotate(
            f"{name} {share:.1%}",
            (left + share / 2, 0 if wide else -0.4),
            xytext=(0, 0 if wide else -3),
            textcoords="offset points",
            ha="center",
            va="center" if wide else "top",
            color="white" if wide else colour,
        )
        left += share
    axes.set(xlim=(0, 1), ylim=(-0.75, 0.45))
    axes.axis("off")


def _offsets(axes: Axes, measured: TurnTaking) -> None:
    offsets = measured.offsets
    axes.set_title("Floor transfer offset")
    axes.set(xlim=(-2, 3), xlabel="offset (s)", ylabel="share of floor transfers")
    if not len(offsets):
        return
    share, edges = np.histogram(offsets, OFFSETS_S)[0] / len(offsets), OFFSETS_S
    middle = (edges[1:] + edges[:-1]) / 2
    colours = np.select([middle < -0.001, middle > 0.001], [OVERLAP, GAP], PAUSE)
    axes.bar(middle, share, 0.92 * np.diff(edges), color=colours)
    axes.set_ylim(0, 1.15 * share.max())
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    median = np.median(offsets)
    axes.axvline(median, color="black", linewidth=1)
    outside = np.mean((offsets < edges[0]) | (offsets >= edges[-1]))

    def write(text: str, x: float, y: float, **style: Any) -> None:
        axes.text(x, y, text, transform=axes.get_xaxis_transform(), va="top", **style)

    write(f" median {1000 * median:+.0f} ms", median, 0.99)
    write(f"overlap {np.mean(offsets < 0):.0%}", -1.95, 0.92, color=OVERLAP, fontsize=12)
    write(f"gap {np.mean(offsets > 0):.0%}", 2.95, 0.92, color=GAP, fontsize=12, ha="right")
    write(f"{len(offsets):,} transfers, {outside:.1%} outside", 2.95, 0.8, color="0.4", ha="right")


def _silences(axes: Axes, measured: TurnTaking) -> None:
    gaps = measured.offsets[measured.offsets > 0]
    for name, seconds, colour in ("pauses", measured.pauses, PAUSE), ("gaps", gaps, GAP):
        _histogram(axes, seconds, SILENCES_S, colour, f"{name}, median {{:.2f}} s")
    axes.set_title("Silences within and between speakers")
    axes.set(xlim=(0, 2), xlabel="duration (s)", ylabel="share of each")


def _turns(axes: Axes, measured: TurnTaking) -> None:
    _histogram(axes, measured.turns, TURNS_S, SPEECH, "median {:.1f} s")
    axes.set_title("Turns")
    axes.set(xscale="log", xlim=(0.1, 100), xlabel="duration (s)", ylabel="share of turns")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.set_ylim(0, 1.2 * axes.get_ylim()[1])


def _histogram(axes: Axes, seconds: np.ndarray, edges: np.ndarray, colour: str, label: str) -> None:
    if not len(seconds):
        return
    share = np.histogram(seconds, edges)[0] / len(seconds)
    label = f"{label.format(np.median(seconds))}\n({1 - share.sum():.1%} outside)"
    _stairs(axes, share, edges, colour, label)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _stairs(axes: Axes, heights: np.ndarray, edges: np.ndarray, colour: str, label: str) -> None:
    axes.stairs(heights, edges, color=colour, fill=True, alpha=0.3)
    axes.stairs(heights, edges, color=colour, linewidth=1.5, label=label)
    axes.legend(loc="upper right")


def _backchannels(axes: Axes, measured: TurnTaking) -> None:
    rate = 60 * measured.backchannels / measured.durations
    count, edges = np.histogram(rate, np.arange(0, rate.max() + 1, 0.5))
    _stairs(axes, count, edges, BACKCHANNEL, f"median {np.median(rate):.1f}")
    axes.set_title("Backchannels")
    axes.set(xlim=(0, None), xlabel="a minute, both speakers together", ylabel="conversations")

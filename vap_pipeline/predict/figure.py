"""A stretch of a recording with its predictions, as PNG."""

import numpy as np
import pyarrow as pa

from vap_pipeline.io.errors import InputError
from vap_pipeline.predict.events import Event
from vap_pipeline.views import plots
from vap_pipeline.views.timeline import Region, timeline

COLOURS = {"shift": plots.GREEN, "hold": plots.LIGHT_GREY, "backchannel": plots.LIGHT_PINK}


def figure(name: str, frames: pa.Table, events: list[Event], start_s: float, end_s: float) -> bytes:
    """Draw the frames from ``start_s`` to ``end_s`` of a recording's predictions, with the events in them.

    Args:
        frames: a row per frame, as :meth:`Predictor.predict` returns them.

    Raises:
        InputError: the stretch lies outside the recording.
    """
    time_s = frames["time_s"].to_numpy()
    inside = (time_s >= start_s) & (time_s < end_s)
    if inside.sum() < 2:
        raise InputError(f"{name}: lasts {time_s[-1]:.1f} s; --figure {start_s:g} {end_s:g} lies outside")

    def pair(column: str) -> np.ndarray:
        return np.stack([frames[f"{column}_{speaker}"].to_numpy()[inside] for speaker in "ab"], axis=1)

    regions = [
        Region(
            f"{event.name}, predicted",
            COLOURS[event.name],
            event.speaker,
            event.start_s,
            min(event.end_s, end_s),
            "p_bc" if event.name == "backchannel" else "p",
        )
        for event in events
        if start_s <= event.start_s < end_s
    ]
    p_bc = pair("p_bc") if "p_bc_a" in frames.column_names else None
    return timeline(f"Predictions for {name}", time_s[inside], pair("va"), pair("p")[:, 0], p_bc, regions)

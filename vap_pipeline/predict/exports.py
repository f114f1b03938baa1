"""Predictions for other programs: Praat TextGrid, ELAN, Audacity labels and JSON."""

import json
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np

from vap_pipeline.predict.events import Event
from vap_pipeline.settings.events import FRAME_RATE_HZ

Interval = tuple[float, float, str]  # start and end in seconds, and the label
Tiers = dict[str, list[Interval]]  # intervals in order, without overlap


def tiers(va: np.ndarray, events: list[Event]) -> Tiers:
    """Return speech and predicted events as tiers: two of speech, one of turns, two of backchannels.

    Args:
        va: (frames, 2) voice activity.
        events: of :func:`vap_pipeline.predict.events.predicted_events`.
    """
    layers: Tiers = {}
    for speaker, name in enumerate("AB"):
        edges = np.diff(np.pad(va[:, speaker].astype(np.int8), 1))
        ends = (np.flatnonzero(edges == sign) / FRAME_RATE_HZ for sign in (1, -1))
        layers[f"speech {name}"] = [(start, end, "speech") for start, end in zip(*ends, strict=True)]
    turns = [event for event in events if event.name in ("shift", "hold")]
    layers["turns"] = [(e.start_s, e.end_s, f"{e.name} {'AB'[e.speaker]} {e.probability:.2f}") for e in turns]
    for speaker, name in enumerate("AB"):
        announced = [e for e in events if e.name == "backchannel" and e.speaker == speaker]
        layers[f"backchannels {name}"] = [(e.start_s, e.end_s, f"{e.probability:.2f}") for e in announced]
    return layers


def textgrid(layers: Tiers, duration_s: float) -> str:
    """Return a Praat TextGrid in the long format, an interval tier for each of ``layers``."""
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    lines += ["xmin = 0", f"xmax = {duration_s}", "tiers? <exists>", f"size = {len(layers)}", "item []:"]
    for number, (name, intervals) in enumerate(layers.items(), 1):
        filled: list[Interval] = []
        for start, end, text in [*intervals, (duration_s, duration_s, "")]:  # Praat wants no gaps
            reached = filled[-1][1] if filled else 0.0
            filled += [(reached, start, "")] if start > reached else []
            filled += [(start, end, text)] if end > start else []
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += ["        xmin = 0", f"        xmax = {duration_s}"]
        lines += [f"        intervals: size = {len(filled)}"]
        for i, (start, end, text) in enumerate(filled, 1):
            lines += [f"        intervals [{i}]:", f"            xmin = {start}", f"            xmax = {end}"]
            lines += [f'            text = "{text}"']
    return "\n".join(lines) + "\n"


def eaf(layers: Tiers, duration_s: float) -> str:
    """Return an ELAN annotation document, a tier of aligned annotations for each of ``layers``."""
    root = ElementTree.Element(
        "ANNOTATION_DOCUMENT", AUTHOR="vap-predict", DATE="", FORMAT="3.0", VERSION="3.0"
    )
    ElementTree.SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    order = ElementTree.SubElement(root, "TIME_ORDER")
    number = 0

    def slot(seconds: float) -> str:
        name = f"ts{len(order) + 1}"
        ElementTree.SubElement(order, "TIME_SLOT", TIME_SLOT_ID=name, TIME_VALUE=str(round(1000 * seconds)))
        return name

    for name, intervals in layers.items():
        tier = ElementTree.SubElement(root, "TIER", TIER_ID=name, LINGUISTIC_TYPE_REF="default-lt")
        for start, end, text in intervals:
            number += 1
            places = {"TIME_SLOT_REF1": slot(start), "TIME_SLOT_REF2": slot(end)}
            annotation = ElementTree.SubElement(tier, "ANNOTATION")
            aligned = ElementTree.SubElement(
                annotation, "ALIGNABLE_ANNOTATION", {"ANNOTATION_ID": f"a{number}", **places}
            )
            ElementTree.SubElement(aligned, "ANNOTATION_VALUE").text = text
    ElementTree.SubElement(
        root,
        "LINGUISTIC_TYPE",
        LINGUISTIC_TYPE_ID="default-lt",
        TIME_ALIGNABLE="true",
        GRAPHIC_REFERENCES="false",
    )
    return ElementTree.tostring(root, "unicode", xml_declaration=True) + "\n"


def audacity(layers: Tiers, duration_s: float) -> str:
    """Return Audacity's labels: start, end and ``tier: label`` of every interval, in order of time."""
    rows = sorted(
        (start, end, f"{name}: {text}") for name, part in layers.items() for start, end, text in part
    )
    return "".join(f"{start:.6f}\t{end:.6f}\t{text}\n" for start, end, text in rows)


def as_json(layers: Tiers, duration_s: float) -> str:
    """Return the tiers as JSON: ``{"duration_s", "tiers": {name: [{"start_s", "end_s", "label"}]}}``."""
    rows = {
        name: [{"start_s": start, "end_s": end, "label": text} for start, end, text in part]
        for name, part in layers.items()
    }
    return json.dumps({"duration_s": duration_s, "tiers": rows}, indent=1) + "\n"


Writer = Callable[[Tiers, float], str]
FORMATS: dict[str, tuple[str, Writer]] = {  # by name: the suffix of the file, and its writer
    "textgrid": (".TextGrid", textgrid),
    "eaf": (".eaf", eaf),
    "audacity": (".txt", audacity),
    "json": (".json", as_json),
}

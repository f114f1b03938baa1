"""ELAN's annotation files (``.eaf``): a tier per speaker."""

from pathlib import Path
from xml.etree import ElementTree

from vap_pipeline.corpora.formats.row import Row
from vap_pipeline.io.errors import InputError


def read(path: Path, text: str) -> list[Row]:
    """Return the annotations of tiers that depend on no other; a tier's name and participant label them.

    Raises:
        InputError: not XML, or an annotation without a time.
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: not XML ({error}); save it again with ELAN") from error
    times = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
    return [
        Row(
            times.get(annotation.get("TIME_SLOT_REF1")),
            times.get(annotation.get("TIME_SLOT_REF2")),
            channel=tier.get("TIER_ID"),
            speaker=tier.get("PARTICIPANT"),
            unit="ms",
            place=f"{path}: annotation {annotation.get('ANNOTATION_ID')}",
        )
        for tier in root.iter("TIER")
        if tier.get("PARENT_REF") is None
        for annotation in tier.iter("ALIGNABLE_ANNOTATION")
    ]

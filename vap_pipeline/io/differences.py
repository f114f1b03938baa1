"""What differs between two nests of settings, in words."""

import json
from collections.abc import Iterable, Mapping
from typing import Any


def differences(before: Any, now: Any, name: str = "", ignored: Iterable[str] = ()) -> str:
    """Return the differences, such as ``train.seed was 1, is 2``; empty if there are none.

    Args:
        before, now: nests of mappings, compared as JSON writes them (a tuple is a list).
        name: the place of the two in a larger nest.
        ignored: places, such as ``train.epochs``, that may differ.
    """
    if name in ignored:
        return ""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = sorted(before.keys() | now.keys())
        parts = (differences(before.get(k), now.get(k), f"{name}.{k}".lstrip("."), ignored) for k in keys)
        return ", ".join(part for part in parts if part)
    return "" if json.dumps(before) == json.dumps(now) else f"{name} was {before}, is {now}"

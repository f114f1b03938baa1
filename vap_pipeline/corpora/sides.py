"""The two sides of a conversation, as tables, file names and folders call them."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from vap_pipeline.io.errors import InputError

LETTERS = {"a": 0, "b": 1, "l": 0, "r": 1, "left": 0, "right": 1}
# Names of two files, or of two folders, that make one recording. Channel 0 is the first.
PAIRS = (
    *(("a", "b"), ("l", "r"), ("left", "right"), ("0", "1"), ("1", "2")),
    *(("agent", "caller"), ("agent", "customer"), ("agent", "client")),
)
WORDS = re.compile(r"(?:channel|chan|ch|speaker|spkr|spk|side)[ _.\-]*(?=[a-z0-9])")
PARTICIPANT = re.compile(r"(V\d+_S\d+_I\d+)_(P\d\w*)", re.IGNORECASE)  # of Seamless Interaction


@lru_cache(4096)  # tables repeat their labels
def token(label: str) -> str:
    """Return the part of a label that tells the sides apart: ``0`` of SPEAKER_00, ``left`` of Left."""
    plain = WORDS.sub("", label.strip().casefold(), count=1)
    if re.fullmatch(r"\d{1,9}(\.0+)?", plain):
        return str(int(float(plain)))
    return plain


def numbering(labels: Iterable[str]) -> dict[str, int]:
    """Return the side of each label that is understood: A and B, left and right, 0 and 1, or 1 and 2.

    Numbers start from 0, unless there is a 2 in the table and no 0.

    Raises:
        InputError: there is a 0 and a 2.
    """
    tokens = {label: token(label) for label in labels}
    numbers = {t for t in tokens.values() if t.isdecimal()}
    if {"0", "2"} <= numbers:
        zero, two = (next(label for label, t in tokens.items() if t == n) for n in "02")
        raise InputError(
            f"the tables name channels {zero!r} and {two!r}, so a channel is neither 0 or 1 nor 1 or 2; "
            "name the two that count, for example with --channels 0,1"
        )
    first = 1 if "2" in numbers else 0
    side_of = LETTERS | {str(first): 0, str(first + 1): 1}
    return {label: side_of[t] for label, t in tokens.items() if t in side_of}


def pair_of(tokens: Iterable[str], given: Sequence[str]) -> tuple[str, str] | None:
    """Return the two names of sides in ``tokens`` in the order of their channels, if they are a pair."""
    names = set(tokens)
    known = [*PAIRS, (given[0], given[1])] if given else list(PAIRS)
    for pair in reversed(known):  # --channels says more than the names do
        if names == set(pair):
            return pair
    if len(names) == 2 and all(re.fullmatch(r"p\d\w*", name) for name in names):
        first, second = sorted(names)
        return first, second
    return None


def split(stem: str, given: Sequence[str]) -> tuple[str, str] | None:
    """Return the conversation and the side in a name such as ``call0_A`` or ``call0.left``, if it has one."""
    if match := PARTICIPANT.fullmatch(stem):
        return match[1], match[2].casefold()
    names = "|".join(sorted({re.escape(name) for pair in (*PAIRS, tuple(given)) for name in pair}))
    match = re.fullmatch(rf"(.+?)[ _.\-]+((?:{WORDS.pattern})?(?:{names}|\d{{1,3}}))", stem, re.IGNORECASE)
    return (match[1], token(match[2])) if match else None


def names_side(folder: str, given: Sequence[str]) -> bool:
    """Whether a folder is called as a side of conversations is; numbers are not, sessions have them."""
    return any(token(folder) in pair for pair in (*PAIRS, tuple(given))) and not token(folder).isdecimal()

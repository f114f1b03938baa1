"""Switchboard (LDC97S62) with the "ms98" word alignments of ISIP.

Transcripts: ``sw2001A-ms98-a-word.text``, a file per speaker with lines ``utterance start_s end_s token``.
Audio: ``sw02001.sph``, ``.wav`` or ``.flac``. Both are found anywhere below their folders.
"""

import re
from operator import ne
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from vap_pipeline.artefacts.manifest import Manifest
from vap_pipeline.audio.rates import LONGEST_S
from vap_pipeline.corpora import build, recordings
from vap_pipeline.corpora.build import Speech
from vap_pipeline.corpora.faults import Faults
from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError

WORDS = re.compile(r"sw(\d{1,9})([ab])-ms98-a-word\.text", re.IGNORECASE)
AUDIO = re.compile(r"sw(\d{1,9})", re.IGNORECASE)
LINE = re.compile(r"\S+\s+\d+(\.\d+)?\s+\d+(\.\d+)?\s+\S+", re.ASCII)
NOT_SPEECH = frozenset(("[silence]", "[noise]", "[vocalized-noise]", "[laughter]"))
ASIDE = "<b_aside>"  # a speaker talks to a third person: the paper does not use such conversations


def read(transcripts: Path, audio: Path | None, test: int, folds: int, on_error: str = "stop") -> Manifest:
    """Return the manifest of the conversations in ``transcripts``, named and sorted as ``sw2001``.

    The last ``test`` conversations are for testing, the others make ``folds`` contiguous folds; those with an
    aside are listed and not used. Without ``audio`` a conversation lasts until the last time in it.

    With ``on_error="skip"``, conversations without audio or transcripts are not part of the corpus. Broken
    ones are left out after the split, so that the others stay in their folds.

    Raises:
        InputError: a file or a conversation cannot be used (see :func:`words`, :func:`corpora.fit`).
    """
    sides = find(transcripts)
    faults = Faults(on_error)
    recorded: dict[str, Path] = {} if audio is None else recordings.find(audio, _of_audio, faults)
    names = sorted(sides, key=_number) if audio is None else build.paired(sides, recorded, audio, faults)
    names.sort(key=_number)

    speech: dict[str, Speech] = {}
    asides = set()
    for name in tqdm(names, "transcripts", unit=" conversations", disable=None):
        if name in faults.left_out:
            continue
        with faults.handled():
            spoken, aside = read_conversation(name, sides[name])
            speech[name] = build.fit(name, spoken, *([recorded[name]] if audio else []))
            if aside:
                asides.add(name)
    faults.report()
    splits = build.split([name for name in names if name not in asides], test, folds)
    paths = {name: path.relative_to(audio).as_posix() for name, path in recorded.items() if audio}
    return build.assemble(speech, paths, splits)


def find(transcripts: Path) -> dict[str, dict[str, Path]]:
    """Return for each conversation below ``transcripts`` its word files: {"sw2001": {"A": path, "B": path}}.

    Raises:
        InputError: no such folder, no transcripts in it, or two files of one speaker.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in recordings.walk(transcripts):
        match = WORDS.fullmatch(path.name)
        if match:
            sides = found.setdefault(_name(match[1]), {})
            other = sides.setdefault(match[2].upper(), path)
            if other != path:
                raise InputError(f"{path}: {other} has the same speaker; remove one of the two")
    if not found:
        raise InputError(
            f"{transcripts}: no transcripts below it (such as 20/2001/sw2001A-ms98-a-word.text); "
            "unpack switchboard_word_alignments.tar.gz there"
        )
    return found


def read_conversation(name: str, sides: dict[str, Path]) -> tuple[Speech, bool]:
    """Return who speaks when, from the word files of both sides, and whether there is an aside.

    Raises:
        InputError: a side is missing, broken (:func:`words`), or over a second shorter than the other.
    """
    for side in "AB":
        if side not in sides:
            raise InputError(
                f"conversation {name}: no word file of speaker {side}; add it, or leave {name} out"
            )
    (start_a, end_a, last_a, aside_a), (start_b, end_b, last_b, aside_b) = (
        words(sides[side], f"{name}{side}-") for side in "AB"
    )
    if abs(last_a - last_b) > 1:
        raise InputError(
            f"conversation {name}: the transcripts of A end at {last_a:g} s and those of B at {last_b:g} s, "
            "so one is cut short; get its file again"
        )
    speech = Speech(
        np.repeat(np.array([0, 1], np.int8), [len(start_a), len(start_b)]),
        np.concatenate([start_a, start_b]),
        np.concatenate([end_a, end_b]),
        max(last_a, last_b),
    )
    return speech, aside_a or aside_b


def words(path: Path, utterances: str) -> tuple[np.ndarray, np.ndarray, float, bool]:
    """Read a word file whose utterance ids start with ``utterances``.

    Returns:
        start_s, end_s: (segments,) speech, merged inside each utterance (:func:`build.merge`).
        last_s: the last end time.
        aside: whether the speaker talks to a third person anywhere.

    Raises:
        InputError: the file cannot be read, a line does not hold four columns with two times, an utterance is
            another speaker's, or times run backwards or overlap.
    """
    files.check_regular(path)
    try:
        content = path.read_bytes().decode("utf-8-sig").strip()  # editors add the mark
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8 text; get the file again") from error
    # Split the whole file at once and check whole columns; a wrong line is looked up only after that.
    columns = content.split()
    utterance, start, end, token = (columns[i::4] for i in range(4))
    if not columns or len(columns) != 4 * (content.count("\n") + 1):
        raise _fault(path, content)
    try:
        if "".join(start + end).encode("ascii").translate(None, b"0123456789."):
            raise _fault(path, content)
        start_s, end_s = pa.array(start + end).cast(pa.float64()).to_numpy().reshape(2, -1)
    except (UnicodeEncodeError, pa.ArrowInvalid):
        raise _fault(path, content) from None
    for own in set(utterance):
        if not own.lower().startswith(utterances.lower()):
            raise InputError(f"{path}: utterance {own} is not one of {utterances}…; get the right file")
    spoken = "".join(token)
    if spoken.count("[") != spoken.count("]"):
        line = next(i for i, t in enumerate(token, 1) if t.count("[") != t.count("]"))
        raise InputError(f"{path}: line {line}: an unmatched bracket, so text is missing; get the file again")
    wrong = end_s < start_s
    wrong[1:] |= start_s[1:] < end_s[:-1]
    wrong |= end_s > LONGEST_S
    if wrong.any():
        line = int(wrong.argmax()) + 1
        raise InputError(
            f"{path}: line {line}: its times run backwards, into the line before, or past a day; "
            "get the file again"
        )

    speech = ~np.fromiter(map(NOT_SPEECH.__contains__, token), bool, len(token))
    number = np.cumsum(np.fromiter(map(ne, utterance, ["", *utterance]), bool, len(token)))
    segments = build.merge(start_s[speech], end_s[speech], number[speech])
    return *segments, float(end_s[-1]), ASIDE in content


def _fault(path: Path, content: str) -> InputError:
    """Return the error for a file that does not have four columns throughout."""
    if not content:
        return InputError(f"{path}: empty; get the file again")
    for number, line in enumerate(content.split("\n"), 1):
        if not LINE.fullmatch(line.strip()):
            return InputError(
                f"{path}: line {number}: not `utterance start_s end_s token`, times as decimals; "
                "get the file again"
            )
    return InputError(f"{path}: not lines of `utterance start_s end_s token`; get the file again")


def _name(digits: str) -> str:
    return f"sw{int(digits):04d}"


def _number(name: str) -> int:
    return int(name[2:])


def _of_audio(stem: str) -> str | None:
    match = AUDIO.fullmatch(stem)
    return _name(match[1]) if match else None

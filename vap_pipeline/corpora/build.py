"""What the readers of corpora share: merging words, durations, splits, and the manifest."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from vap_pipeline.artefacts.manifest import SCHEMA, Conversation, Manifest, check_duration
from vap_pipeline.corpora import recordings
from vap_pipeline.corpora.faults import Faults
from vap_pipeline.io.errors import InputError

GAP_S = 0.05  # words closer than this are one segment
OVERRUN_S = 1.0  # transcripts may run past the end of the audio by this much

Split = tuple[str, int | None]


@dataclass(frozen=True)
class Speech:
    """Who speaks when in one conversation: rows of segments [start_s, end_s), sorted by channel and start."""

    channel: np.ndarray  # int8
    start_s: np.ndarray
    end_s: np.ndarray
    duration_s: float  # of the conversation; without audio, the last end time


def paired(spoken: Iterable[str], audio: Mapping[str, Path], root: Path, faults: Faults) -> list[str]:
    """Return the names that have both transcripts and audio; every other name is a fault."""
    spoken = set(spoken)
    for missing, what in (
        (spoken - audio.keys(), f"no audio below {root}"),
        (audio.keys() - spoken, "no transcripts"),
    ):
        for name in sorted(missing):
            with faults.handled():
                raise InputError(
                    f"conversation {name}: {what} ({len(missing)} like this); "
                    "complete the folders, or leave such conversations out with --on-error skip"
                )
    return sorted(spoken & audio.keys())


def merge(
    start_s: np.ndarray, end_s: np.ndarray, utterance: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Merge one speaker's words into segments of speech.

    A word that starts less than 0.05 s after the end of the segment before it extends that segment; the first
    word of an utterance always starts a new one.

    Args:
        start_s, end_s: (words,) seconds, sorted by start.
        utterance: (words,) the number of each word's utterance; without it all words are of one.

    Returns:
        start_s, end_s of the segments, (segments,).
    """
    # Switchboard has 851 gaps of exactly 0.05 s. Rounding this difference in float64 puts 347 of them below
    # 0.05, as it did for the published events; with exact decimals two of those events would be missing.
    end_s = np.maximum.accumulate(end_s)
    first = np.ones(len(start_s), bool)
    first[1:] = start_s[1:] - end_s[:-1] >= GAP_S
    if utterance is not None:
        first[1:] |= utterance[1:] != utterance[:-1]
    return start_s[first], end_s[np.roll(first, -1)]


def fit(name: str, speech: Speech, *recording: Path) -> Speech:
    """Give the conversation the duration of its recording, and cut off speech after its end.

    Args:
        recording: its audio file, or the files of the two speakers; without one, the duration stays.

    Raises:
        InputError: the recording cannot be used, the conversation is shorter than 10 s, or there is speech
            more than a second after its end.
    """
    duration_s = recordings.duration_s(*recording) if recording else speech.duration_s
    check_duration(f"conversation {name}", duration_s)
    overrun = speech.end_s.max(initial=0) - duration_s
    if overrun > OVERRUN_S:
        raise InputError(
            f"conversation {name}: its speech ends {overrun:.2f} s after {recording[0]} does; "
            "the audio is cut short or another recording's: get the right file"
        )
    inside = speech.start_s <= duration_s
    return Speech(
        speech.channel[inside],
        speech.start_s[inside],
        np.minimum(speech.end_s[inside], duration_s),
        duration_s,
    )


def split(names: Sequence[str], test: int, folds: int) -> dict[str, Split]:
    """Keep the last ``test`` names for testing and cut the others into ``folds`` contiguous blocks.

    The blocks are those of scikit-learn's unshuffled KFold: equally long, or the first ones longer by one.

    Raises:
        InputError: there are too few for that.
    """
    if folds < 2 or test < 0:
        raise InputError(
            f"--folds {folds} --test {test}: give at least 2 folds, and at least 0 conversations for testing"
        )
    train = len(names) - test
    if train < folds:
        raise InputError(
            f"{len(names)} conversations are too few for a test set of {test} and {folds} folds; "
            "give a smaller --test or --folds"
        )
    length, longer = divmod(train, folds)
    blocks = [fold for fold in range(folds) for _ in range(length + (fold < longer))]
    found: dict[str, Split] = {name: ("train", fold) for name, fold in zip(names, blocks, strict=False)}
    return found | dict.fromkeys(names[train:], ("test", None))


def assemble(speech: Mapping[str, Speech], audio: Mapping[str, str], splits: Mapping[str, Split]) -> Manifest:
    """Return the manifest of the conversations in ``speech``.

    Args:
        audio: the path of each recording below the folder of audio, or its two paths joined by ``|``.
        splits: conversations without a split are listed as unused.
    """
    if not speech:
        raise InputError("no conversation is left; correct those that were skipped")
    conversations = []
    for name, spoken in speech.items():
        split = splits.get(name, ("", None))
        conversations.append(Conversation(name, audio.get(name, ""), spoken.duration_s, *split))
    ordered = sorted(speech)
    lengths = [len(speech[name].start_s) for name in ordered]
    names = pa.DictionaryArray.from_arrays(
        np.repeat(np.arange(len(ordered), dtype=np.int32), lengths), ordered
    )
    columns = [np.concatenate([getattr(speech[n], field) for n in ordered]) for field in SCHEMA.names[1:]]
    return Manifest(conversations, pa.table([names.cast(pa.string()), *columns], schema=SCHEMA))

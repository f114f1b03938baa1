"""Any corpus of recordings of two speakers with labels of who speaks when.

Labels are files of any format in :mod:`vap_pipeline.corpora.formats.registry`; recordings are two-channel
files or files of each speaker, anywhere below the audio folder (:mod:`vap_pipeline.corpora.layout`). A row
belongs to the conversation it names, or to the one that its file is named after.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vap_pipeline.artefacts.manifest import Manifest, check_name
from vap_pipeline.corpora import build, discover, layout, recordings, sides, tidy
from vap_pipeline.corpora.build import Speech
from vap_pipeline.corpora.faults import Faults
from vap_pipeline.corpora.formats import registry
from vap_pipeline.corpora.formats.row import Row
from vap_pipeline.corpora.layout import Layout, Recording
from vap_pipeline.corpora.speakers import Speakers
from vap_pipeline.io.errors import InputError

log = logging.getLogger(__name__)


@dataclass
class Labelled:
    """The rows of one conversation, each with the side that its name or file says, and the recording."""

    recording: Recording | None = None
    rows: list[tuple[Row, str | None]] = field(default_factory=list)
    formats: dict[str, Path] = field(default_factory=dict)  # a file of each suffix


def read(
    audio: Path,
    tables: Sequence[Path],
    test: int | None,
    folds: int,
    seed: int = 0,
    on_error: str = "stop",
    channels: Sequence[str] = (),
    unit: str = "s",
) -> Manifest:
    """Return the manifest of the conversations in ``tables``, sorted by name.

    They are shuffled with ``seed``; ``test`` of them (by default a tenth, at least one) are for testing, the
    others make ``folds`` folds. ``on_error="skip"`` leaves out conversations that cannot be used.

    Args:
        channels: the names of the two speakers or channels in the tables; rows of others are left out.
        unit: of times whose format does not say it, ``s`` or ``ms``.

    Raises:
        InputError: a label file or a conversation cannot be used.
    """
    faults = Faults(on_error)
    given = [sides.token(name) for name in channels]
    labelled = gather(audio, tables, given, faults)
    speakers = Speakers({name: c.rows for name, c in labelled.items()}, given)
    counts: Counter[str] = Counter()
    speech: dict[str, Speech] = {}
    paths: dict[str, str] = {}
    for name, conversation in tqdm(sorted(labelled.items()), "conversations", unit="", disable=None):
        with faults.handled():
            check_name(name)
            if len(conversation.formats) > 1:
                listed = " and ".join(map(str, conversation.formats.values()))
                raise InputError(f"conversation {name}: labels in {listed}; name one of them with --table")
            rows = speakers.assign(name, conversation.rows, conversation.recording)
            spoken = tidy.speech_of(rows, unit, counts)
            recording = conversation.recording or _from_column(audio, name, rows)
            tidy.check_unit(name, spoken, recordings.duration_s(*recording.paths))
            speech[name] = build.fit(name, spoken, *recording.paths)
            counts["times after the end cut"] += int((spoken.end_s > speech[name].duration_s).sum())
            paths[name] = recording.audio(audio)
    faults.report()
    speakers.report()
    for what, count in counts.items():
        if count:
            log.info(f"{what}: {count:,}")
    names = list(speech)
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    splits = build.split(order, max(1, len(names) // 10) if test is None else test, folds)
    return build.assemble(speech, paths, splits)


def gather(audio: Path, tables: Sequence[Path], given: Sequence[str], faults: Faults) -> dict[str, Labelled]:
    """Return the rows of every conversation in ``tables``, label files or folders of them.

    Raises:
        InputError: a file cannot be read, has no rows, or a conversation has labels or audio only.
    """
    found: dict[str, Labelled] = defaultdict(Labelled)
    used: set[Recording] = set()
    unread: list[str] = []
    place: Layout | None = None
    for path, reference in _files(tables):
        rows: list[Row] = []
        with faults.handled():
            rows = registry.read(path)
        if not rows:
            unread.append(reference)
        by_name: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            by_name[row.conversation or reference].append(row)
        for name, mine in by_name.items():
            if mine[0].audio:
                conversation, side = found[layout.clean(name)], None
            else:
                place = place or discover.find(audio, given)
                try:
                    recording, side = place.match(name, given)
                except InputError:
                    used |= place.called(name, given)
                    with faults.handled():
                        raise
                    continue
                used.add(recording)
                conversation = found[recording.name]
                conversation.recording = recording
            conversation.formats[path.suffix.lower()] = path
            conversation.rows += [(row, side) for row in mine]
    if place:
        used = used.union(*(place.called(reference, given) for reference in unread))
        for recording in place.recordings:
            if recording in used:
                continue
            with faults.handled():
                raise InputError(
                    f"conversation {recording.name}: no transcripts; add them, move its audio out of "
                    f"{audio}, or leave such conversations out with --on-error skip"
                )
    return found


def _files(tables: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Every label file, and its path in its folder, which names its conversation."""
    for table in tables:
        chosen = [p for p in recordings.walk(table) if registry.is_labels(p)] if table.is_dir() else [table]
        if not chosen:
            raise InputError(
                f"{table}: no label files in this folder ({' '.join(registry.READERS)}); check the path"
            )
        root = table if table.is_dir() else table.parent
        if len(tables) > 1:
            root = root.parent  # left/ and right/
        for path in chosen:
            yield path, path.relative_to(root).with_suffix("").as_posix()


def _from_column(audio: Path, name: str, rows: Sequence[tuple[Row, int]]) -> Recording:
    """The recording that the column ``audio`` of the rows gives, for both speakers or for each."""
    entries = [dict.fromkeys(row.audio or "" for row, side in rows if side == number) for number in (0, 1)]
    every = list(dict.fromkeys([*entries[0], *entries[1]]))
    if len(every) > 1 and [len(mine) for mine in entries] != [1, 1]:
        raise InputError(
            f"conversation {name}: the column audio names {', '.join(every[:3])}; give one file, or one for "
            "each speaker"
        )
    return layout.from_column(audio, name, every)

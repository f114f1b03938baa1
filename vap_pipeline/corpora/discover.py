"""Finding the recordings in a folder: two-channel files, and files of one speaker that make a pair."""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from vap_pipeline.corpora import recordings, sides
from vap_pipeline.corpora.layout import Layout, Recording
from vap_pipeline.io.errors import InputError


def find(root: Path, given: Sequence[str] = ()) -> Layout:
    """Return the recordings below ``root``. Two mono files make one where their names say so.

    These are ``X_A`` and ``X_B``, ``X.left`` and ``X.right``, ``X_1`` and ``X_2``, ``agent/X`` and
    ``caller/X``, and the like. Recordings are named after their files, with the folder where two files
    have one name.

    Raises:
        InputError: there is no such folder, no audio in it, or a folder that cannot be read.
    """
    files = {
        path: unicodedata.normalize("NFC", path.relative_to(root).with_suffix("").as_posix())
        for path in recordings.walk(root)
        if path.suffix.lower() in recordings.SUFFIXES and not path.name.startswith(".")
    }
    if not files:
        raise InputError(
            f"{root}: no audio of this corpus below it ({', '.join(recordings.SUFFIXES)}); check the path"
        )
    found: dict[str, list[tuple[tuple[Path, ...], tuple[str, str] | None]]] = defaultdict(list)
    paired: set[Path] = set()
    for groups in (_by_name(files, given), _by_folder(files, given)):
        for base, halves in groups.items():
            pair = sides.pair_of(halves, given)
            if not pair or len(halves) != 2 or any(len(h) > 1 or h[0] in paired for h in halves.values()):
                continue
            two = halves[pair[0]][0], halves[pair[1]][0]
            if all(recordings.may_be_mono(path) for path in two):
                found[base].append((two, pair))
                paired.update(two)
    for path, key in files.items():
        if path not in paired:
            found[key].append(((path,), None))

    uses: dict[str, int] = defaultdict(int)
    for key, sources in found.items():
        uses[PurePosixPath(key).name] += len(sources)
    layout = Layout(root, [])
    for key, sources in found.items():
        stem = PurePosixPath(key).name
        name = stem if uses[stem] == 1 else key.replace("/", "_")
        for paths, pair in sources:
            recording = Recording(name, paths, pair)
            layout.recordings.append(recording)
            for alias in {name, key, stem}:
                layout.index[alias].add((recording, None))
            for path, side in zip(paths, pair or (), strict=False):
                for alias in {files[path], PurePosixPath(files[path]).name} - {name, key, stem}:
                    layout.index[alias].add((recording, side))
    return layout


def _by_name(files: dict[Path, str], given: Sequence[str]) -> dict[str, dict[str, list[Path]]]:
    """Files by conversation and side, where the name of the file has a side: X_A."""
    groups: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path, key in files.items():
        folder = PurePosixPath(key).parent
        if half := sides.split(PurePosixPath(key).name, given):
            groups[(folder / half[0]).as_posix()][half[1]].append(path)
    return groups


def _by_folder(files: dict[Path, str], given: Sequence[str]) -> dict[str, dict[str, list[Path]]]:
    """Files by conversation and side, where the folder has the name of a side: agent/X."""
    groups: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path, key in files.items():
        folder = PurePosixPath(key).parent
        if folder.name and sides.names_side(folder.name, given):
            groups[(folder.parent / PurePosixPath(key).name).as_posix()][sides.token(folder.name)].append(
                path
            )
    return groups

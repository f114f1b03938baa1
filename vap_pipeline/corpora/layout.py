"""Recordings, two-channel files or files for each speaker, and the names that tables give them."""

import difflib
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from vap_pipeline.corpora import recordings, sides
from vap_pipeline.io.errors import InputError


@dataclass(frozen=True)
class Recording:
    """One recording: a two-channel file, or a file of each speaker; ``sides`` names the two."""

    name: str
    paths: tuple[Path, ...]
    sides: tuple[str, str] | None = None

    def audio(self, root: Path) -> str:
        """Its entry in a manifest, relative to the folder of audio."""
        return "|".join(path.relative_to(root).as_posix() for path in self.paths)


@dataclass
class Layout:
    """The recordings below ``root``, and what may refer to each: names, paths, and paths of one speaker."""

    root: Path
    recordings: list[Recording]
    index: dict[str, set[tuple[Recording, str | None]]] = field(default_factory=lambda: defaultdict(set))

    def match(self, reference: str, given: Sequence[str]) -> tuple[Recording, str | None]:
        """Return the recording that a name in a table, or the path of a label file, refers to.

        Args:
            reference: a name or path, with or without an audio suffix.
            given: the names of the two sides of ``--channels``.

        Returns:
            The recording, and the name of the side if the reference is to one speaker only.

        Raises:
            InputError: there is no such recording, or there are two.
        """
        for alias, side in self._aliases(reference, given):
            known = self.index.get(alias, set())
            if len({recording.paths for recording, _ in known}) > 1:
                listed = " and ".join(sorted(str(recording.paths[0]) for recording, _ in known)[:2])
                raise InputError(
                    f"conversation {reference}: there are {listed}; remove one of the two, "
                    "or give the folder too, as in folder/name"
                )
            for recording, own in known:
                return recording, own or side
        raise InputError(f"conversation {reference}: no audio below {self.root}{self._near(reference)}")

    def called(self, reference: str, given: Sequence[str]) -> set[Recording]:
        """Return the recordings that ``reference`` may mean, one, several or none."""
        known: set[tuple[Recording, str | None]] = set()
        for alias, _ in self._aliases(reference, given):
            known = known or self.index.get(alias, set())
        return {recording for recording, _ in known}

    def _aliases(self, reference: str, given: Sequence[str]) -> list[tuple[str, str | None]]:
        """What a reference may be called in the index, with the side it then names, the exact one first."""
        parts = PurePosixPath(clean(reference)).parts or ("",)
        paths = ["/".join(parts[i:]) for i in range(len(parts))]
        found: list[tuple[str, str | None]] = [(paths[0], None)]
        if len(parts) > 1 and sides.names_side(parts[-2], given):  # left/call0
            side = sides.token(parts[-2])
            found += [("/".join([*parts[:-2], parts[-1]]), side), (parts[-1], side)]
        found += [(path, None) for path in paths[1:]]
        if half := sides.split(parts[-1], given):  # call0_A
            found += [("/".join([*parts[i:-1], half[0]]), half[1]) for i in range(len(parts))]
        return found

    def _near(self, name: str) -> str:
        """The files whose names are most like ``name``, as a question."""
        name = PurePosixPath(clean(name)).name
        files = {path.stem: path.name for recording in self.recordings for path in recording.paths}
        close = [stem for stem in sorted(files) if stem.lower().startswith(name.lower())]
        close = close or difflib.get_close_matches(name, sorted(files), 2, 0.75)
        if not close:
            return "; complete the folder, or leave such conversations out with --on-error skip"
        listed = " and ".join(files[stem] for stem in close[:2])
        return f"; there is {listed}: did you mean {close[0]!r}?"


def clean(name: str) -> str:
    """Return a name or path in Unicode's form NFC, without the suffix of an audio file."""
    plain = unicodedata.normalize("NFC", name.strip()).replace("\\", "/")
    suffix = PurePosixPath(plain).suffix
    return plain[: -len(suffix)] if suffix.lower() in recordings.SUFFIXES else plain


def from_column(root: Path, name: str, entries: Iterable[str]) -> Recording:
    """Return the recording that a table's column ``audio`` gives: a path, or two for the two speakers.

    Args:
        root: the folder of audio; paths are relative to it, or lead below it.
        entries: the path of the recording, two paths joined by ``|``, or the path of each speaker in order.

    Raises:
        InputError: there is no such file, it is not below ``root``, or there are more than two.
    """
    paths = []
    for entry in "|".join(entries).split("|"):
        path = next((p for p in (root / entry.strip(), Path(entry.strip())) if p.is_file()), None)
        if path is None:
            raise InputError(
                f"conversation {name}: audio {root / entry.strip()}: no such file; check the column audio"
            )
        inside = os.path.relpath(path, root)
        if inside.startswith(".."):
            raise InputError(
                f"conversation {name}: audio {entry} is not below {root}; give --audio a folder above it"
            )
        paths.append(root / inside)
    if len(paths) > 2:
        raise InputError(
            f"conversation {name}: {len(paths)} files in the column audio; give one, or one for each of "
            "two speakers"
        )
    return Recording(name, tuple(paths))

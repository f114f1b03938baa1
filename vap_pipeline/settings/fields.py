"""One mechanism for settings: a section is a dataclass whose fields carry type, default, range and help.

From these follow the flags of a command, the checks of params.yaml, and the text of ``--help``.
"""

import argparse
import difflib
import math
import operator
import types
from collections.abc import Iterable, Iterator
from dataclasses import Field, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NewType, TypeVar, Union, get_args, get_origin, get_type_hints

from vap_pipeline.io.errors import InputError

Location = NewType("Location", str)  # a folder, or any fsspec address such as s3://bucket/features.zarr
Weights = NewType("Weights", str)  # a file of weights, or the name of weights that the program knows
LARGEST_SEED = (1 << 32) - 1  # that every random generator takes
LIMITS = {
    "least": ("at least", operator.ge),
    "above": ("more than", operator.gt),
    "most": ("at most", operator.le),
    "below": ("less than", operator.lt),
}
KINDS = {int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}

S = TypeVar("S", bound="Section")


def setting(default: Any, help: str, choices: tuple[str, ...] = (), **limits: float) -> Any:
    """Declare a field of a :class:`Section`.

    Args:
        default: the value if none is given; if it is None, ``help`` says what applies.
        choices: the allowed texts; without any, all are.
        limits: of a number, by the names in ``LIMITS``.
    """
    metadata = {"help": help, "choices": choices, "limits": limits}
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def seed(help: str = "random seed") -> Any:
    """Declare a seed that every random generator takes."""
    return setting(0, help, least=0, most=LARGEST_SEED)


@dataclass(frozen=True)
class Section:
    """A section of settings. Making one converts and checks every value.

    Raises:
        InputError: a value has the wrong type or is out of range.
    """

    NAME: ClassVar[str] = ""  # its place in the section of a corpus, such as events.hs

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None or item.default is not None:
                object.__setattr__(self, item.name, self._checked(item, value))

    def _checked(self, item: Field[Any], value: Any) -> Any:
        kind, place = _kind(type(self), item), f"{self.NAME}.{item.name}".lstrip(".")
        try:
            converted = _as(kind, value)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{place} is {value!r}; it must be {_described(kind)}") from error
        limits, choices = item.metadata.get("limits", {}), item.metadata.get("choices")
        if not all(LIMITS[name][1](converted, bound) for name, bound in limits.items()):
            needed = " and ".join(f"{LIMITS[name][0]} {bound:,g}" for name, bound in limits.items())
            raise InputError(f"{place} is {value!r}; it must be {needed}")
        if choices and converted not in choices:
            raise InputError(f"{place} is {value!r}; it must be one of {', '.join(choices)}")
        return converted


def parse(section: type[S], given: Any, where: str, base: Path = Path()) -> S:
    """Make a section from a mapping that YAML or JSON gave.

    Args:
        given: the mapping; None stands for an empty one.
        where: the start of messages, such as ``params.yaml: sample.``.
        base: the folder that relative paths start from; ``~`` is expanded.

    Raises:
        InputError: an unknown key, a value of the wrong type, or one out of range.
    """
    try:
        return _parse(section, given, base)
    except InputError as error:
        raise InputError(f"{where.rstrip('.') if str(error)[0] == ':' else where}{error}") from error


def _parse(section: type[S], given: Any, base: Path) -> S:
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise InputError(
            f"{section.NAME} is {given!r}; give a section of settings, one a line, as `name: value`"
        )
    known = {item.name: _kind(section, item) for item in fields(section)}
    for key in given.keys() - known.keys():
        raise unknown(str(key), known, section.NAME)
    values = {name: value for name, value in given.items() if value is not None}  # None: left empty
    for name, value in values.items():
        if isinstance(known[name], type) and issubclass(known[name], Section):
            values[name] = _parse(known[name], value, base)
        elif isinstance(value, str):
            values[name] = _placed(known[name], value, base)
    return section(**values)


def unknown(key: str, known: Iterable[str], where: str) -> InputError:
    """Return the error that refuses a key and names the nearest known one."""
    near = difflib.get_close_matches(key, known := list(known), 1, 0.6)
    suggestion = f"did you mean '{near[0]}'? " if near else ""
    return InputError(f"{where}: unknown setting '{key}'; {suggestion}known are {', '.join(known)}")


def add_flags(parser: argparse.ArgumentParser, section: type[Section], title: str) -> None:
    """Add a flag for every field, fields of inner sections included. A flag that is not given is None."""
    group = parser.add_argument_group(title)
    for path, kind, item in _leaves(section):
        options: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        if kind is not bool:
            count = len(get_args(kind)) or None
            number = get_args(kind)[0] if count else kind
            options = {"nargs": count, "choices": item.metadata["choices"] or None}
            options |= {"type": number, "metavar": "N"} if number in (int, float) else {}
            options |= {"metavar": "TEXT"} if number not in (int, float) and not options["choices"] else {}
        shown = " ".join(map(str, item.default)) if isinstance(item.default, tuple) else item.default
        group.add_argument(
            "--" + "-".join(path).replace("_", "-"),
            dest=".".join((section.NAME, *path)),
            help=item.metadata["help"] + (f" ({shown})" if shown is not None else ""),
            default=None,
            **options,
        )


def given_flags(args: argparse.Namespace, section: type[Section]) -> dict[tuple[str, ...], Any]:
    """Return the values of the flags of :func:`add_flags` that the user gave, by path in the section."""
    flags = {path: getattr(args, ".".join((section.NAME, *path))) for path, _, _ in _leaves(section)}
    return {path: value for path, value in flags.items() if value is not None}


def override(section: S, args: argparse.Namespace) -> S:
    """Return ``section`` with the values of the given flags in place of its own.

    Raises:
        InputError: a value is out of range, or the values do not go together.
    """
    changes: dict[str, Any] = {}
    for (name, *inner), value in given_flags(args, type(section)).items():
        if inner:
            value = replace(changes.get(name, getattr(section, name)), **{inner[0]: value})
        changes[name] = value
    return replace(section, **changes)


def _leaves(section: type[Section]) -> Iterator[tuple[tuple[str, ...], Any, Field[Any]]]:
    """Yield path, type and field of every value in a section and its inner sections."""
    for item in fields(section):
        kind = _kind(section, item)
        if isinstance(kind, type) and issubclass(kind, Section):
            for path, inner_kind, inner in _leaves(kind):
                yield (item.name, *path), inner_kind, inner
        else:
            yield (item.name,), kind, item


@cache
def _hints(section: Any) -> dict[str, Any]:
    return get_type_hints(section)


def _kind(section: Any, item: Field[Any]) -> Any:
    """Return the type of a field, without the None of an optional one."""
    kind = _hints(section)[item.name]
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(option for option in get_args(kind) if option is not type(None))
    return kind


def _as(kind: Any, value: Any) -> Any:
    """Return ``value`` as ``kind``; raise TypeError or ValueError if it is of another type."""
    if isinstance(value, bool) != (kind is bool):
        raise TypeError
    if kind is float:
        value = float(value)  # YAML takes 5e-4 for text
        if not math.isfinite(value):
            raise ValueError
    elif kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    elif kind is Path and isinstance(value, str):
        value = Path(value)
    elif get_origin(kind) in (tuple, list):
        inner = get_args(kind)
        if not isinstance(value, (list, tuple)) or (get_origin(kind) is tuple and len(value) != len(inner)):
            raise TypeError
        return get_origin(kind)(_as(inner[0], part) for part in value)
    if not isinstance(value, getattr(kind, "__supertype__", kind)):
        raise TypeError
    return value


def _placed(kind: Any, value: str, base: Path) -> str:
    """Return a path that starts from ``base``, and any other text as it is."""
    path = base / Path(value).expanduser()
    is_file = kind is Weights and (path.exists() or "/" in value)
    return str(path) if kind is Path or (kind is Location and "://" not in value) or is_file else value


def _described(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return f"{len(get_args(kind))} numbers"
    if get_origin(kind) is list:
        return "a list of names" if get_args(kind)[0] is str else "a list of whole numbers"
    return KINDS.get(kind, "text")

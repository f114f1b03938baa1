"""One mechanism for settings: a section is a dataclass whose fields carry type, default, range and help.

From these follow the flags of a command, the checks of params.yaml, and what ``--help`` says.
"""

import argparse
import difflib
import math
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

S = TypeVar("S", bound="Section")


def setting(
    default: Any,
    help: str,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare a field of a :class:`Section`.

    Args:
        default: its value where nothing is given; with None, ``help`` says what holds then.
        help: what ``--help`` says of it.
        least, most, above, below: the range of a number, ends included and excluded.
        choices: the texts that are allowed; without any, all are.
    """
    metadata = {
        "help": help,
        "least": least,
        "most": most,
        "above": above,
        "below": below,
        "choices": choices,
    }
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
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

    NAME: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None or each.default is not None:
                where = f"setting {self.NAME}.{each.name}".replace(" .", " ")
                object.__setattr__(self, each.name, _converted(type(self), each, value, where))


def parse(section: type[S], given: Any, where: str, base: Path = Path()) -> S:
    """Make a section from a mapping as YAML gives it.

    Args:
        given: the mapping; None stands for an empty one.
        where: its place, such as ``params.yaml: sample.train``, for messages.
        base: the folder that relative paths start from.

    Raises:
        InputError: an unknown key, a value of the wrong type, or one out of range.
    """
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise InputError(f"{where} is {given!r}; give a section of settings, one a line, as `name: value`")
    known = [each.name for each in fields(section)]
    for key in given:
        if key not in known:
            raise InputError(f"{where}: unknown setting '{key}'; {_nearest(str(key), known)}")
    values = {}
    for each in fields(section):
        if given.get(each.name) is None:  # absent, or left empty
            continue
        place = f"{where}.{each.name}"
        kind = _kind(section, each)
        if isinstance(kind, type) and issubclass(kind, Section):
            values[each.name] = parse(kind, given[each.name], place, base)
        else:
            values[each.name] = _placed(kind, _converted(section, each, given[each.name], place), base)
    try:
        return section(**values)
    except InputError as error:  # of several settings together
        prefix = where.partition(": ")[0]
        raise error if str(error).startswith(prefix) else InputError(f"{prefix}: {error}") from error


def add_flags(parser: argparse.ArgumentParser, section: type[Section], title: str) -> None:
    """Add a flag for every field, fields of inner sections included. A flag that is not given is None."""
    group = parser.add_argument_group(title)
    for path, owner, each in _leaves(section):
        kind = _kind(owner, each)
        options: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        if kind is not bool:
            options = {
                "metavar": "N" if kind in (int, float) or get_origin(kind) is tuple else "TEXT",
                "nargs": len(get_args(kind)) if get_origin(kind) is tuple else None,
            }
        group.add_argument(
            _flag(path),
            dest=".".join((section.NAME, *path)),
            help=each.metadata["help"] + _shown(each),
            default=None,
            **options,
        )


def given_flags(args: argparse.Namespace, section: type[Section]) -> dict[tuple[str, ...], Any]:
    """Return the values of the flags of :func:`add_flags` that the user gave, by path in the section.

    Raises:
        InputError: a value has the wrong type or is out of range.
    """
    given = {}
    for path, owner, each in _leaves(section):
        value = getattr(args, ".".join((section.NAME, *path)))
        if value is not None:
            given[path] = _converted(owner, each, value, _flag(path))
    return given


def override(section: S, flags: dict[tuple[str, ...], Any]) -> S:
    """Return ``section`` with the values of :func:`given_flags` in place of its own.

    Raises:
        InputError: the values do not go together.
    """
    changes: dict[str, Any] = {}
    for path, value in flags.items():
        if len(path) == 1:
            changes[path[0]] = value
        else:
            inner = changes.get(path[0], getattr(section, path[0]))
            changes[path[0]] = replace(inner, **{path[1]: value})
    return replace(section, **changes)


def unknown(key: str, known: Iterable[str], where: str) -> InputError:
    """Return the error that refuses a key and names the nearest known one."""
    return InputError(f"{where}: unknown setting '{key}'; {_nearest(key, list(known))}")


def _nearest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, 1, 0.6)
    return (f"did you mean '{near[0]}'? " if near else "") + f"known are {', '.join(known)}"


def _flag(path: tuple[str, ...]) -> str:
    return "--" + "-".join(path).replace("_", "-")


def _leaves(section: type[Section]) -> Iterator[tuple[tuple[str, ...], type[Section], Field[Any]]]:
    """Yield path, owner and field of every value in a section and its inner sections."""
    for each in fields(section):
        kind = _kind(section, each)
        if isinstance(kind, type) and issubclass(kind, Section):
            for path, owner, inner in _leaves(kind):
                yield (each.name, *path), owner, inner
        else:
            yield (each.name,), section, each


@cache
def _hints(section: Any) -> dict[str, Any]:
    return get_type_hints(section)


def _kind(section: type[Section], field_: Field[Any]) -> Any:
    """Return the type of a field, without the None of an optional one."""
    kind = _hints(section)[field_.name]  # type: ignore[arg-type]  # a class is hashable
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(each for each in get_args(kind) if each is not type(None))
    return kind


def _converted(section: type[Section], field_: Field[Any], value: Any, where: str) -> Any:
    """Return ``value`` as the field's type, checked.

    Raises:
        InputError: it is of another type, or out of the field's range.
    """
    kind = _kind(section, field_)
    try:
        converted = _as(kind, value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where} is {value!r}; it must be {_name(kind)}") from error
    limits = field_.metadata
    if isinstance(converted, (int, float)) and not isinstance(converted, bool):
        inside = (
            limits["least"] <= converted <= limits["most"] and limits["above"] < converted < limits["below"]
        )
        if not inside:
            raise InputError(f"{where} is {value!r}; it must be {_range(limits)}")
    if limits.get("choices") and converted not in limits["choices"]:
        raise InputError(f"{where} is {value!r}; it must be one of {', '.join(limits['choices'])}")
    return converted


def _as(kind: Any, value: Any) -> Any:
    if isinstance(value, bool) != (kind is bool):
        raise TypeError
    if kind is int:
        number = float(value) if isinstance(value, (int, float, str)) else math.nan
        if number != math.floor(number):
            raise ValueError
        return int(value) if isinstance(value, int) else int(number)
    if kind is float:  # YAML takes 5e-4 for text
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
        return number
    if get_origin(kind) in (tuple, list):
        inner = get_args(kind)
        if not isinstance(value, (list, tuple)) or (get_origin(kind) is tuple and len(value) != len(inner)):
            raise TypeError
        return get_origin(kind)(_as(inner[0], item) for item in value)
    if kind is Path and isinstance(value, (str, Path)):
        return Path(value)
    if not isinstance(value, kind if isinstance(kind, type) else str):
        raise TypeError
    return value


def _placed(kind: Any, value: Any, base: Path) -> Any:
    """Let a relative path start from ``base``, and expand ``~``."""
    if kind is Path:
        return base / value.expanduser()
    if kind is Location and "://" not in value:
        return str(base / Path(value).expanduser())
    if kind is Weights:
        path = base / Path(value).expanduser()
        return str(path) if path.exists() or "/" in value else value
    return value


def _name(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", Path: "a path", str: "text"}
    if get_origin(kind) is tuple:
        return f"{len(get_args(kind))} numbers"
    if get_origin(kind) is list:
        return "a list of names" if get_args(kind)[0] is str else "a list of whole numbers"
    return names.get(kind, "text")


def _range(limits: Any) -> str:
    words = {"least": "at least", "above": "more than", "most": "at most", "below": "less than"}
    parts = [f"{word} {limits[key]:,g}" for key, word in words.items() if math.isfinite(limits[key])]
    return " and ".join(parts)


def _shown(field_: Field[Any]) -> str:
    """Return the default of a field as ``--help`` shows it."""
    if field_.default is None:  # the help says what holds then
        return ""
    shown = " ".join(map(str, field_.default)) if isinstance(field_.default, tuple) else field_.default
    return f" ({shown})"

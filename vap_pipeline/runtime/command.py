"""What every console script shares: settings from ``params.yaml``, and errors of one line."""

import argparse
import contextlib
import io
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from vap_pipeline.io.errors import InputError

PARAMS = Path("params.yaml")
LONGEST_SETTINGS = 100_000  # characters of a settings file
MOST_SETTINGS = 100_000  # in a settings file, each counted as often as it is repeated


def add_corpus(parser: argparse.ArgumentParser) -> None:
    """Add ``--corpus`` and ``--params``, the two flags from which every default follows."""
    parser.add_argument("--corpus", help="corpus section of the params file (default: the one it selects)")
    parser.add_argument("--params", type=Path, default=PARAMS, help="settings file (default: %(default)s)")


def read_corpus(path: Path = PARAMS, corpus: str | None = None) -> dict[str, Any]:
    """Return the settings of one corpus: the named section of ``path``, or the one ``corpus:`` selects.

    Without the file, the settings are just ``{"name": corpus}``, so that every command also works outside a
    project, on its own defaults.

    Raises:
        InputError: the file is not YAML, or has no such section.
    """
    return _named(path, _section(path, corpus))


def _section(path: Path, corpus: str | None) -> dict[str, Any]:
    if not path.exists():
        if path != PARAMS:
            raise InputError(f"{path}: no such settings file; give the path of a params.yaml")
        return {"name": corpus or "switchboard"}
    try:
        text = path.read_text(encoding="utf-8")
        if len(text) > LONGEST_SETTINGS:
            raise ValueError(f"{len(text):,} characters, where settings take some thousands")
        params = yaml.safe_load(text)
    except Exception as error:  # whatever text of any kind makes the parser raise
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not readable as YAML ({reason}); mend the file") from error
    if _is_endless(params):
        raise InputError(f"{path}: its anchors repeat without end; mend the file")
    if not isinstance(params, dict):
        raise InputError(f"{path}: expected a section per corpus; see the params.yaml of the repository")
    selected = params.get("corpus")
    if corpus is None:
        if not isinstance(selected, dict) or "name" not in selected:
            raise InputError(f"{path}: 'corpus:' must point at a corpus section, such as 'corpus: *sample'")
        return selected
    section = params.get(corpus)
    if section is None and isinstance(selected, dict) and selected.get("name") == corpus:
        section = selected  # written there itself, without a name to point at
    if section is None:  # a corpus of one's own, run on the commands' defaults
        section = {}
    if not isinstance(section, dict):
        raise InputError(f"{path}: '{corpus}' is not a corpus section")
    return {"name": corpus} | section


def _is_endless(params: Any) -> bool:
    """Whether there is more than can be looked through: some lines of YAML repeat each other for ever."""
    seen, left = 0, [params]
    while left and seen <= MOST_SETTINGS:
        seen += 1
        value = left.pop()
        if isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, (list, tuple)):
            left += value
    return seen > MOST_SETTINGS


def _named(path: Path, section: dict[str, Any]) -> dict[str, Any]:
    """Refuse a name that would lead out of the folders that are called after the corpus."""
    name = section["name"]
    plain = isinstance(name, str) and name.isprintable() and len(name) <= 100 and "::" not in name
    if not plain or name.startswith(".") or name != Path(name).name:
        raise InputError(f"{path}: a corpus cannot be called {name!r}; give a name that a folder can have")
    return section


def pick(
    flag: Any, settings: dict[str, Any], *keys: str, default: Any = None, kind: type | None = None
) -> Any:
    """Return the flag where it was given, else the nested setting ``keys``, else ``default``.

    Args:
        kind: what the setting must be: int, float, str (also a path) or list; the type of ``default`` else.

    Raises:
        InputError: the setting is of another kind.
    """
    if flag is not None:
        return flag
    value: Any = settings
    for number, key in enumerate(keys):
        if not isinstance(value, dict):
            section = ".".join(keys[:number])
            raise InputError(f"setting {section} is {value!r}, not a section; mend params.yaml")
        value = value.get(key)
        if value is None:
            return default
    kinds: dict[type, tuple[str, tuple[type, ...]]] = {
        int: ("a whole number", (int,)),
        float: ("a number", (int, float)),
        list: ("a list", (list,)),
        bool: ("true or false", (bool,)),
    }
    what, types = kinds.get(kind or type(default), ("text", (str,)))
    if type(value) not in types:
        raise InputError(f"setting {'.'.join(keys)} is {value!r}, not {what}; mend params.yaml")
    return value


def pick_seed(flag: int | None, settings: dict[str, Any], section: str) -> int:
    """Return the seed of a section, 0 where it is not given.

    Raises:
        InputError: it is no number that every random generator takes.
    """
    seed: int = pick(flag, settings, section, "seed", default=0)
    check_seed(f"setting {section}.seed", seed)
    return seed


def check_seed(what: str, seed: int) -> None:
    """Raise InputError unless every random generator takes the seed."""
    if not 0 <= seed < 1 << 32:
        raise InputError(f"{what} is {seed}: give a whole number from 0 to {(1 << 32) - 1}")


def section(
    name: str, types: dict[str, Any], args: argparse.Namespace, corpus: dict[str, Any]
) -> dict[str, Any]:
    """Return the settings ``types`` that flags of their names or the corpus's section ``name`` give.

    Args:
        types: of each setting what makes a value of it: int, float or a function.

    Raises:
        InputError: an unknown setting, or no number where one belongs.
    """
    given = {} if corpus.get(name) is None else corpus[name]
    if not isinstance(given, dict):
        raise InputError(f"{args.params}: {corpus['name']}.{name} is {given!r}, not a section of settings")
    if unknown := sorted(map(str, given.keys() - types.keys())):
        known = ", ".join(types)
        raise InputError(
            f"{args.params}: {corpus['name']}.{name}: unknown setting '{unknown[0]}'; known are {known}"
        )
    given = given | {key: getattr(args, key) for key in types if getattr(args, key) is not None}
    chosen = {}
    for key, value in given.items():
        try:
            if isinstance(value, bool):
                raise TypeError
            chosen[key] = types[key](value)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"{args.params}: {corpus['name']}.{name}.{key}: not a number: {value!r}"
            ) from error
        if types[key] is int and chosen[key] != value:
            raise InputError(f"{args.params}: {corpus['name']}.{name}.{key}: must be whole, not {value!r}")
    return chosen


def note_one_process(processes: int) -> None:
    """Say how to get several where ``accelerate launch`` has started but one, whatever it was told."""
    if processes == 1 and os.environ.keys() >= {"ACCELERATE_MIXED_PRECISION", "MASTER_PORT"}:
        logging.getLogger(__name__).warning(
            "accelerate launch has started one process; to start several on CPUs it takes --multi_gpu"
        )


def _check_paths(args: argparse.Namespace) -> None:
    """Raise InputError for a flag in which fsspec would see another path, or a protocol it does not know."""
    for flag, given in vars(args).items():
        for value in given if isinstance(given, list) else [given]:
            if not isinstance(value, (str, Path)):
                continue
            where = f"--{flag.replace('_', '-')} {value}"
            protocols = re.findall(r"([^:/]+)://", value) if isinstance(value, str) else []
            if isinstance(value, Path) and re.match(r"[a-z0-9]+:/", str(value)):
                raise InputError(f"{where}: must be a place on this machine")
            if "::" in str(value) and not protocols:
                raise InputError(f"{where}: '::' chains file systems; give a path without it")
            for protocol in protocols:
                import fsspec

                try:
                    fsspec.get_filesystem_class(protocol)
                except (ValueError, ImportError) as error:
                    raise InputError(f"{where}: {error}") from error


def show(text: str) -> None:
    """Print what the user has asked for on standard output.

    Raises:
        InputError: it cannot be written.
        BrokenPipeError: nobody reads it any more.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not every terminal can write ± and –
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"standard output: cannot be written ({error.strerror}); mend that") from error


def _open_standard_files() -> None:
    """Open those that are closed on nothing: the next file opened would become one, and be written into."""
    for handle in range(3):
        try:
            os.fstat(handle)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    sys.stdout, sys.stderr = (
        stream or open(handle, "w", closefd=False)  # noqa: SIM115
        for handle, stream in ((1, sys.stdout), (2, sys.stderr))
    )


def _flush_standard_files() -> None:
    """Give up what cannot be written: Python would try once more at the end, and change the exit status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def run(
    body: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser, argv: list[str] | None
) -> int:
    """Parse, run ``body``, and turn what is the user's to mend into one line on standard error, status 2.

    That is an :class:`InputError`, or an ``OSError`` of a file.
    """
    _open_standard_files()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    args = parser.parse_args(argv)
    try:
        status, message = _run(body, args)
        if message:
            with contextlib.suppress(OSError):  # the status says it too
                print(f"{parser.prog}: {message}", file=sys.stderr)
        return status
    finally:
        _flush_standard_files()


def _run(body: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> tuple[int, str]:
    """Run ``body``; return the exit status and what to say."""
    try:
        _check_paths(args)
        body(args)
    except InputError as error:
        # From a process that reads for this one it comes with the traceback there; its own words are the end.
        return 2, "error: " + str(error).rpartition("InputError: ")[2].strip()
    except BrokenPipeError:
        return 141, ""
    except OSError as error:
        if error.filename is None:
            raise
        return 2, f"error: {error.filename}: {error.strerror}; mend that"
    except KeyboardInterrupt:
        return 130, "interrupted; start the same command again to go on"
    return 0, ""

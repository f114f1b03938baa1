"""Reading params.yaml: one section a corpus, and ``corpus:``, which selects one."""

import argparse
import difflib
import logging
from pathlib import Path
from typing import Any

import yaml

from vap_pipeline.io.errors import InputError
from vap_pipeline.settings.corpus import Corpus
from vap_pipeline.settings.fields import parse, unknown

PARAMS = Path("params.yaml")
TOP_LEVEL = ("corpus", "launch")  # what is not a corpus's section: the selected one, and for dvc.yaml

log = logging.getLogger(__name__)


def add_corpus(parser: argparse.ArgumentParser) -> None:
    """Add ``--corpus`` and ``--params``, the two flags from which every default follows."""
    parser.add_argument("--corpus", help="corpus section of the settings file (default: the selected one)")
    parser.add_argument("--params", type=Path, default=PARAMS, help="settings file (default: %(default)s)")


def read_corpus(path: Path = PARAMS, name: str | None = None) -> Corpus:
    """Return the settings of one corpus: section ``name`` of ``path``, or the one that ``corpus:`` selects.

    Relative paths in the file start from the file's folder. Without ``params.yaml``, or without a section of
    that name in it, the settings are the defaults, so that every command works outside a project too.

    Raises:
        InputError: no such file, not YAML, an unknown setting at any level, or a value out of range.
    """
    path = Path(path)
    section = _section(path, name)
    corpus = section.get("name") if isinstance(section, dict) else None
    return parse(Corpus, section, f"{path}: {corpus if isinstance(corpus, str) else name}.", path.parent)


def _section(path: Path, name: str | None) -> Any:
    if not path.exists():
        if path != PARAMS:
            raise InputError(f"{path}: no such settings file; give the path of a params.yaml")
        return {} if name is None else {"name": name}
    params = _load(path)
    selected = params.get("corpus")
    if name is None:
        if not isinstance(selected, dict) or "name" not in selected:
            raise InputError(f"{path}: 'corpus:' must select a corpus section, such as 'corpus: *sample'")
        return selected
    section = params.get(name)
    if section is None and isinstance(selected, dict) and selected.get("name") == name:
        return selected  # written at `corpus:` itself
    if section is None:
        near = difflib.get_close_matches(name, [key for key in params if key not in TOP_LEVEL], 1, 0.8)
        if near:
            log.info("%s: no section '%s' (did you mean '%s'?), so the defaults hold", path, name, near[0])
        section = {}
    return {"name": name} | section if isinstance(section, dict) else section


def _load(path: Path) -> dict[Any, Any]:
    try:
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except Exception as error:  # some YAML makes the parser raise errors of other kinds
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())}); correct that line") from error
    if not isinstance(params, dict):
        raise InputError(
            f"{path}: it must hold a section for each corpus, such as 'sample: {{name: sample}}'"
        )
    for key, value in params.items():
        if key not in TOP_LEVEL and not isinstance(value, dict):
            raise unknown(str(key), TOP_LEVEL, str(path))
    return params

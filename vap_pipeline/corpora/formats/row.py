"""What every reader of labels returns, and the text of a label file."""

import gzip
from pathlib import Path
from typing import NamedTuple

from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError


class Row(NamedTuple):
    """A stretch of speech as a label file gives it; :mod:`vap_pipeline.corpora.tidy` checks the values.

    Attributes:
        start, end: times, numbers or text.
        duration: in place of ``end``.
        channel, speaker: labels of the speaker, as far as the file gives them.
        conversation: its name; None if the file is named after it.
        audio: path of its recording, or two paths joined by ``|``.
        word: words close to each other become one stretch of speech, segments do not.
        unit: ``s`` or ``ms`` where the format fixes it; None where the user may say otherwise.
        place: file and row, for messages.
        fault: why it cannot be used, if that is known.
    """

    start: object
    end: object = None
    duration: object = None
    channel: str | None = None
    speaker: str | None = None
    conversation: str | None = None
    audio: str | None = None
    word: bool = False
    unit: str | None = None
    place: str = ""
    fault: str | None = None


def text_of(path: Path) -> str:
    """Return the text of a file in UTF-8 or UTF-16, with or without a byte order mark; ``.gz`` is unpacked.

    Raises:
        InputError: it cannot be read, or is not such text.
    """
    content = files.read(path)
    try:
        if path.suffix.lower() == ".gz":
            content = gzip.decompress(content)
        utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be unpacked ({error}); copy it again") from error
    except UnicodeError as error:
        raise InputError(f"{path}: not text in UTF-8 ({error}); save it in that form") from error

"""Which reader a label file gets."""

from collections.abc import Callable
from pathlib import Path

from vap_pipeline.corpora.formats import chat, columns, elan, json_rows, subtitles, table, textgrid
from vap_pipeline.corpora.formats.row import Row, text_of
from vap_pipeline.io.errors import InputError

READERS: dict[str, Callable[[Path, str], list[Row]]] = {
    ".csv": table.read,
    ".tsv": table.read,
    ".json": json_rows.read,
    ".jsonl": json_rows.lines,
    ".ndjson": json_rows.lines,
    ".rttm": columns.rttm,
    ".ctm": columns.ctm,
    ".stm": columns.stm,
    ".textgrid": textgrid.read,
    ".eaf": elan.read,
    ".cha": chat.read,
    ".srt": subtitles.read,
    ".vtt": subtitles.read,
}
KALDI = "segments"  # the whole name of Kaldi's file
HELP = """\
.csv .tsv         a row per segment, any separator; the first line is conversation,channel,start_s,end_s (or
                  duration_s; a file per conversation needs no column conversation; a column audio names the
                  recording, or a file per speaker as A.wav|B.wav)
.json .jsonl      the same rows; in a file of the conversation's name without them, its words:
                  [{"speaker": "A", "start": 2.15, "end": 2.83}, ...]; words less than 0.05 s apart become one
                  stretch of speech
.json             of Whisper or WhisperX, or of Seamless Interaction
.jsonl(.gz)       supervisions of lhotse, with the recordings beside them
.rttm .ctm .stm   as of NIST
segments          of Kaldi, with utt2spk beside it
.TextGrid         of Praat, long or short, a tier per speaker (pip install 'vap-pipeline[formats]')
.eaf .cha         of ELAN, a tier per speaker; of TalkBank, with times
.srt .vtt         a file per speaker, or the speaker before the text
.txt              labels of Audacity"""


def is_labels(path: Path) -> bool:
    """Whether a file in a folder is one of labels; a ``.txt`` is if it holds labels of Audacity."""
    if path.name.startswith(".") or (".jsonl" in path.name and "recordings" in path.name):  # lhotse's audio
        return False
    if path.suffix.lower() == ".txt":
        try:
            return columns.is_audacity(text_of(path))
        except InputError:
            return False
    return path.name == KALDI or _suffix(path) in READERS


def read(path: Path) -> list[Row]:
    """Return the rows of a label file of any format (see ``HELP``).

    Raises:
        InputError: it cannot be read, is of another form than its name says, or has no rows.
    """
    suffix = _suffix(path)
    if suffix not in READERS and suffix != ".txt" and path.name != KALDI:
        raise InputError(f"{path}: not a table or label file that is known; see vap-manifest segments --help")
    text = text_of(path)
    if path.name == KALDI:
        reader: Callable[[Path, str], list[Row]] = columns.kaldi
    elif suffix == ".txt":
        reader = columns.audacity if columns.is_audacity(text) else table.read
    else:
        reader = READERS[suffix]
    rows = reader(path, text)
    if not rows:
        raise InputError(f"{path}: no rows; give a file with segments of speech")
    return rows


def _suffix(path: Path) -> str:
    """The suffix before ``.gz``."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix

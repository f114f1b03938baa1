"""Tables in any dialect have the same rows."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vap_pipeline.corpora import tidy
from vap_pipeline.corpora.formats import table
from vap_pipeline.corpora.formats.row import text_of
from vap_pipeline.io.errors import InputError

HEADERS = [
    ("conversation", "channel", "start_s", "end_s"),
    ("Call", "Side", "Begin", "End"),
    ("recordingId", "channelIndex", "startTime", "endTime"),
    ("FILE NAME", "CHANNEL", "ONSET (S)", "STOP (S)"),
    ("session_id", "chan", "t_start", "t_end"),
    ("dialogue", "channel_id", "xmin", "xmax"),
]


@given(
    header=st.sampled_from(HEADERS),
    separator=st.sampled_from([",", ";", "\t", "|", ", ", "; "]),
    newline=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    quoted=st.booleans(),
    comma=st.booleans(),
    spans=st.lists(
        st.tuples(st.integers(0, 90_000), st.integers(0, 90_000)).map(sorted), min_size=1, max_size=5
    ),
    order=st.permutations(range(5)),  # of the columns, and of one that is not read
)
def test_dialects(
    tmp_path_factory: pytest.TempPathFactory,
    header,
    separator,
    newline,
    encoding,
    quoted,
    comma,
    spans,
    order,
) -> None:
    rows = [[*header, "text"]]
    for a, b in spans:
        times = [f"{t / 1000}".replace(".", ",") if comma else f"{t / 1000}" for t in (a, b)]
        rows.append(["Gespräch 1", "1", *times, "hello"])
    quote = quoted or (comma and "," in separator)
    lines = [separator.join(f'"{row[i]}"' if quote else row[i] for i in order) for row in rows]
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(newline.join([*lines, separator.strip(" ") * 4, ""]).encode(encoding))
    found = table.read(path, text_of(path))
    assert [(r.conversation, r.channel, r.word, r.unit) for r in found] == [
        ("Gespräch 1", "1", False, None)
    ] * len(spans)
    assert [tidy.times(r, "s") for r in found] == [(a / 1000, b / 1000) for a, b in spans]


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "bytes.csv"
    path.write_bytes(b"channel,start,end\n" + content)
    try:
        for row in table.read(path, text_of(path)):
            tidy.times(row, "s")
    except InputError as error:
        assert "bytes.csv" in str(error) and "\n" not in str(error)

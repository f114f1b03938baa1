"""Parquet files with a checksum over all of them, read as if a stranger had made them."""

import hashlib
import io
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError

LARGEST = 1 << 30  # bytes of a table; the voice activity of Switchboard's 259 hours takes 16 MB
# How many times a file's size its pages can take. Of others (zstd, gzip) a few bytes may be a gigabyte,
# and what a footer says of them may be forged.
GROWTH = {"UNCOMPRESSED": 1, "SNAPPY": 22}
BLANK = "0" * 64
STAMP = re.compile(rb"sha256.{1,4}?([0-9a-f]{64})", re.DOTALL)


def encode(table: pa.Table) -> bytes:
    """Return ``table`` as a Parquet file: the same table gives the same bytes.

    Its SHA-256, of the file with zeros in this place, is in the file's metadata. Parquet's own checksums
    leave out the footer, and there a single bit can make a table empty, or end the process that reads it.
    """
    content = io.BytesIO()
    with pq.ParquetWriter(content, table.schema, compression="none", write_page_checksum=True) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"sha256": BLANK})
    blank = content.getvalue()
    return _stamped(blank, hashlib.sha256(blank).hexdigest())


def stamp(content: bytes) -> str:
    """Return the SHA-256 in a Parquet file of ours, '' of one that was made elsewhere.

    Raises:
        ValueError: the file has another.
    """
    found = [each[1] for each in STAMP.finditer(content)]
    if not found:
        return ""
    if hashlib.sha256(_stamped(content, BLANK)).hexdigest().encode() != found[-1]:
        raise ValueError("it is not as it was written")
    return found[-1].decode()


def _stamped(content: bytes, sha256: str) -> bytes:
    *_, last = STAMP.finditer(content)
    return content[: last.start(1)] + sha256.encode() + content[last.end(1) :]


def read(path: str | Path, schema: pa.Schema, most_rows: float, cure: str, most_items: float = 0) -> pa.Table:
    """Read a table of ``schema``, unless it grows beyond measure: a few bytes may stand for a billion rows.

    Args:
        most_rows: how many rows are believed.
        cure: what to do about a file that cannot be read.
        most_items: how many items of all the lists of a column; needed where there are lists.

    Returns:
        The table; ``sha256`` in its metadata is the :func:`stamp`.

    Raises:
        InputError: it is missing or damaged, has other columns, or is larger than that.
    """
    content = files.read(path)
    try:
        sha256 = stamp(content)
        table = _read(content, schema, most_rows, max(most_rows, most_items))
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:  # as garbled files do
        raise InputError(f"{path}: not readable as Parquet ({files.reason(error)}); {cure}") from error
    if not table.schema.equals(schema):
        raise InputError(
            f"{path}: its columns are {_columns(table.schema)}; they must be {_columns(schema)}; {cure}"
        )
    return table.replace_schema_metadata({**(table.schema.metadata or {}), b"sha256": sha256})


def _columns(schema: pa.Schema) -> str:
    return f"{', '.join(f'{field.name} {field.type}' for field in schema):.1000}"


def _read(content: bytes, schema: pa.Schema, most_rows: float, most_values: float) -> pa.Table:
    metadata = pq.read_metadata(io.BytesIO(content))
    there = metadata.schema.to_arrow_schema()
    if not there.equals(schema):
        return there.empty_table()
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    chunks = [[group.column(i) for group in groups] for i in range(metadata.num_columns)]
    if others := {chunk.compression for column in chunks for chunk in column} - GROWTH.keys():
        raise ValueError(f"compressed with {others.pop().lower()}, and only snappy and none are read")
    growth = max((GROWTH[chunk.compression] for column in chunks for chunk in column), default=1)
    values = [sum(abs(chunk.num_values) for chunk in column) for column in chunks]
    if max(growth * len(content), 32 * max(values)) > LARGEST:
        raise MemoryError("it grows to more than a gigabyte")
    rows = {metadata.num_rows, sum(group.num_rows for group in groups), min(values)}
    if len(rows) > 1 or max(rows) > most_rows or max(values) > most_values:
        raise ValueError(f"{max(*rows, *values):,} rows, more than there can be")
    # Text that repeats takes no more as a dictionary than in the file: room to see how long it is.
    texts = [field.name for field in schema if field.type == pa.string()]
    file = pq.ParquetFile(io.BytesIO(content), read_dictionary=texts, page_checksum_verification=True)
    table = file.read()
    table.validate(full=True)
    for text in texts:
        longest = pc.max(pc.binary_length(table[text].unique().cast(pa.string()))).as_py() or 0
        if longest * len(table) > LARGEST:
            raise MemoryError("its text grows to more than a gigabyte")
    return table.cast(schema).replace_schema_metadata(there.metadata)

"""Parquet files with checksums, read as if a stranger had made them."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vap_pipeline import files
from vap_pipeline.errors import InputError

LARGEST = 1 << 30  # bytes of a table; the voice activity of Switchboard's 259 hours takes 16 MB
# How many times a file's size its pages can take. Of others (zstd, gzip) a few bytes may be a gigabyte,
# and what a footer says of them may be forged.
GROWTH = {"UNCOMPRESSED": 1, "SNAPPY": 22}


def encode(table: pa.Table) -> bytes:
    """Return ``table`` as a Parquet file: the same table gives the same bytes."""
    content = io.BytesIO()
    pq.write_table(table, content, compression="none", write_page_checksum=True)
    return content.getvalue()


def read(path: str | Path, schema: pa.Schema, most_rows: float, cure: str) -> pa.Table:
    """Read a table of ``schema``, unless it grows beyond measure: a few bytes may stand for a billion rows.

    Args:
        most_rows: how many rows are believed; of a list, its elements.
        cure: what to do about a file that cannot be read.

    Raises:
        InputError: it is missing or damaged, has other columns, or is larger than that.
    """
    content = files.read(path)
    try:
        table = _read(content, schema, most_rows)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:  # as garbled files do
        raise InputError(f"{path}: not readable as Parquet ({files.reason(error)}); {cure}") from error
    if not table.schema.equals(schema):
        raise InputError(
            f"{path}: its columns are {_columns(table.schema)}; they must be {_columns(schema)}; {cure}"
        )
    return table


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)


def _read(content: bytes, schema: pa.Schema, most_rows: float) -> pa.Table:
    metadata = pq.read_metadata(io.BytesIO(content))
    there = metadata.schema.to_arrow_schema()
    if not there.equals(schema):
        return there.empty_table()
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    chunks = [[group.column(i) for group in groups] for i in range(metadata.num_columns)]
    if others := {chunk.compression for column in chunks for chunk in column} - GROWTH.keys():
        raise ValueError(f"compressed with {others.pop().lower()}, and only snappy and none are read")
    growth = max((GROWTH[chunk.compression] for column in chunks for chunk in column), default=1)
    rows = max(sum(abs(chunk.num_values) for chunk in column) for column in chunks)
    if max(growth * len(content), 32 * rows) > LARGEST:
        raise MemoryError("it grows to more than a gigabyte")
    if rows > most_rows:
        raise ValueError(f"{rows:,} rows, more than there can be")
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

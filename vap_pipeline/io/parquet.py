"""Parquet files with a checksum over the whole file."""

import hashlib
import io
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError

BLANK = "0" * 64
STAMP = re.compile(rb"sha256.{1,4}?([0-9a-f]{64})", re.DOTALL)


def encode(table: pa.Table) -> bytes:
    """Return ``table`` as a Parquet file: the same table gives the same bytes.

    The file's metadata holds its SHA-256, computed with zeros in this place. Parquet's own page checksums do
    not cover the footer, where one wrong bit can make a table empty, or end the process that reads it.
    """
    content = io.BytesIO()
    with pq.ParquetWriter(content, table.schema, compression="none", write_page_checksum=True) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"sha256": BLANK})
    blank = content.getvalue()
    return _stamped(blank, hashlib.sha256(blank).hexdigest())


def stamp(content: bytes) -> str:
    """Return the SHA-256 in a Parquet file that :func:`encode` made, '' in one of another program.

    Raises:
        ValueError: the file has changed since.
    """
    stamps = [match[1] for match in STAMP.finditer(content)]
    if not stamps:
        return ""
    if hashlib.sha256(_stamped(content, BLANK)).hexdigest().encode() != stamps[-1]:
        raise ValueError("its checksum is wrong")
    return stamps[-1].decode()


def _stamped(content: bytes, sha256: str) -> bytes:
    *_, last = STAMP.finditer(content)
    return content[: last.start(1)] + sha256.encode() + content[last.end(1) :]


def read(path: str | Path, schema: pa.Schema, cure: str) -> pa.Table:
    """Read a table, in the types of ``schema`` if that loses nothing (pandas and R write wider ones).

    Args:
        cure: what to do about a file that cannot be read.

    Returns:
        The columns of ``schema``. ``sha256`` in its metadata is the :func:`stamp`.

    Raises:
        InputError: it is missing or damaged, or lacks a column.
    """
    content = files.read(path)
    try:
        sha256 = stamp(content)  # before Arrow sees the file
        table = pq.read_table(io.BytesIO(content), page_checksum_verification=True)
        if missing := [name for name in schema.names if name not in table.column_names]:
            raise ValueError(f"no column {missing[0]}; it has {', '.join(table.column_names):.500}")
        metadata = {key: value for key, value in (table.schema.metadata or {}).items() if key != b"pandas"}
        table = table.select(schema.names).cast(schema)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise InputError(f"{path}: not readable as Parquet ({files.reason(error)}); {cure}") from error
    return table.replace_schema_metadata({**metadata, b"sha256": sha256})

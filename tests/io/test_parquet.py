"""Parquet files in which a bit has changed, or that were made elsewhere."""

import hashlib
import io
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vap_pipeline.io import parquet
from vap_pipeline.io.errors import InputError

TABLE = pa.table({"name": ["a", "a", "b"], "value": [1.5, 2.5, 3.5]}).replace_schema_metadata({"of": "me"})


def test_every_parquet_reader_reads_it_and_the_stamp_is_that_of_the_file_without_it():
    content = parquet.encode(TABLE)
    assert content == parquet.encode(TABLE)
    assert pq.read_table(io.BytesIO(content)).equals(TABLE)
    stamp = parquet.stamp(content)
    assert content.count(stamp.encode()) == 1
    assert hashlib.sha256(content.replace(stamp.encode(), b"0" * 64)).hexdigest() == stamp


def test_a_changed_bit_is_refused_or_makes_no_difference(tmp_path):
    """A bit of the footer can end the process in which Arrow reads it: the stamp is looked at before."""
    path, whole = tmp_path / "t.parquet", parquet.encode(TABLE)
    choose, refused = random.Random(0), 0
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1 << choose.randrange(8)
        if parquet.STAMP.search(changed):  # else it is the stamp itself that has gone
            path.write_bytes(changed)
            with pytest.raises(InputError, match="its checksum is wrong"):
                parquet.read(path, TABLE.schema, "write it again")
            refused += 1
    assert refused > len(whole) - 80


def test_files_of_pandas_and_other_programs_are_read_if_nothing_is_lost(tmp_path):
    path = tmp_path / "t.parquet"
    schema = pa.schema([("name", pa.string()), ("channel", pa.int8()), ("value", pa.float64())])
    wide = pa.schema(
        [
            ("value", pa.float64()),
            ("name", pa.large_string()),
            ("channel", pa.int64()),
            ("__index_level_0__", pa.int64()),
        ]
    )
    rows = {"value": [1.5, 2.5], "name": ["a", "b"], "channel": [0, 1], "__index_level_0__": [5, 6]}
    for compression in ("none", "snappy", "zstd", "gzip"):
        table = pa.table(rows, wide).replace_schema_metadata({"pandas": "{}", "of": "me"})
        pq.write_table(table, path, compression=compression)
        read = parquet.read(path, schema, "write it again")
        assert read.schema.equals(schema) and read.to_pylist() == [
            {"name": "a", "channel": 0, "value": 1.5},
            {"name": "b", "channel": 1, "value": 2.5},
        ]
        assert read.schema.metadata == {b"of": b"me", b"sha256": b""}
    pq.write_table(pa.table(rows | {"channel": [0, 300]}, wide), path)
    with pytest.raises(InputError, match=r"t.parquet: not readable .*300.*; write it again"):
        parquet.read(path, schema, "write it again")
    pq.write_table(pa.table({"name": ["a"], "value": [1.0]}), path)
    with pytest.raises(InputError, match=r"no column channel; it has name, value\); write it again"):
        parquet.read(path, schema, "write it again")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"t.parquet: not readable"):
        parquet.read(path, schema, "write it again")

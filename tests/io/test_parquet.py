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
            with pytest.raises(InputError, match="not as it was written"):
                parquet.read(path, TABLE.schema, 10, "write it again")
            refused += 1
    assert refused > len(whole) - 80


def test_without_a_stamp(tmp_path):
    pq.write_table(TABLE, tmp_path / "t.parquet")
    found = parquet.read(tmp_path / "t.parquet", TABLE.schema, 3, "write it again")
    assert found.equals(TABLE) and found.schema.metadata == {b"of": b"me", b"sha256": b""}
    with pytest.raises(InputError, match=r"3 rows, more than there can be\); write it again"):
        parquet.read(tmp_path / "t.parquet", TABLE.schema, 2, "write it again")

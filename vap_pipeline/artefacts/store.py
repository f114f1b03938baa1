"""The feature store of vap-extract and vap-train; the only module that knows its Zarr layout.

One Zarr format 3 group per conversation, with the arrays ``features`` (frames, dim) float16 and ``va``
(frames, 2) uint8, both uncompressed in shards of at most 60,000 frames and inner chunks of 1,000. The frames
of such a shard follow each other, so a window is one read at a known offset, from a local file or an object
store; other Zarr readers see an ordinary array. The root's attributes describe the features.

A conversation is complete or absent: it is written to a hidden folder and renamed when it is complete. On a
remote store, its ``zarr.json``, without which it does not count, is written last.
"""

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from vap_pipeline.artefacts.manifest import Manifest, check_name
from vap_pipeline.io import files
from vap_pipeline.io.differences import differences
from vap_pipeline.io.errors import InputError, MissingFile
from vap_pipeline.io.folders import RemoteFolder, open_folder

FORMAT_VERSION = 1
CHUNK_FRAMES = 1_000  # a window of training
SHARD_FRAMES = 60_000  # ten minutes, so that nearly every telephone call is one file
CHECKSUM_BYTES = 4  # behind the index of a shard
MARK = "zarr.json"  # makes a folder a Zarr group
ARRAYS: dict[str, np.dtype[Any]] = {"features": np.dtype("<f2"), "va": np.dtype("u1")}


class Store:
    """A feature store, local or at any fsspec address, open for reading.

    It keeps no file open, so it can be forked and pickled.

    Attributes:
        path: its place.
        description: what the features are: dim, frame_rate, encoder, audio, format_version.
        dim: width of a feature.
        weights: name of the encoder's weights.
        conversations: the complete conversations, sorted.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._folder = open_folder(self.path, MARK)
        self._frames: dict[tuple[str, str], int] = {}
        self.description = self._attributes(MARK, "no feature store")
        if (version := self.description.get("format_version")) != FORMAT_VERSION:
            raise InputError(
                f"{self.path}: a store of format version {version}, but this program reads version "
                f"{FORMAT_VERSION}; make it again with vap-extract"
            )
        try:
            self.dim = int(self.description["dim"])
            self.weights = str(self.description.get("encoder", {}).get("weights", "unknown"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{self.path}/{MARK}: damaged; make the store again with vap-extract") from error
        self.conversations = self._folder.names()

    def __contains__(self, conversation: str) -> bool:
        return self._folder.exists(f"{conversation}/{MARK}")

    def attributes(self, conversation: str) -> dict[str, Any]:
        """Return a conversation's attributes: its duration, and digests of its audio and voice activity."""
        return self._attributes(f"{conversation}/{MARK}", f"no conversation {conversation}")

    def frames(self, conversation: str, array: str = "features") -> int:
        """Return the number of frames of a conversation, after checking its files against it.

        Raises:
            InputError: it is absent, or its files are not as this module writes them.
        """
        key = conversation, array
        if key not in self._frames:
            self._frames[key] = self._checked_frames(conversation, array)
        return self._frames[key]

    def features(self, conversation: str, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        """Return frames ``start`` to ``stop``, (stop - start, dim) float16, in ``out`` if it is given."""
        return self._read(conversation, "features", start, stop, out)

    def va(self, conversation: str) -> np.ndarray:
        """Return the voice activity of a whole conversation, (frames, 2) uint8."""
        return self._read(conversation, "va", 0, self.frames(conversation, "va"), None)

    def _row(self, array: str) -> tuple[int, np.dtype[Any]]:
        return (self.dim if array == "features" else 2), ARRAYS[array]

    def _read(
        self, conversation: str, array: str, start: int, stop: int, out: np.ndarray | None
    ) -> np.ndarray:
        frames, (columns, dtype) = self.frames(conversation, array), self._row(array)
        if not 0 <= start <= stop <= frames:
            raise IndexError(f"frames {start} to {stop} of {conversation}, which has {frames}")
        if out is None:
            out = np.empty((stop - start, columns), dtype)
        elif out.shape != (stop - start, columns) or out.dtype != dtype or not out.flags.c_contiguous:
            raise ValueError(f"out must be C-contiguous {(stop - start, columns)} {dtype}")
        at = start
        while at < stop:
            shard, first = divmod(at, SHARD_FRAMES)
            count = min(stop - at, SHARD_FRAMES - first)
            name, offset = f"{conversation}/{array}/c/{shard}/0", first * columns * dtype.itemsize
            self._folder.read_into(name, offset, out[at - start : at - start + count])
            at += count
        return out

    def _checked_frames(self, conversation: str, array: str) -> int:
        """Check that metadata and shard indices are as :meth:`Writer.write` makes them."""
        metadata = self._metadata(f"{conversation}/{array}/{MARK}", f"no {array} of {conversation}")
        columns, dtype = self._row(array)
        frames = (metadata.get("shape") or [None])[0]
        if (
            type(frames) is not int
            or frames < 1
            or metadata != metadata | _array_metadata(frames, columns, dtype)
        ):
            raise self._damaged(conversation, f"{array} is not stored as vap-extract stores it")
        chunk_bytes = CHUNK_FRAMES * columns * dtype.itemsize
        for shard in range(-(-frames // SHARD_FRAMES)):
            name = f"{conversation}/{array}/c/{shard}/0"
            chunks = -(-min(frames - shard * SHARD_FRAMES, SHARD_FRAMES) // CHUNK_FRAMES)
            index = np.full((_shard_frames(frames) // CHUNK_FRAMES, 2), -1, np.int64)  # −1: no such chunk
            index[:chunks, 0] = np.arange(chunks) * chunk_bytes
            index[:chunks, 1] = chunk_bytes
            stored = np.empty(index.nbytes + CHECKSUM_BYTES, np.uint8)
            self._folder.read_into(name, chunks * chunk_bytes, stored)
            if stored[:-CHECKSUM_BYTES].tobytes() != index.tobytes():
                raise self._damaged(conversation, f"the frames of {array} do not follow each other")
        return frames

    def _metadata(self, name: str, absent: str) -> dict[str, Any]:
        try:
            return dict(json.loads(self._folder.read(name)))
        except MissingFile as error:
            raise InputError(
                f"{self.path}: {absent} there; make it with vap-extract, or check the path"
            ) from error
        except InputError:
            raise
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{self.path}/{name}: damaged; remove its folder and run vap-extract again"
            ) from error

    def _attributes(self, name: str, absent: str) -> dict[str, Any]:
        return self._metadata(name, absent).get("attributes", {})

    def _damaged(self, conversation: str, what: str) -> InputError:
        return InputError(
            f"{self.path}: conversation {conversation}: {what}; "
            "remove its folder there and run vap-extract again"
        )


class Writer(Store):
    """A store open for writing, by any number of processes at once."""

    def claim(self, conversation: str) -> AbstractContextManager[bool]:
        """Claim a conversation for this process; yields False if another one has claimed it.

        A killed process holds no claim. A remote store has no locks: two writers do the same work twice, with
        the same result.
        """
        return self._folder.lock(conversation)

    def write(
        self,
        conversation: str,
        features: np.ndarray | Iterable[np.ndarray],
        va: np.ndarray,
        attributes: dict[str, Any] | None = None,
    ) -> None:
        """Write one conversation, in place of an earlier one of its name.

        Args:
            conversation: its name.
            features: (frames, dim) float16; or blocks of it, of which one shard at a time is in memory.
            va: (frames, 2) uint8.
            attributes: further facts for readers and later runs, as JSON.

        Raises:
            InputError: the name cannot be a file's.
            ValueError: the arrays have other shapes or types.
            OSError: the place cannot be written; nothing of the conversation is left behind.
        """
        check_name(conversation)
        if va.shape != (len(va), 2) or va.dtype != ARRAYS["va"] or not len(va):
            raise ValueError(f"va of {conversation} are {va.shape} {va.dtype}")
        blocks = {"features": [features] if isinstance(features, np.ndarray) else features, "va": [va]}
        contents = _encoded(blocks, len(va), self.dim, attributes or {})
        self._folder.publish(conversation, contents)
        for array in ARRAYS:
            self._frames.pop((conversation, array), None)

    def sweep(self) -> None:
        """Remove what killed processes have left unfinished."""
        self._folder.sweep()


def create(path: str | Path, description: dict[str, Any]) -> Writer:
    """Open a store for writing, and make it if it does not exist.

    Args:
        path: a folder, or any fsspec address.
        description: of the features: ``dim`` (their width), ``frame_rate``, ``encoder`` and ``audio``.

    Raises:
        InputError: the place cannot be written, or there is a store of another description; the message says
            what differs.
    """
    description = json.loads(json.dumps({"format_version": FORMAT_VERSION, **description}))
    mark = f"{path}/{MARK}"
    if not files.exists(mark):
        root = {"attributes": description, "zarr_format": 3, "node_type": "group"}
        with files.alone(str(path)):
            if not files.exists(mark):  # another process may have made it meanwhile
                files.write(mark, json.dumps(root, indent=2).encode())
    writer = Writer(path)
    _expect(writer, description)
    return writer


def open_store(path: str | Path, expect: dict[str, Any] | None = None) -> Store:
    """Open a store for reading.

    Args:
        path: a folder, or any fsspec address such as ``s3://bucket/features.zarr``.
        expect: the part of its description that must match.

    Raises:
        InputError: it is not a store, or not the expected one; the message says what differs.
    """
    store = Store(path)
    _expect(store, expect or {})
    if isinstance(store._folder, RemoteFolder):
        # Every request to a remote file is a round trip: send the first ones at the same time.
        def look(conversation: str) -> None:
            with suppress(InputError):  # raised again when this conversation is read
                store.frames(conversation)
                store.frames(conversation, "va")

        with ThreadPoolExecutor(32) as pool:
            list(pool.map(look, store.conversations))
    return store


def _expect(store: Store, expect: dict[str, Any]) -> None:
    if changed := differences(_part(store.description, expect), expect):
        raise InputError(
            f"{store.path}: made for something else: {changed}. Give another store, or make this one again: "
            f"rm -r {store.path}; vap-extract"
        )


def _part(described: Any, expect: Any) -> Any:
    """Return the part of ``described`` that ``expect`` names."""
    if isinstance(described, dict) and isinstance(expect, dict):
        return {key: _part(described.get(key), value) for key, value in expect.items()}
    return described


def _shard_frames(frames: int) -> int:
    return min(-(-frames // CHUNK_FRAMES) * CHUNK_FRAMES, SHARD_FRAMES)


def _array_metadata(frames: int, columns: int, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return the part of an array's Zarr metadata that describes its bytes."""
    little_endian = {"name": "bytes", "configuration": {"endian": "little"}}
    sharding = {
        "chunk_shape": [CHUNK_FRAMES, columns],
        "codecs": [little_endian if dtype.itemsize > 1 else {"name": "bytes"}],
        "index_codecs": [little_endian, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [frames, columns],
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [_shard_frames(frames), columns]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "storage_transformers": [],
    }


def _encoded(
    arrays: dict[str, Iterable[np.ndarray]], frames: int, dim: int, attributes: dict[str, Any]
) -> Iterator[tuple[str, memoryview]]:
    """Yield the files of a group, (name, content), as Zarr writes them; the group's own metadata is last."""
    import zarr

    written: dict[str, Any] = {}
    group = zarr.create_group(zarr.storage.MemoryStore(written), attributes=attributes)
    metadata = written.pop(MARK)
    for name, blocks in arrays.items():
        columns = dim if name == "features" else 2
        array = group.create_array(
            name,
            shape=(frames, columns),
            dtype=ARRAYS[name],
            chunks=(CHUNK_FRAMES, columns),
            shards=(_shard_frames(frames), columns),
            filters=None,
            compressors=None,
            fill_value=0,
            # By default Zarr leaves out chunks of zeros: a frame's place would depend on the data.
            config={"write_empty_chunks": True},
        )
        start = 0
        for shard in _shards(blocks, frames, columns, ARRAYS[name]):
            array[start : start + len(shard)] = shard
            start += len(shard)
            while written:
                file, content = written.popitem()
                yield file, memoryview(content.as_numpy_array())
    yield MARK, memoryview(metadata.as_numpy_array())


def _shards(
    blocks: Iterable[np.ndarray], frames: int, columns: int, dtype: np.dtype[Any]
) -> Iterator[np.ndarray]:
    """Regroup blocks (any, columns), ``frames`` in all, into shards, which share one buffer."""
    shard, filled, total = np.empty((min(frames, SHARD_FRAMES), columns), dtype), 0, 0
    for block in blocks:
        total += len(block)
        if block.dtype != dtype or block.shape[1:] != (columns,) or total > frames:
            raise ValueError(f"a block {block.shape} {block.dtype} of {frames, columns} {dtype}")
        while len(block):
            count = min(len(block), len(shard) - filled)
            shard[filled : filled + count] = block[:count]
            block, filled = block[count:], filled + count
            if filled == len(shard):
                yield shard
                filled = 0
    if total != frames:
        raise ValueError(f"{total} frames, expected {frames}")
    if filled:
        yield shard[:filled]


def check_store(manifest: Manifest, store: Store, conversations: list[str]) -> None:
    """Raise InputError unless the store holds the voice activity that the manifest has now.

    It does not if the transcripts have changed since vap-extract, or a file of the store is damaged.
    """
    for name, expected in manifest.activity(conversations):
        if not np.array_equal(store.va(name), expected) or store.frames(name) != len(expected):
            raise InputError(
                f"{store.path}: conversation {name} has other voice activity in the manifest than in the "
                "store; run vap-extract again"
            )

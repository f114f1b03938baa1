"""The feature store against zarr itself, against plain NumPy, and against damaged files."""

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from vap_pipeline.artefacts import store as stores
from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError

DESCRIPTION = {
    "dim": 8,
    "frame_rate": 100,
    "encoder": {"name": "cpc", "sha256": "ab"},
    "audio": {"rate": 16_000},
}


def arrays(frames, dim=8, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((frames, dim)).astype(np.float16)
    features[: frames // 2] = 0  # whole chunks of zeros must be stored like any other
    return features, rng.integers(0, 2, (frames, 2), dtype=np.uint8)


@pytest.mark.parametrize("frames", [1, 999, 1_000, 1_001, 60_000, 60_001, 125_500])
def test_reads_back_what_was_written_and_zarr_reads_the_same(tmp_path, frames, recwarn):
    features, va = arrays(frames)
    writer = stores.create(tmp_path / "s.zarr", DESCRIPTION)
    writer.write("sw02001", features, va, {"duration_s": 1.5})
    store = stores.open_store(tmp_path / "s.zarr", {"encoder": {"name": "cpc"}})
    assert store.conversations == ["sw02001"] and store.dim == 8 and store.frames("sw02001") == frames
    assert store.attributes("sw02001") == {"duration_s": 1.5}
    np.testing.assert_array_equal(store.va("sw02001"), va)
    for start, stop in [
        (0, frames),
        (frames - 1, frames),
        (max(0, frames - 65_000), frames),
        (frames // 3, frames // 2),
    ]:
        np.testing.assert_array_equal(store.features("sw02001", start, stop), features[start:stop])
    plain = zarr.open_group(tmp_path / "s.zarr", mode="r")
    assert plain.attrs["frame_rate"] == 100
    np.testing.assert_array_equal(plain["sw02001/features"][:], features)
    np.testing.assert_array_equal(plain["sw02001/va"][:], va)
    assert [str(w.message) for w in recwarn] == []


def test_a_window_can_be_read_into_place(tmp_path):
    features, va = arrays(2_500)
    writer = stores.create(tmp_path / "s", DESCRIPTION)
    writer.write("a", features, va)
    batch = np.zeros((3, 1_000, 8), np.float16)
    assert writer.features("a", 700, 1_700, out=batch[1]).base is batch
    np.testing.assert_array_equal(batch[1], features[700:1_700])
    assert not batch[0].any() and not batch[2].any()
    with pytest.raises(ValueError, match="C-contiguous"):
        writer.features("a", 0, 4, out=np.zeros((8, 4), np.float16).T)
    with pytest.raises(IndexError, match="2500"):
        writer.features("a", 0, 2_501)


def test_memory_store_behaves_like_a_folder(recwarn):
    url = "memory://store-test/features.zarr"
    features, va = arrays(61_000)
    writer = stores.create(url, DESCRIPTION)
    assert writer.conversations == []
    writer.write("b", features, va, {"n": 1})
    writer.write("a", *arrays(10))
    store = stores.open_store(url, {"dim": 8})
    assert store.conversations == ["a", "b"] and "b" in store and "c" not in store
    np.testing.assert_array_equal(store.features("b", 59_990, 60_010), features[59_990:60_010])
    np.testing.assert_array_equal(store.va("b"), va)
    writer.write("b", *arrays(20, seed=1))
    np.testing.assert_array_equal(stores.open_store(url).features("b", 0, 20), arrays(20, seed=1)[0])
    assert [str(w.message) for w in recwarn] == []


def test_reads_over_http(tmp_path):
    features, va = arrays(2_100)
    stores.create(tmp_path / "s.zarr", DESCRIPTION).write("a", features, va)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        store = stores.open_store(f"http://127.0.0.1:{server.server_port}/s.zarr")
        assert store.conversations == ["a"]
        np.testing.assert_array_equal(store.features("a", 900, 2_100), features[900:])
        server.shutdown()


def made(path, frames=1_500, names=("a",)):
    writer = stores.create(path, DESCRIPTION)
    for name in names:
        writer.write(name, *arrays(frames))
    return writer


def hidden(path):
    """What a store holds besides conversations: locks, and unfinished work."""
    return list(path.glob(".*"))


def test_what_differs_is_said(tmp_path):
    made(tmp_path / "s")
    with pytest.raises(InputError, match=r"dim was 8, is 9, encoder.sha256 was ab, is cd"):
        stores.open_store(tmp_path / "s", {"encoder": {"name": "cpc", "sha256": "cd"}, "dim": 9})
    with pytest.raises(InputError, match=r"frame_rate was 100, is 50"):
        stores.create(tmp_path / "s", {**DESCRIPTION, "frame_rate": 50})
    with pytest.raises(InputError, match=r"audio.rate was 16000, is 8000"):
        stores.open_store(tmp_path / "s", {"audio": {"rate": 8_000}})
    assert stores.create(tmp_path / "s", DESCRIPTION).conversations == ["a"]


def test_what_is_no_store_is_named(tmp_path):
    for place in (tmp_path / "absent", tmp_path, "memory://absent-store"):
        with pytest.raises(InputError, match="no feature store there"):
            stores.open_store(place)
    with pytest.raises(InputError, match=r"Protocol not known|nosuch"):
        stores.open_store("nosuch://x/y")
    made(tmp_path / "s")
    root = tmp_path / "s" / "zarr.json"
    good = json.loads(root.read_text())
    for bad in (b"", b"{", b"[]", b"7", b"\xff\xfe"):
        root.write_bytes(bad)
        with pytest.raises(InputError, match=r"zarr.json: damaged|format version None"):
            stores.open_store(tmp_path / "s")
    for changed, message in [
        ({"format_version": 2}, "format version 2, but this program reads version 1"),
        ({"dim": None}, r"zarr.json: damaged"),
        ({"encoder": ["cpc"]}, r"zarr.json: damaged"),
    ]:
        root.write_text(json.dumps({**good, "attributes": good["attributes"] | changed}))
        with pytest.raises(InputError, match=message):
            stores.open_store(tmp_path / "s")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "a\0b"])
def test_a_name_cannot_lead_out_of_the_store(tmp_path, name):
    writer = made(tmp_path / "s")
    with pytest.raises(InputError, match=r"^conversation .*; rename it$"):
        writer.write(name, *arrays(10))
    assert [p.name for p in tmp_path.iterdir()] == ["s"] and writer.conversations == []


OTHER_ARRAYS = {
    "more frames": lambda m: m.update(shape=[2_001, 8]),
    "another width": lambda m: m.update(shape=[1_500, 9]),
    "no frames": lambda m: m.update(shape=[0, 8]),
    "no shape": lambda m: m.pop("shape"),
    "another type": lambda m: m.update(data_type="float64"),
    "compression": lambda m: m["codecs"][0]["configuration"]["codecs"].append({"name": "gzip"}),
    "no sharding": lambda m: m.update(codecs=[{"name": "bytes", "configuration": {"endian": "little"}}]),
}


@pytest.mark.parametrize("change", OTHER_ARRAYS)
def test_an_array_of_another_program_is_refused(tmp_path, change):
    made(tmp_path / "s", names=("a", "b"))
    path = tmp_path / "s/a/features/zarr.json"
    metadata = json.loads(path.read_text())
    OTHER_ARRAYS[change](metadata)
    path.write_text(json.dumps(metadata))
    store = stores.open_store(tmp_path / "s")
    with pytest.raises(InputError, match=r"conversation a: .*run vap-extract again"):
        store.features("a", 0, 1_000)
    assert store.features("b", 0, 1_000).shape == (1_000, 8)  # the other conversations can be read


def test_damaged_shards_are_refused(tmp_path):
    made(tmp_path / "s")
    shard = tmp_path / "s/a/features/c/0/0"
    good = shard.read_bytes()
    index = len(good) - 4 - 2 * 16
    swapped = good[:index] + good[index + 16 : index + 32] + good[index : index + 16] + good[-4:]
    for bad, message in [
        (good[:-1], r"a/features/c/0/0: truncated"),
        (good[:10_000], r"a/features/c/0/0: truncated"),
        (b"", r"a/features/c/0/0: truncated"),
        (swapped, "conversation a: the frames of features do not follow each other"),
    ]:
        shard.write_bytes(bad)
        with pytest.raises(InputError, match=message):
            stores.open_store(tmp_path / "s").frames("a")
    shard.unlink()
    with pytest.raises(InputError, match=r"a/features/c/0/0: no such file"):
        stores.open_store(tmp_path / "s").frames("a")
    shard.write_bytes(good)
    store = stores.open_store(tmp_path / "s")
    assert store.frames("a") == 1_500
    shard.write_bytes(good[:10_000])  # while it is open
    with pytest.raises(InputError, match=r"a/features/c/0/0: truncated"):
        store.features("a", 400, 1_400)
    with pytest.raises(InputError, match="no conversation c"):
        store.attributes("c")


def test_wrong_arrays_are_a_mistake_of_the_program(tmp_path):
    writer = made(tmp_path / "s")
    features, va = arrays(10)
    for wrong in [(features.astype(np.float32), va), (features[:, :7], va), (features[:9], va)]:
        with pytest.raises(ValueError, match=r"expected 10|a block"):
            writer.write("b", *wrong)
    with pytest.raises(ValueError, match="va of b"):
        writer.write("b", features, va.astype(bool))
    assert stores.open_store(tmp_path / "s").conversations == ["a"]
    assert not hidden(tmp_path / "s")


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 700), min_size=1, max_size=12))
def test_blocks_of_any_length_make_the_same_files(lengths):
    """With shards of 600 frames and chunks of 100, so that small arrays cross many of their borders."""
    features, va = arrays(sum(lengths) + 1)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(stores, "CHUNK_FRAMES", 100)
        patch.setattr(stores, "SHARD_FRAMES", 600)
        writer = stores.create(folder, DESCRIPTION)
        writer.write("blocks", np.split(features, np.cumsum(lengths)), va)
        writer.write("whole", features, va)
        first, second = Path(folder, "blocks"), Path(folder, "whole")
        for path in first.rglob("*"):
            if path.is_file():
                assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()
        np.testing.assert_array_equal(writer.features("blocks", 0, len(va)), features)


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    writer = made(tmp_path / "s")

    def blocks():
        yield arrays(1_000)[0]
        raise InputError("the audio ends here")

    with pytest.raises(InputError, match="ends here"):
        writer.write("a", blocks(), arrays(2_000)[1])
    with pytest.raises(InputError, match="ends here"):
        writer.write("b", blocks(), arrays(2_000)[1])
    store = stores.open_store(tmp_path / "s")
    assert store.conversations == ["a"] and store.frames("a") == 1_500
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == ["a", "zarr.json"]


def test_claims_between_processes(tmp_path):
    writer = made(tmp_path / "s")
    code = (
        "import sys, time; from vap_pipeline.artefacts import store as s\n"
        f"w = s.create({str(tmp_path / 's')!r}, {DESCRIPTION!r})\n"
        "with w.claim('b') as mine: print(mine, flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "True\n"
    with writer.claim("b") as mine:
        assert not mine
    with writer.claim("c") as mine:
        assert mine
    other.kill()  # a killed process holds nothing
    other.communicate()
    leftover = tmp_path / "s" / files.partial_name().replace(str(os.getpid()), str(other.pid)) / "new"
    leftover.mkdir(parents=True)
    (leftover / "rubbish").write_text("half a file")
    with writer.claim("b") as mine:
        assert mine
        writer.write("b", *arrays(10))
    assert sorted(p.name for p in (tmp_path / "s/b").iterdir()) == ["features", "va", "zarr.json"]
    writer.sweep()
    assert not hidden(tmp_path / "s")


def test_many_writers_at_once(tmp_path):
    """Three processes write the same twelve conversations at the same time, while this one reads them."""
    made(tmp_path / "s", names=())
    code = (
        "import sys, numpy as np; sys.path.insert(0, sys.argv[1]); from test_store import *\n"
        f"w = stores.create({str(tmp_path / 's')!r}, DESCRIPTION)\n"
        "for i in range(12): w.write(f'c{i:02d}', *arrays(1200, seed=i), {'n': i})"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    writers = [subprocess.Popen(command) for _ in range(3)]
    while any(writer.poll() is None for writer in writers):
        store = stores.open_store(tmp_path / "s")
        for name in store.conversations:
            try:
                seen = store.features(name, 0, 1_200)
            except InputError:
                continue  # away for a moment, while the same is put in its place
            np.testing.assert_array_equal(seen, arrays(1_200, seed=int(name[1:]))[0])
    assert [writer.returncode for writer in writers] == [0] * 3
    store = stores.open_store(tmp_path / "s")
    assert store.conversations == [f"c{i:02d}" for i in range(12)]
    for i, name in enumerate(store.conversations):
        np.testing.assert_array_equal(store.features(name, 0, 1_200), arrays(1_200, seed=i)[0])
        assert store.attributes(name) == {"n": i}


REPLACE_AND_DIE = """
import os, signal, sys; sys.path.insert(0, sys.argv[1]); from test_store import *
rename, left = os.rename, [int(sys.argv[3])]
def renamed(*args):
    rename(*args)
    left[0] -= 1
    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)
os.rename = renamed
stores.create(sys.argv[2], DESCRIPTION).write("a", *arrays(1_200, seed=1))
"""


@pytest.mark.parametrize("renames", [1, 2])
def test_killed_while_a_conversation_is_replaced(tmp_path, renames):
    writer = made(tmp_path / "s", names=("a", "b"))
    command = [sys.executable, "-c", REPLACE_AND_DIE, Path(__file__).parent, tmp_path / "s", str(renames)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert [(path / "old").exists() for path in hidden(tmp_path / "s") if path.is_dir()] == [True]
    store = stores.open_store(tmp_path / "s")
    assert store.conversations == (["b"] if renames == 1 else ["a", "b"])
    if renames == 2:
        np.testing.assert_array_equal(store.features("a", 0, 1_200), arrays(1_200, seed=1)[0])
    writer.sweep()
    assert not hidden(tmp_path / "s")


def test_what_another_host_or_a_running_process_writes_is_not_swept(tmp_path):
    writer = made(tmp_path / "s")
    other = tmp_path / "s/.another-host-7-0123abcd.partial/new"
    other.mkdir(parents=True)
    with writer.claim("b"):
        mine = tmp_path / "s" / files.partial_name()
        mine.mkdir()
        stores.create(tmp_path / "s", DESCRIPTION).sweep()
        assert mine.exists() and other.exists()
        with writer.claim("b") as again:
            assert not again  # its lock is still there
    mine.rmdir()
    writer.write("a", *arrays(10))
    assert other.exists() and stores.open_store(tmp_path / "s").conversations == ["a"]
    os.utime(other.parent, (0, 0))
    writer.sweep()
    assert not hidden(tmp_path / "s")


@pytest.mark.parametrize("lock", ["raise OSError(errno.ENOLCK, 'no locks')", "pass"])
def test_writers_whom_no_lock_keeps_apart_do_no_harm(tmp_path, lock):
    """As on network file systems: each writes the same conversations, and what is there is always whole."""
    made(tmp_path / "s", names=())
    code = (
        "import errno, fcntl, os, sys; sys.path.insert(0, sys.argv[1]); from test_store import *\n"
        f"def flock(*args): {lock}\n"
        "fcntl.flock, files.HOST = flock, sys.argv[2]\n"
        f"w = stores.create({str(tmp_path / 's')!r}, DESCRIPTION)\n"
        "for i in range(40): w.write(f'c{i % 4}', *arrays(1200, seed=i % 4))"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    writers = [subprocess.Popen([*command, f"host-{i}"]) for i in range(3)]
    assert [writer.wait() for writer in writers] == [0] * 3
    store = stores.open_store(tmp_path / "s")
    assert store.conversations == ["c0", "c1", "c2", "c3"]
    for i, name in enumerate(store.conversations):
        np.testing.assert_array_equal(store.features(name, 0, 1_200), arrays(1_200, seed=i)[0])
    assert not hidden(tmp_path / "s")


def test_what_cannot_be_read_is_named(tmp_path, monkeypatch):
    made(tmp_path / "s")
    made("memory://unreadable")
    here, there = stores.open_store(tmp_path / "s"), stores.open_store("memory://unreadable")
    shard = tmp_path / "s/a/features/c/0/0"
    shard.unlink()
    shard.mkdir()
    here._frames["a", "features"] = there._frames["a", "features"] = 1_500  # looked at before
    with pytest.raises(InputError, match=r"features/c/0/0: cannot be read \(Is a directory"):
        here.features("a", 0, 9)
    shard.rmdir()
    os.mkfifo(shard)
    with pytest.raises(InputError, match="features/c/0/0: a pipe or a device"):
        here.features("a", 0, 9)
    (tmp_path / "s/a/zarr.json").unlink()
    os.mkfifo(tmp_path / "s/a/zarr.json")
    with pytest.raises(InputError, match=r"a/zarr.json: a pipe or a device"):
        here.attributes("a")

    def gone(*args, **kwargs):
        raise RuntimeError("503\nslow down")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.cat_file", gone)
    with pytest.raises(InputError, match=r"unreadable/a/features/c/0/0: cannot be read \(503 slow down"):
        there.features("a", 0, 9)


def test_two_first_runs_of_different_weights_do_not_mix(tmp_path):
    code = (
        "import sys; from vap_pipeline.artefacts import store as s\n"
        "sys.stdin.readline(); s.create(sys.argv[1], {'dim': int(sys.argv[2])})"
    )
    for i in range(4):
        place = tmp_path / f"s{i}"
        command = [sys.executable, "-c", code, place]
        runs = [
            subprocess.Popen([*command, dim], stdin=subprocess.PIPE, stderr=subprocess.PIPE) for dim in "345"
        ]
        time.sleep(1)
        for run in runs:
            run.stdin.write(b"\n")
            run.stdin.flush()
        said = [run.communicate()[1] for run in runs]
        assert sorted(run.returncode for run in runs) == [0, 1, 1]
        assert sum(b"made for something else" in each for each in said) == 2
        assert [path.name for path in place.iterdir()] == ["zarr.json"]


def test_a_store_goes_into_other_processes(tmp_path):
    store = made(tmp_path / "s", names=("a", "b"))
    expected = store.features("b", 100, 1_100)
    copy = pickle.loads(pickle.dumps(stores.open_store(tmp_path / "s")))
    np.testing.assert_array_equal(copy.features("b", 100, 1_100), expected)
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            for seen in pool.starmap(copy.features, [("b", 100, 1_100)] * 4):
                np.testing.assert_array_equal(seen, expected)


def test_as_many_conversations_as_switchboard_s_keep_no_file_open(tmp_path):
    made(tmp_path / "s", frames=10)
    for i in range(2_437):
        shutil.copytree(tmp_path / "s/a", tmp_path / f"s/c{i:04d}", copy_function=os.link)
    open_files = Path("/proc/self/fd")
    before = len(list(open_files.iterdir()))
    store = stores.open_store(tmp_path / "s")
    assert len(store.conversations) == 2_438
    assert sum(store.frames(name) for name in store.conversations) == 24_380
    assert len(list(open_files.iterdir())) == before


def test_what_a_kill_left_of_the_description_is_removed(tmp_path):
    writer = stores.create(tmp_path / "s", DESCRIPTION)
    (tmp_path / "s" / f".{files.HOST}-4194305-0123abcd.partial").write_bytes(b"half")
    writer.sweep()
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["zarr.json"]

"""Files are replaced in one piece, whoever else writes them and whatever a kill has left."""

import errno
import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError

ROOT = Path(__file__).parents[2]


def _write_often(path, content):
    for _ in range(200):
        files.write(path, content)


KILLED = """
import os, signal, sys
from vap_pipeline.io import files
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
files.write(sys.argv[1], b"half of something longer")
"""


def test_what_killed_writers_left_is_removed_but_not_what_is_in_use(tmp_path):
    for _ in range(2):
        killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "a.json"], cwd=ROOT)
        assert killed.returncode == -signal.SIGKILL and len(list(tmp_path.glob(".*.partial"))) == 1
    elsewhere, in_use = (
        tmp_path / ".another-host-7-0123abcd.partial",
        tmp_path / files.partial_name(),
    )
    elsewhere.write_bytes(b"half")
    in_use.write_bytes(b"half")  # of this process, which is alive
    files.write(tmp_path / "a.json", b"whole")
    assert set(tmp_path.iterdir()) == {tmp_path / "a.json", elsewhere, in_use}
    in_use.unlink()
    os.utime(elsewhere, (0, 0))
    files.write(tmp_path / "a.json", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert files.read(tmp_path / "a.json") == b"whole"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(tmp_path, monkeypatch, number):
    def refused(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    test_many_writers_leave_one_whole_file(tmp_path / "one")
    for _ in range(2):
        files.write_together({tmp_path / "two" / name: b"new" for name in ("a", "last")})
    with files.alone(str(tmp_path / "three")):
        files.write(tmp_path / "three" / "a", b"new")
    assert files.read(tmp_path / "two" / "last") == files.read(tmp_path / "three" / "a") == b"new"


def test_a_pipe_or_a_device_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for name in ("pipe", "zeros"):
        with pytest.raises(InputError, match=f"{name}: a pipe or a device"):
            files.read(tmp_path / name)


def test_many_writers_leave_one_whole_file(tmp_path):
    path, contents = tmp_path / "a", [bytes([65 + i]) * 50_000 for i in range(3)]
    files.write(path, contents[0])
    writers = [
        multiprocessing.get_context("fork").Process(target=_write_often, args=(path, c)) for c in contents
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert files.read(path) in contents
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_one_process_at_a_time_in_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ALONE_TIMEOUT_S", 0.1)
    folder = str(tmp_path / "new" / "folder")
    with files.alone(folder):
        with pytest.raises(InputError, match="another process is writing there"), files.alone(folder):
            pass
        with files.alone("memory://anywhere"), files.alone("memory://anywhere"):
            pass  # there are no locks
    with files.alone(folder):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"), files.alone(str(tmp_path / "file")):
        pass


def test_in_memory(tmp_path):
    files.write("memory://somewhere/new/a.json", b"whole")
    assert (
        files.exists("memory://somewhere/new/a.json")
        and files.read("memory://somewhere/new/a.json") == b"whole"
    )


BETWEEN = """
import os, signal, sys
from pathlib import Path
from vap_pipeline.io import files
replace, left = Path.replace, [int(sys.argv[2])]
def counted(*args):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    return replace(*args)
Path.replace = counted
files.write_together({f"{sys.argv[1]}/{name}": b"new" for name in ("a", "b", "last")})
"""


@pytest.mark.parametrize("replaced", range(4))
def test_a_kill_among_files_that_belong_together(tmp_path, replaced):
    for name in "a", "b", "last":
        (tmp_path / name).write_bytes(b"old")
    killed = subprocess.run([sys.executable, "-c", BETWEEN, tmp_path, str(replaced)], cwd=ROOT)
    assert killed.returncode == (0 if replaced == 3 else -signal.SIGKILL)
    assert (tmp_path / "last").exists() == (replaced == 3)
    files.write_together({tmp_path / name: b"newer" for name in ("a", "b", "last")})
    assert {path.name: path.read_bytes() for path in tmp_path.glob("[!.]*")} == dict.fromkeys(
        ("a", "b", "last"), b"newer"
    )


def test_a_fault_among_files_that_belong_together_changes_none(tmp_path):
    (tmp_path / "last").write_bytes(b"old")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="file/b: cannot be written"):
        files.write_together(
            {tmp_path / "a": b"new", tmp_path / "file" / "b": b"new", tmp_path / "last": b"new"}
        )
    assert {path.name: path.read_bytes() for path in tmp_path.glob("[!.]*")} == {"last": b"old", "file": b""}


@pytest.mark.parametrize("name", ["a", "last"])
def test_a_folder_where_a_file_belongs_costs_none_of_the_others(tmp_path, name):
    (tmp_path / "last").write_bytes(b"old")
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"{name}: cannot be written"):
        files.write_together({tmp_path / "a": b"new", tmp_path / "last": b"new"})
    assert (tmp_path / "last").is_dir() or (tmp_path / "last").read_bytes() == b"old"
    assert not list(tmp_path.glob(".*.partial"))


def _write_pairs(folder, content):
    for _ in range(100):
        files.write_together({folder / "a": content, folder / "last": content})


def test_writers_of_files_that_belong_together_take_turns(tmp_path):
    writers = [multiprocessing.Process(target=_write_pairs, args=(tmp_path, each)) for each in (b"1", b"2")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "last").read_bytes()

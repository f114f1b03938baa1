"""Files are replaced in one piece, whoever else writes them and whatever a kill has left."""

import multiprocessing

from vap_pipeline import files


def _write_often(path, content):
    for _ in range(200):
        files.write(path, content)


def test_what_a_killed_writer_left_is_used_up(tmp_path):
    (tmp_path / ".a.json.partial").write_bytes(b"half of something longer")
    files.write(tmp_path / "a.json", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert files.read(tmp_path / "a.json") == b"whole"


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


def test_in_memory(tmp_path):
    files.write("memory://somewhere/new/a.json", b"whole")
    assert (
        files.exists("memory://somewhere/new/a.json")
        and files.read("memory://somewhere/new/a.json") == b"whole"
    )

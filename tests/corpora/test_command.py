"""``vap-manifest`` as it is typed: what it writes, what it says, and how it ends."""

import errno
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toy_switchboard import sphere, transcripts

from vap_pipeline.artefacts import manifest
from vap_pipeline.corpora.__main__ import main

SPLIT = ["--test", "1", "--folds", "2"]
SWITCHBOARD = ["switchboard", "--transcripts", "t", "--audio", "a", *SPLIT, "--out", "m"]


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def corpus(*numbers: int) -> None:
    for number in numbers:
        transcripts(Path("t"), number)
        sphere(Path(f"a/sw0{number}.sph"))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def fails(capfd: pytest.CaptureFixture[str], *argv: object) -> str:
    """Run the command, which must end with status 2 and one line; return the line."""
    capfd.readouterr()
    assert main([str(arg) for arg in argv]) == 2
    err = capfd.readouterr().err
    line = err.splitlines()[-1]
    assert line.startswith("vap-manifest: error: ") and "Traceback" not in err
    return line


@pytest.mark.parametrize("command", ["", "switchboard", "sample", "simulate", "render", "segments"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    assert ("example: vap-manifest" in capsys.readouterr().out) == bool(command)


def test_transcripts_alone() -> None:
    for number in range(2001, 2007):
        transcripts(Path("ms98"), number)
    argv = ["switchboard", "--transcripts", "ms98", "--test", "2", "--folds", "2", "--out", "m/toy"]
    code = "import sys, vap_pipeline.corpora.__main__ as m; sys.exit(m.main() or 'torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", code, *argv], env={"PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "m/toy: 6 conversations, 0.0 h; 4 in 2 folds, 2 for testing" in ended.stderr
    found = manifest.read(Path("m/toy"))
    assert found.test_set() == ["sw2005", "sw2006"]
    first = snapshot(Path("m"))
    assert list(first) == ["toy/conversations.csv", "toy/voice_activity.parquet"]
    assert main(argv) == 0
    assert snapshot(Path("m")) == first


def test_settings_and_flags(capfd: pytest.CaptureFixture[str]) -> None:
    for number in range(2001, 2009):
        transcripts(Path("data/switchboard/transcripts"), number)
    assert "8 conversations are too few for a test set of 135" in fails(capfd, "switchboard")
    Path("params.yaml").write_text(
        "mine: &mine {name: mine, transcripts: data/switchboard/transcripts, manifest: {test: 2, folds: 3}}\n"
        "corpus: *mine\n"
    )
    assert main(["switchboard", "--corpus", "mine"]) == 0
    found = manifest.read(Path("data_manifest/mine"))
    assert (found.folds, len(found.test_set())) == (3, 2)
    assert main(["switchboard", "--corpus", "mine", *SPLIT, "--out", "other"]) == 0
    found = manifest.read(Path("other"))
    assert (found.folds, len(found.test_set())) == (2, 1)

    # Audio in its default place is used once it is there.
    for number in range(2001, 2009):
        sphere(Path(f"data/mine/audio/sw0{number}.sph"), 12.5)
    assert main(["switchboard", "--corpus", "mine"]) == 0
    assert {c.duration_s for c in manifest.read(Path("data_manifest/mine")).conversations} == {12.5}


def test_a_failure_leaves_the_manifest_as_it_was(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    corpus(*range(2001, 2007))
    assert main(SWITCHBOARD) == 0
    before = snapshot(Path("m"))
    Path("a/sw02004.sph").write_bytes(b"")
    assert "a/sw02004.sph: not a NIST SPHERE file" in fails(capfd, *SWITCHBOARD)
    assert snapshot(Path("m")) == before
    assert main([*SWITCHBOARD, "--on-error", "skip"]) == 0
    assert "left out:\n  a/sw02004.sph: not a NIST SPHERE file" in caplog.text
    assert "sw2004" not in manifest.read(Path("m")).select()
    caplog.clear()
    assert "4 in 2 folds" not in fails(capfd, *SWITCHBOARD, "--on-error", "skip", "--folds", "9")
    assert "left out:\n  a/sw02004.sph: not a NIST SPHERE file" in caplog.text  # also where too few are left
    assert "elsewhere: no such folder" in fails(capfd, *SWITCHBOARD, "--audio", "elsewhere")
    Path("file").touch()
    assert "cannot be written" in fails(capfd, *SWITCHBOARD, "--on-error", "skip", "--out", "file/m")


def test_folders_and_files_that_cannot_be_read(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus(*range(2001, 2007))
    assert main(SWITCHBOARD) == 0
    before = snapshot(Path("m"))
    for name in ("one", "other"):  # two ways from every folder below: more paths than anybody waits for
        Path("a", name).symlink_to(Path("a").resolve(), target_is_directory=True)
    assert main(SWITCHBOARD) == 0
    assert snapshot(Path("m")) == before

    for victim in (Path("t/20/2003/sw2003A-ms98-a-word.text"), Path("a/sw02003.sph")):
        whole = victim.read_bytes()
        victim.unlink()
        os.mkfifo(victim)  # to open it is to wait for a writer
        assert f"{victim}: a pipe or a device" in fails(capfd, *SWITCHBOARD)
        victim.unlink()
        victim.write_bytes(whole)

    def scandir(path: str) -> Any:  # permissions would not keep root out
        if path == "t/20/2003":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return look(path)

    look = os.scandir
    monkeypatch.setattr("os.scandir", scandir)
    assert "t/20/2003: cannot be read (Permission denied)" in fails(capfd, *SWITCHBOARD)
    assert snapshot(Path("m")) == before


def test_garbled_corpora(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken files through the command: one line or a valid manifest; with skip, the rest of the corpus."""
    monkeypatch.setattr("os.fsync", lambda _: None)  # most of the time otherwise
    corpus(*range(2001, 2007))
    victims = [Path("t/20/2003/sw2003A-ms98-a-word.text"), Path("a/sw02003.sph")]
    rest = ["sw2001", "sw2002", "sw2004", "sw2005", "sw2006"]
    rng = random.Random(1)
    refused = 0
    for number in range(200):
        victim = victims[number % 2]
        whole = victim.read_bytes()
        garbled = bytearray(whole)
        for _ in range(rng.choice((1, 2, 8))):
            garbled[rng.randrange(min(300, len(garbled)))] = rng.choice(
                (0, 10, 32, 45, 57, rng.randrange(256))
            )
        if rng.random() < 0.3:
            del garbled[rng.randrange(len(garbled)) :]
        victim.write_bytes(garbled)
        capfd.readouterr()
        status = main(SWITCHBOARD)
        err = capfd.readouterr().err
        assert status in (0, 2) and "Traceback" not in err
        if status == 2:
            refused += 1
            assert err.count("vap-manifest: error: ") == 1 and "2003" in err
            if refused % 5 == 0:
                assert main([*SWITCHBOARD, "--on-error", "skip"]) == 0
                assert manifest.read(Path("m")).select() == rest
        else:
            assert len(manifest.read(Path("m")).select()) == 6
        victim.write_bytes(whole)
    assert refused > 100


def test_segments(shared: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    phone = shared / "two_channel_phone"
    argv = ["segments", "--audio", str(phone), "--table", str(phone), *SPLIT]
    assert "no corpus selected" in fails(capfd, *argv)
    assert main([*argv, "--out", "data_manifest/phone"]) == 0
    first = snapshot(tmp_path)
    assert main([*argv, "--corpus", "phone"]) == 0
    assert snapshot(tmp_path) == first and len(first) == 2
    assert "3 conversations are too few" in fails(capfd, *argv, "--out", "x", "--folds", "3")
    assert not Path("x").exists()


def test_sample(tmp_path: Path) -> None:
    argv = ["sample", "--conversations", "3", "--minutes", "0.5", "--seed", "3", *SPLIT]
    assert main(argv) == 0
    found = manifest.read(Path("data_manifest/sample"))
    assert (found.name, len(found.conversations), found.folds) == ("sample", 3, 2)
    assert {c.duration_s for c in found.conversations} == {30.0}
    assert all((Path("data/sample/audio") / c.audio).is_file() for c in found.conversations)
    first = snapshot(tmp_path)
    removed = Path("data/sample/audio") / found.conversations[0].audio
    removed.unlink()
    assert main(argv) == 0
    assert removed.is_file()  # spoken again, and nothing else has changed
    again = snapshot(tmp_path)
    assert {path for path in first if first[path] != again[path]} <= {str(removed)}

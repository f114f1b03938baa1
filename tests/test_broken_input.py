"""Broken settings, tables, stores, checkpoints and scores through the commands that read them.

A command either refuses with one line, or what was broken does not matter to it and it does what it does of
whole files. Audio and transcripts: tests/extract/test_vap_extract.py, tests/corpora/test_command.py.
"""

import copy
import csv
import functools
import gzip
import json
import math
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
import yaml
from made import content, corpus, sphere

from vap_pipeline.artefacts import manifest
from vap_pipeline.artefacts.store import SHARD_FRAMES
from vap_pipeline.corpora.__main__ import main as vap_manifest
from vap_pipeline.encoders import cpc_weights
from vap_pipeline.encoders.cpc import Config
from vap_pipeline.evaluate.__main__ import main as vap_evaluate
from vap_pipeline.extract.__main__ import main as vap_extract
from vap_pipeline.models import checkpoint
from vap_pipeline.report.__main__ import main as vap_anova
from vap_pipeline.train.__main__ import main as vap_train

SETTINGS = {
    "name": "tiny",
    "reader": "segments",
    "transcripts": "data/tiny/calls.csv",
    "audio": "data/tiny/audio",
    "manifest": {"test": 2, "folds": 2, "seed": 0},
    "extract": {"backend": "native", "weights": "small.pt", "seed": 0},
    "models": ["discrete"],
    "folds": [0],
    "model": {"width": 16, "layers": 1, "heads": 1, "feedforward": 16, "dropout": 0.1},
    "train": {
        "batch": 4,
        "learning_rate": 1e-3,
        "betas": [0.9, 0.999],
        "weight_decay": 0.001,
        "epochs": 1,
        "checks_per_epoch": 1,
        "patience": 20,
        "swap": 0.5,
        "seed": 0,
    },
}
CALLS = "data/tiny/calls.csv"
RUN = ["--model", "discrete", "--fold", "0"]
COMMANDS: dict[str, Callable[[], int]] = {
    "vap-manifest": lambda: vap_manifest(["segments", "--corpus", "tiny"]),
    "vap-extract": lambda: vap_extract(["--corpus", "tiny"]),
    "vap-train": lambda: vap_train(["--corpus", "tiny", *RUN, "--resume"]),
    "vap-train --fast-dev-run": lambda: vap_train(["--corpus", "tiny", *RUN, "--fast-dev-run"]),
    "vap-evaluate score": lambda: vap_evaluate(["score", "--corpus", "tiny", *RUN, "--device", "cpu"]),
    "vap-evaluate events": lambda: vap_evaluate(["events", "--corpus", "tiny"]),
    "vap-anova": lambda: vap_anova(["--corpus", "tiny"]),
}


class Hangs(BaseException):
    """No ``except Exception`` hides it."""


def hangs(*_: object) -> None:
    raise Hangs


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, hangs)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which every command has been run on a small corpus; it is the working directory."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("WANDB_MODE", "disabled")
        patch.setattr("os.fsync", lambda _: None)  # most of the time otherwise
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        made = corpus(root / "data/tiny", 6, 25)
        pyarrow.csv.write_csv(pq.read_table("data/tiny/tiny/voice_activity.parquet"), "data/tiny/calls.csv")
        (made.root / "small.pt").rename(root / "small.pt")
        Path("params.yaml").write_text(yaml.safe_dump({"tiny": SETTINGS, "corpus": SETTINGS}))
        for name, run in COMMANDS.items():
            assert run() == 0, name
        yield root
        torch.set_num_threads(threads)


@contextmanager
def restored(root: Path) -> Iterator[dict[str, bytes]]:
    """Give the files below ``root`` and their bytes, and put back what was done to them."""
    whole = content(root)
    try:
        yield whole
    finally:
        for name in content(root).keys() - whole.keys():
            (root / name).unlink()
        for name, expected in whole.items():
            path = root / name
            if not path.is_file() or path.read_bytes() != expected:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(expected)


def ends(run: Callable[[], int], capfd: pytest.CaptureFixture[str]) -> str:
    """Run a command that must end soon, with status 0 or with 2 and one line; return the line or ''."""
    capfd.readouterr()
    signal.alarm(30)
    try:
        status = run()
    finally:
        signal.alarm(0)
    err = capfd.readouterr().err
    assert status in (0, 2) and "Traceback" not in err, err
    if status == 0:
        return ""
    errors = [line for line in err.splitlines() if ": error: " in line]
    assert len(errors) == 1 and err.rstrip().endswith(errors[0]), err
    return errors[0]


def garble(whole: bytes, choose: random.Random) -> bytes:
    """Return a file cut off, emptied, with other bits, bytes, lines or numbers, or of another encoding."""
    changed = bytearray(whole)
    at = choose.randrange(max(len(changed), 1))
    kind = choose.randrange(9)
    if kind == 0:
        return bytes(changed[:at])
    if kind == 1:
        return choose.choice([b"", b"\0" * 100, b"[" * 100_000, b"\x80\x04\x95pickle", b"\xff\xfe" + whole])
    if kind == 2:
        return whole.decode("latin-1").encode("utf-16")
    if kind == 3:
        digits = [i for i, byte in enumerate(whole[:4000]) if chr(byte).isdigit()]
        if digits:
            at = choose.choice(digits)
            changed[at : at + 1] = choose.choice(
                [b"-1", b"1e999", b"nan", b"9" * 400, b"10000000000000", b"x"]
            )
        return bytes(changed)
    if kind == 4:
        lines = whole.split(b"\n")
        lines.insert(choose.randrange(len(lines)), lines.pop(choose.randrange(len(lines))))
        return b"\n".join(lines[: choose.randrange(1, len(lines) + 1)])
    if kind == 5:
        even = len(changed) // 2 * 2
        changed[:even:2], changed[1:even:2] = changed[1:even:2], changed[:even:2]
        return bytes(changed)
    for _ in range(choose.choice([1, 3, 9])):
        changed[choose.randrange(len(changed))] ^= 1 << choose.randrange(8)
    return bytes(changed)


CHECKPOINT = "checkpoints/tiny/discrete/fold-0"
MODEL = f"{CHECKPOINT}/model.safetensors"
EVENTS, TABLE, ROWS = (
    "reports/tiny/events.parquet",
    "reports/tiny/table.md",
    "scores/tiny/discrete/fold-0.parquet",
)
STORE = "data/tiny/features.zarr"


def as_the_table_says(garbled: bytes, before: dict[str, bytes]) -> None:
    """A garbled table of segments that is still a table gives just these segments."""
    encoding = "utf-16" if garbled.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    rows = csv.DictReader(garbled.decode(encoding).splitlines())
    lasts = {c.conversation: c.duration_s for c in manifest.read(Path("data_manifest/tiny")).conversations}
    assert sorted(lasts) == sorted(Path(name).stem for name in before if name.endswith(".wav"))
    expected = [
        (row["conversation"], "01AB".index(row["channel"]) % 2, float(row["start_s"]), float(row["end_s"]))
        for row in rows
    ]
    # To a second after the audio a transcript may run on; it is cut off there.
    expected = [(name, c, start, min(end, lasts[name])) for name, c, start, end in expected]
    found = pq.read_table("data_manifest/tiny/voice_activity.parquet").to_pylist()
    assert [tuple(row.values()) for row in found] == sorted(expected)


def listed(content: bytes) -> dict[str, tuple[str, float, str, str]]:
    rows = csv.reader(content.decode("utf-8-sig").splitlines()[1:])
    return {name: (audio, float(length), split, fold) for name, audio, length, split, fold in rows}


def as_the_list_says(garbled: bytes, before: dict[str, bytes]) -> None:
    """Of a garbled list of conversations that is still one, those that are as before have what they had."""
    now, then = listed(garbled), listed(before["data_manifest/tiny/conversations.csv"])
    assert now.keys() == then.keys()  # all of them speak
    used = [name for name, (*_, split, _) in now.items() if split]
    assert json.loads(Path("data/tiny/features.json").read_bytes())["conversations"] in (len(used), len(then))
    for name in used:
        assert now[name][0] == then[name][0] and abs(now[name][1] - then[name][1]) <= 0.01
        if now[name][1] == then[name][1]:
            path = f"{STORE}/{name}/features/c/0/0"
            assert Path(path).read_bytes() == before[path]
    if now == then:
        assert Path(ROWS).read_bytes() == before[ROWS]


def scored_as_the_list_says(garbled: bytes, before: dict[str, bytes]) -> None:
    now, then = listed(garbled), listed(before["data_manifest/tiny/conversations.csv"])
    tested = [[name for name, (*_, split, _) in each.items() if split == "test"] for each in (now, then)]
    validated = [[name for name, (*_, fold) in each.items() if fold == "0"] for each in (now, then)]
    assert validated[0] == validated[1]  # a checkpoint of other conversations is refused
    assert (Path(ROWS).read_bytes() == before[ROWS]) == (tested[0] == tested[1])


def same_weights(garbled: bytes, before: dict[str, bytes]) -> None:
    """A store described otherwise is noted so in the model's header, and teaches the same."""
    now, then = safetensors.torch.load(Path(MODEL).read_bytes()), safetensors.torch.load(before[MODEL])
    assert now.keys() == then.keys() and all(torch.equal(now[name], then[name]) for name in then)


# What each command reads, what it then makes that must be right or not be made, and how often it is tried.
READS = [
    (
        "data/tiny/calls.csv",
        "vap-manifest",
        as_the_table_says,
        25,
    ),  # a table without its last rows is still a table
    ("data_manifest/tiny/conversations.csv", "vap-extract", as_the_list_says, 15),
    ("data_manifest/tiny/conversations.csv", "vap-evaluate score", scored_as_the_list_says, 10),
    ("data_manifest/tiny/voice_activity.parquet", "vap-evaluate events", EVENTS, 15),
    ("data_manifest/tiny/voice_activity.parquet", "vap-train", MODEL, 10),
    ("small.pt", "vap-extract", f"{STORE}/{{train}}/features/c/0/0", 15),
    (f"{STORE}/zarr.json", "vap-train", same_weights, 15),
    (f"{STORE}/{{train}}/zarr.json", "vap-train", same_weights, 10),
    (f"{STORE}/{{train}}/features/zarr.json", "vap-train", MODEL, 15),
    (f"{STORE}/{{test}}/va/zarr.json", "vap-evaluate score", ROWS, 15),
    (f"{STORE}/{{train}}/va/c/0/0", "vap-train", MODEL, 15),
    (f"{STORE}/{{test}}/va/c/0/0", "vap-evaluate score", ROWS, 10),
    ("checkpoints/tiny/discrete/fold-0/model.safetensors", "vap-evaluate score", ROWS, 20),
    ("checkpoints/tiny/discrete/fold-0/resume.safetensors", "vap-train", MODEL, 20),
    ("scores/tiny/discrete/fold-0.parquet", "vap-anova", TABLE, 10),
    ("scores/tiny/discrete/fold-0.events.parquet", "vap-anova", TABLE, 10),
    ("scores/tiny/discrete/fold-0.timeline.parquet", "vap-anova", TABLE, 5),
]


@pytest.mark.parametrize(("name", "command", "made", "times"), READS)
def test_a_garbled_file_is_refused_or_makes_no_difference(project, capfd, name, command, made, times):
    """235 files in all."""
    choose, refused = random.Random(f"{name} {command}"), 0
    split = manifest.read(project / "data_manifest/tiny")
    roles = {"train": split.training_set(0)[0], "test": split.test_set()[0]}
    path = project / name.format(**roles)
    whole = path.read_bytes()
    for _ in range(times):
        with restored(project) as before:
            path.write_bytes(garbled := garble(whole, choose))
            if line := ends(COMMANDS[command], capfd):
                refused += 1
                assert any(word in line for word in (path.name, STORE, "conversation", "tiny")), line
            elif callable(made):
                made(garbled, before)
            elif made:
                assert (project / made.format(**roles)).read_bytes() == before[made.format(**roles)]
    assert refused >= times // 3 or path.name == "resume.safetensors"  # such a run starts anew


def leaves(section: dict, *above: str) -> Iterator[tuple[str, ...]]:
    """Where the settings stand: sections, and what is in them."""
    for key, value in section.items():
        yield *above, key
        if isinstance(value, dict):
            yield from leaves(value, *above, key)


WRONG = [True, -1, 0, -0.5, 10**30, 1e-300, math.inf, math.nan, "", "x", "../../x", "a/b", "\0", "2001-01-01"]
WRONG += [[], ["x"], [[1]], {"x": 1}, {1: 2, None: 3}]
READERS = {"manifest": "vap-manifest", "extract": "vap-extract", "models": "vap-anova", "folds": "vap-anova"}
READERS |= {"model": "vap-train --fast-dev-run", "train": "vap-train --fast-dev-run"}


def test_wrong_settings_are_refused_or_make_no_difference(project, capfd):
    """Every setting replaced by all kinds of others, 570 files of settings; none leads out of the project."""
    choose, refused, beside = random.Random(0), [], set(Path.cwd().parent.iterdir())
    places = list(leaves(SETTINGS))
    for place, wrong in product(places, WRONG):
        changed = copy.deepcopy(SETTINGS)
        section = changed
        for key in place[:-1]:
            section = section[key]
        section[place[-1]] = wrong
        command = READERS.get(place[0]) or choose.choice(
            ["vap-manifest", "vap-extract", "vap-evaluate score"]
        )
        with restored(project):
            Path("params.yaml").write_text(yaml.safe_dump({"tiny": changed, "corpus": changed}))
            try:
                refused.append(bool(ends(COMMANDS[command], capfd)))
            except (Exception, Hangs) as error:
                raise AssertionError(f"{command}: {place} = {wrong!r}") from error
        assert set(Path.cwd().parent.iterdir()) == beside
    assert len(refused) == len(places) * len(WRONG) == 570 and sum(refused) > 300


LONG = "x" * 300
PATHS: list[tuple[Callable[[list[str]], int], list[str]]] = [
    (vap_manifest, ["segments", "--corpus", "tiny", "--table", LONG]),
    (vap_manifest, ["segments", "--corpus", "tiny", "--audio", LONG]),
    (vap_manifest, ["segments", "--corpus", "a::b", "--table", "data/tiny/calls.csv"]),
    (vap_manifest, ["segments", "--corpus", LONG, "--table", "data/tiny/calls.csv"]),
    *((vap_extract, [f"--{flag}", LONG]) for flag in ("manifest", "weights", "params", "out", "corpus")),
    (vap_train, [*RUN, "--manifest", LONG]),
    (vap_train, [*RUN, "--out", "foo://x"]),
    (vap_train, [*RUN, "--store", "zip://x::foo://x"]),
    (vap_evaluate, ["score", "--checkpoint", "foo://x"]),
    (vap_evaluate, ["score", "--checkpoint", LONG]),
    (vap_anova, ["--scores", "foo://x"]),
    (vap_anova, ["--scores", LONG]),
    (vap_anova, ["--out", "foo://x"]),
]


@pytest.mark.parametrize(("run", "argv"), PATHS)
def test_paths_that_no_file_can_have(project, capfd, run, argv):
    before = content(project.parent)
    line = ends(lambda: run(argv), capfd)
    assert any(odd in line for odd in ("File name too long", "::", "Protocol not known", "no scores", LONG))
    assert content(project.parent) == before


def test_settings_that_are_no_yaml(project, capfd):
    whole, choose = Path("params.yaml").read_bytes(), random.Random(0)
    with restored(project):
        for content in [b"[" * 100_000, b"a: 2001-99-99", b"\xff", b"", b"- 1", b"corpus: 1", b"{[1]: 2}"]:
            Path("params.yaml").write_bytes(content)
            ends(COMMANDS["vap-extract"], capfd)
        for _ in range(40):
            Path("params.yaml").write_bytes(garble(whole, choose))
            ends(COMMANDS[choose.choice(["vap-manifest", "vap-extract"])], capfd)
        Path("params.yaml").unlink()
        Path("params.yaml").mkdir()
        assert "params.yaml" in ends(COMMANDS["vap-train"], capfd)
        Path("params.yaml").rmdir()


class Harmful:
    """Unpickled, it writes a file."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.write_text, (Path("harm"), "done"))


def test_no_pickle_is_loaded_whichever_file_it_is_planted_in(project, capfd):
    """Every file of the project in turn, as a pickle and as what torch.save makes of one."""
    torch.save(Harmful(), "planted.pt")
    pickles = [pickle.dumps(Harmful()), Path("planted.pt").read_bytes()]
    Path("planted.pt").unlink()
    pickle.loads(pickles[0])  # it does harm, where it is loaded
    Path("harm").unlink()
    readers = {"small.pt": "vap-extract", "params.yaml": "vap-extract", "data/tiny/audio": "vap-extract"}
    readers |= {"data/tiny/calls.csv": "vap-manifest", "data_manifest": "vap-train", STORE: "vap-train"}
    readers |= {"checkpoints": "vap-train", "scores": "vap-anova"}
    tried = 0
    for name in sorted(content(project)):
        command = next((command for start, command in readers.items() if name.startswith(start)), None)
        if command and "/c0005" not in name and "/c0004" not in name:
            for planted, run in product(pickles, {command, "vap-evaluate score"}):
                with restored(project):
                    Path(name).write_bytes(planted)
                    ends(COMMANDS[run], capfd)
                    assert not Path("harm").exists(), name
                    tried += 1
    assert tried > 100


@pytest.mark.parametrize(
    ("column", "value"),
    [(0, each) for each in ("../x", "/tmp/x", "a/b", "..", ".partial", "zarr.json", "a\\b", "x\n", "")]
    + [(1, each) for each in ("../../../small.pt", "/etc/hostname", "a/../../x", "..", "x\0")],
)
def test_a_manifest_leads_nowhere_else(project, capfd, column, value):
    table = Path("data_manifest/tiny/conversations.csv")
    rows = list(csv.reader(table.read_text().splitlines()))
    rows[1][column] = value
    with restored(project) as before, table.open("w") as file:
        csv.writer(file).writerows(rows)
        file.close()
        beside = content(project.parent)
        for command in ("vap-extract", "vap-train", "vap-evaluate score"):
            assert "conversation" in ends(COMMANDS[command], capfd)
        assert content(project.parent) == beside
        assert {name: whole for name, whole in content(project).items() if name in before} | {
            str(table): before[str(table)]
        } == before


def test_a_linked_conversation_is_replaced_and_not_written_through(project, capfd):
    """A store got from elsewhere may hold links; what they point at is left alone."""
    with restored(project):
        outside = project.parent / "outside"
        (project / STORE / "c0001").rename(outside)
        (project / STORE / "c0001").symlink_to(outside, target_is_directory=True)
        (outside / "zarr.json").write_text("{}")
        before = content(outside)
        assert ends(COMMANDS["vap-extract"], capfd) == ""
        assert content(outside) == before and not (project / STORE / "c0001").is_symlink()
        shutil.rmtree(outside)


def forge_array(codec: dict | None) -> Callable[[Path], None]:
    def forge(path: Path) -> None:
        metadata = json.loads(path.read_bytes())
        metadata["shape"][0] = 10**12
        # Without another codec, all of the metadata is as if the frames were there.
        metadata["chunk_grid"]["configuration"]["chunk_shape"][0] = 10**12 if codec else SHARD_FRAMES
        if codec:
            metadata["codecs"] = [{"name": "bytes", "configuration": {"endian": "little"}}, codec]
            (path.parent / "c/0/0").write_bytes(gzip.compress(bytes(10**8)))
        path.write_text(json.dumps(metadata))

    return forge


def forge_safetensors(header: bytes, length: int | None = None) -> Callable[[Path], None]:
    size = len(header) if length is None else length
    return lambda path: path.write_bytes(size.to_bytes(8, "little") + header + bytes(100))  # type: ignore


def forge_durations(path: Path) -> None:
    path.write_text(re.sub(r",25\.\d*,", ",1e15,", path.read_text()))


HUGE = json.dumps({"model": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode()
FORGED: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "frames": (f"{STORE}/{{train}}/features/zarr.json", forge_array(None), "vap-train"),
    **{
        f"frames, {codec}": (
            f"{STORE}/{{train}}/{array}/zarr.json",
            forge_array({"name": codec, "configuration": {"level": 1}}),
            "vap-train",
        )
        for codec, array in (("gzip", "features"), ("zstd", "va"), ("blosc", "features"))
    },
    "a state's tensors": (f"{CHECKPOINT}/resume.safetensors", forge_safetensors(HUGE), "vap-train"),
    "a state's header": (f"{CHECKPOINT}/resume.safetensors", forge_safetensors(b"{}", 1 << 60), "vap-train"),
    "a model's tensors": (f"{CHECKPOINT}/model.safetensors", forge_safetensors(HUGE), "vap-evaluate score"),
    "a model's header": (
        f"{CHECKPOINT}/model.safetensors",
        forge_safetensors(b"{}", 1 << 60),
        "vap-evaluate score",
    ),
    "durations": ("data_manifest/tiny/conversations.csv", forge_durations, "vap-extract"),
}


MEASURE = f"""
import re, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_broken_input import COMMANDS
status = COMMANDS[sys.argv[1]]()
print(status, re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


def measured(command: str) -> tuple[int, int]:
    """Run a command in a process of its own; return its status and the most memory it had, in kB."""
    ended = subprocess.run(
        [sys.executable, "-c", MEASURE, command], capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    status, peak = ended.stdout.split()[-2:]
    return int(status), int(peak)


usually = functools.cache(measured)  # of whole files


@pytest.mark.parametrize("what", FORGED)
def test_what_claims_to_be_huge_is_refused_before_memory_is_taken(project, what):
    name, forge, command = FORGED[what]
    path = project / name.format(train=manifest.read(project / "data_manifest/tiny").training_set(0)[0])
    with restored(project) as before:
        _, peak = usually(command)
        forge(path)
        status, taken = measured(command)
        assert taken < peak + 100_000  # kB
        # A state that cannot be used is no fault: the run starts anew, and ends as it did.
        assert status == 2 or (
            path.name == "resume.safetensors" and (project / MODEL).read_bytes() == before[MODEL]
        )


@pytest.mark.parametrize("coding", ["ulaw", "ulaw,embedded-shorten-v2.00"])
def test_audio_that_claims_to_be_huge(project, capfd, coding):
    """It is read to its end, or refused where only decoding could show its length."""
    with restored(project):
        Path("data/tiny/audio/c0000.wav").unlink()
        codes = np.zeros((8_000 * 25, 2), np.uint8)
        sphere(Path("data/tiny/audio/c0000.sph"), codes, coding=coding, sample_count=10**12)
        line = ends(COMMANDS["vap-manifest"], capfd)
        listed = manifest.read(project / "data_manifest/tiny").conversations
        if coding == "ulaw":
            assert not line and {c.audio: c.duration_s for c in listed}["c0000.sph"] == 25
            return
        assert "c0000" in line
        table = Path("data_manifest/tiny/conversations.csv")
        table.write_text(table.read_text().replace("c0000.wav", "c0000.sph"))
        assert "c0000.sph" in ends(COMMANDS["vap-extract"], capfd)


def test_a_store_of_another_transcript_is_noticed_until_it_is_encoded_again(project, capfd):
    with restored(project):
        calls = Path("data/tiny/calls.csv")
        calls.write_text(calls.read_text().replace(",0.5,2.25", ",0.75,2.25"))
        assert ends(COMMANDS["vap-manifest"], capfd) == ""
        for command in ("vap-train", "vap-evaluate score"):
            said = ends(COMMANDS[command], capfd)
            assert "other voice activity in the manifest than in the store; run vap-extract again" in said
        assert ends(COMMANDS["vap-extract"], capfd) == ends(COMMANDS["vap-train"], capfd) == ""


def test_features_that_are_no_numbers_do_not_choose_thresholds(project, capfd):
    """In the validation set, whose loss nobody looks at when a model is scored."""
    name = manifest.read(project / "data_manifest/tiny").validation_set(0)[0]
    with restored(project):
        path = project / STORE / name / "features/c/0/0"
        path.write_bytes(b"\xff\x7f" * 8_000 + path.read_bytes()[16_000:])
        network, config = checkpoint.load(str(project / CHECKPOINT))
        config.pop("thresholds", None)  # as a checkpoint of mixed precision, for which they are chosen then
        checkpoint.save(network, config, str(project / CHECKPOINT))
        assert f"conversation {name}" in ends(COMMANDS["vap-evaluate score"], capfd)


def test_weights_that_changed_under_their_name_are_noticed_until_they_have_encoded(project, capfd):
    with restored(project):
        cpc_weights.save(cpc_weights.random(1, Config(16, 8)), "small.pt")
        assert "encoder.sha256 was" in ends(COMMANDS["vap-train"], capfd)
        assert "encoder.sha256 was" in ends(COMMANDS["vap-extract"], capfd)
        shutil.rmtree(STORE)
        assert ends(COMMANDS["vap-extract"], capfd) == ends(COMMANDS["vap-train"], capfd) == ""


BEFORE_ITS_MODEL = """
import os, signal, sys
from vap_pipeline.train import progress as checkpoint
from vap_pipeline.train import __main__ as command
checkpoint.publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
command.main(sys.argv[1:])
"""


def test_a_model_of_before_does_not_pass_for_that_of_a_training_that_was_killed(project, capfd):
    again = ["--corpus", "tiny", *RUN, "--learning-rate", "0.01"]
    with restored(project):
        killed = subprocess.run([sys.executable, "-c", BEFORE_ITS_MODEL, *again], capture_output=True)
        assert killed.returncode == -signal.SIGKILL
        said = ends(COMMANDS["vap-evaluate score"], capfd)
        assert (
            "another training has begun in this folder" in said
            and "train.learning_rate was 0.001, is 0.01" in said
        )
        assert ends(lambda: vap_train([*again, "--resume"]), capfd) == ""
        assert ends(COMMANDS["vap-evaluate score"], capfd) == ""


@pytest.mark.parametrize(
    ("run", "argv"),
    [
        (vap_evaluate, ["events", "--manifest", "loop"]),
        (vap_evaluate, ["statistics", "--manifest", "loop"]),
        (
            vap_manifest,
            ["segments", "--out", "loop", "--audio", "data/tiny/audio", "--table", CALLS],
        ),
        (vap_manifest, ["segments", "--corpus", "tiny", "--audio", "loop"]),
        (vap_extract, ["--corpus", "tiny", "--out", "loop"]),
        (vap_train, [*RUN, "--corpus", "tiny", "--out", "loop"]),
        (vap_anova, ["--corpus", "tiny", "--scores", "loop"]),
        (vap_anova, ["--corpus", "tiny", "--out", "loop"]),
    ],
)
def test_links_that_lead_round_and_round(project, capfd, run, argv):
    with restored(project):
        Path("loop").symlink_to("loop")
        assert "loop" in ends(lambda: run(argv), capfd)
        Path("loop").unlink()

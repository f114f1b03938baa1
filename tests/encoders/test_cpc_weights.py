"""Loading weights: the right file, the wrong file, no file, and no network."""

import argparse
import copy
import hashlib
import socket
import subprocess
import sys
import threading
import zipfile
from dataclasses import asdict

import pytest
import torch

from vap_pipeline.encoders import cpc_weights
from vap_pipeline.encoders.cpc import Config, CPCEncoder
from vap_pipeline.io.errors import InputError

SMALL = Config(hiddenEncoder=16, hiddenGar=8, arMode="GRU")


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "small.pt"
    cpc_weights.save(cpc_weights.random(7, SMALL), path)
    return path


def changed(path, change):
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    return str(path)


def test_a_checkpoint_in_the_published_format_comes_back(checkpoint):
    encoder, description = cpc_weights.load(str(checkpoint))
    assert not encoder.training and encoder.config == SMALL
    assert description == {
        "weights": "small.pt",
        "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "config": {
            "hiddenEncoder": 16,
            "hiddenGar": 8,
            "nLevelsGRU": 1,
            "arMode": "GRU",
            "normMode": "layerNorm",
            "encoder_type": "cpc",
        },
    }
    for name, tensor in cpc_weights.random(7, SMALL).state_dict().items():
        assert torch.equal(encoder.state_dict()[name], tensor)


def test_the_published_names_and_shapes():
    shapes = {name: tuple(tensor.shape) for name, tensor in CPCEncoder().state_dict().items()}
    for i, (inputs, kernel) in enumerate([(1, 10), (256, 8), (256, 4), (256, 4), (256, 4)]):
        assert shapes.pop(f"gEncoder.conv{i}.weight") == (256, inputs, kernel)
        assert shapes.pop(f"gEncoder.conv{i}.bias") == (256,)
        assert shapes.pop(f"gEncoder.batchNorm{i}.weight") == (1, 256, 1)
        assert shapes.pop(f"gEncoder.batchNorm{i}.bias") == (1, 256, 1)
    assert shapes == {
        "gAR.baseNet.weight_ih_l0": (1024, 256),
        "gAR.baseNet.weight_hh_l0": (1024, 256),
        "gAR.baseNet.bias_ih_l0": (1024,),
        "gAR.baseNet.bias_hh_l0": (1024,),
    }


def test_random_weights_follow_from_the_seed_alone():
    torch.manual_seed(1)
    (first, one), (_, other) = cpc_weights.load("random", seed=4), cpc_weights.load("random", seed=5)
    before = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(before, torch.rand(1))  # the caller's random numbers are left alone
    again, same = cpc_weights.load("random", seed=4)
    assert one == same and one["weights"] == "random-seed4" and one["sha256"] != other["sha256"]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_the_file_that_its_name_promises(checkpoint, tmp_path):
    sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    right = checkpoint.rename(tmp_path / f"mine-{sha256[:8]}.pt")
    assert cpc_weights.load(str(right))[1]["sha256"] == sha256
    wrong = right.rename(tmp_path / cpc_weights.PUBLISHED)
    with pytest.raises(InputError, match=rf"starts with {sha256[:8]}, not d0f474de.*--download"):
        cpc_weights.load(str(wrong))


def lack(content):
    del content["weights"]["gAR.baseNet.bias_hh_l0"]


def add(content):
    content["weights"]["gAR.baseNet.weight_hh_l1"] = torch.zeros(24, 8)


def misshape(content):
    content["weights"]["gEncoder.conv2.weight"] = torch.zeros(16, 16, 8)


def spoil(content):
    content["weights"]["gEncoder.conv2.bias"][3] = torch.nan


def retype(content):
    content["config"]["arMode"] = "transformer"


def resize(content):
    content["config"]["hiddenGar"] = 10**12


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lack, "lack.*gAR.baseNet.bias_hh_l0|gAR.baseNet.bias_hh_l0.*lack"),
        (add, "gAR.baseNet.weight_hh_l1"),
        (misshape, r"gEncoder.conv2.weight has the wrong shape, expected \(16, 16, 4\)"),
        (spoil, "gEncoder.conv2.bias holds numbers that are not finite"),
        (retype, "another kind: arMode is 'transformer'"),
        (resize, "another kind: hiddenGar is 1000000000000"),
        (lambda content: content.pop("config"), "not a CPC checkpoint"),
        (lambda content: content.update(weights=3), "not a CPC checkpoint"),
    ],
)
def test_a_wrong_checkpoint_is_refused(checkpoint, change, said):
    with pytest.raises(InputError, match=said) as caught:
        cpc_weights.load(changed(checkpoint, change))
    assert "small.pt" in str(caught.value) and "\n" not in str(caught.value)


FORGED = """
import resource, sys, torch
from vap_pipeline.encoders import cpc_weights
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (300 << 20), -1))
try:
    cpc_weights.load(sys.argv[1])
except cpc_weights.InputError as error:
    print(error)
"""


@pytest.mark.parametrize(("levels", "filled"), [(1, False), (1, True), (4096, False)])
def test_a_forged_size_takes_no_memory(tmp_path, levels, filled):
    """With no tensors, or with some of one number that stands for all, in a process that may take 300 MB."""
    config = {"hiddenEncoder": 4096, "hiddenGar": 4096, "nLevelsGRU": levels}
    forged = {}
    if filled:
        with torch.device("meta"):
            shapes = {name: t.shape for name, t in CPCEncoder(Config(**config)).state_dict().items()}
        forged = {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}
    path = tmp_path / "forged.pt"
    torch.save({"config": config, "weights": forged}, path)
    assert path.stat().st_size < 20_000
    run = subprocess.run([sys.executable, "-c", FORGED, str(path)], capture_output=True, text=True)
    assert run.stdout.startswith(str(path)) and run.stdout.count("\n") == 1, run.stderr


def test_what_lies_beside_the_network_is_left_alone(checkpoint):
    path = changed(checkpoint, lambda content: content["weights"].update({"cpcCriterion.x": torch.zeros(1)}))
    assert cpc_weights.load(path)[0].config == SMALL


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x80\x02}q\x00.", b"x" * 1000])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a CPC checkpoint"):
        cpc_weights.load(str(path))


def test_no_pickle_is_run(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    torch.save({"config": Harmful(), "weights": {}}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match="not a CPC checkpoint"):
        cpc_weights.load(str(tmp_path / "weights.pt"))
    torch.save({"config": argparse.Namespace(), "weights": {}}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match="not a CPC checkpoint"):
        cpc_weights.load(str(tmp_path / "weights.pt"))
    assert not (tmp_path / "harm").exists()


def test_offline_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    kept = tmp_path / "hub" / "checkpoints" / cpc_weights.PUBLISHED
    with pytest.raises(InputError, match=f"--download.*{cpc_weights.URL}.*{kept}"):
        cpc_weights.load(cpc_weights.PUBLISHED)
    with pytest.raises(InputError, match="no such weights"):
        cpc_weights.load("other.pt", download=True)


def test_a_failed_download_leaves_nothing_and_ends_soon(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    silent = socket.create_server(("127.0.0.1", 0))  # accepts, and never answers
    monkeypatch.setattr(cpc_weights, "TIMEOUT_S", 0.5)
    for port in (silent.getsockname()[1], 1):
        monkeypatch.setattr(cpc_weights, "URL", f"http://127.0.0.1:{port}/{cpc_weights.PUBLISHED}")
        with pytest.raises(InputError, match=r"cannot be fetched.*put it at"):
            cpc_weights.load(cpc_weights.PUBLISHED, download=True)
    silent.close()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert socket.getdefaulttimeout() is None


def test_a_download_is_verified_and_kept(checkpoint, tmp_path, monkeypatch):
    content = checkpoint.read_bytes()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name, right in (
        (f"mine-{hashlib.sha256(content).hexdigest()[:8]}.pt", True),
        ("mine-00000000.pt", False),
    ):
        server = socket.create_server(("127.0.0.1", 0))

        def answer(server=server):
            connection, _ = server.accept()
            connection.recv(4096)
            head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            connection.sendall(head + content)
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        monkeypatch.setattr(cpc_weights, "PUBLISHED", name)
        monkeypatch.setattr(cpc_weights, "URL", f"http://127.0.0.1:{server.getsockname()[1]}/{name}")
        kept = tmp_path / "hub" / "checkpoints" / name
        if right:
            assert cpc_weights.load(name, download=True)[0].config == SMALL and kept.exists()
        else:
            with pytest.raises(InputError, match=r"cannot be fetched.*hash"):
                cpc_weights.load(name, download=True)
            assert not kept.exists()
        server.close()


def test_random_features_tell_speech_from_silence():
    """A burst of noise must move the features by far more than rounding to float16 does."""
    audio = torch.randn(1, 32_000, generator=torch.Generator().manual_seed(0)) * 0.3
    audio[:, 12_000:20_000] *= 1e-3
    with torch.no_grad():
        features = cpc_weights.random(0)(audio)[0]
    quiet, loud = features[80:120].mean(0), features[130:].mean(0)
    assert (quiet - loud).abs().mean() > 0.05
    assert features.std(0).mean() > 0.1


@pytest.mark.parametrize("overlapping", [False, True])
def test_an_archive_that_grows_takes_no_memory(tmp_path, overlapping):
    """Half a gigabyte of zeros in a file of 500 kB; or one part that its directory lists many times."""
    path = tmp_path / "grown.pt"
    zeros = torch.zeros(1 << (12 if overlapping else 27))
    torch.save({"config": {}, "weights": {"a": zeros}}, path)
    with zipfile.ZipFile(path) as whole:
        parts = [(info.filename, whole.read(info)) for info in whole.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED if overlapping else zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts:
            archive.writestr(name, content)
        if overlapping:
            largest = max(archive.infolist(), key=lambda info: info.file_size)
            for i in range(9):
                again = copy.copy(largest)
                again.filename = f"{largest.filename}{i}"
                archive.filelist.append(again)
    assert path.stat().st_size < 600_000
    run = subprocess.run([sys.executable, "-c", FORGED, str(path)], capture_output=True, text=True)
    assert "grown.pt: not a CPC checkpoint (its parts are compressed)" in run.stdout, run.stderr


@pytest.mark.parametrize(
    "odd",
    [
        torch.zeros(16, 1, 10, device="meta"),
        torch.zeros(16, 1, 10).to(torch.float8_e4m3fn),
        torch.zeros(16, 1, 10, dtype=torch.complex64),
        torch.zeros(16, 1, 10, dtype=torch.int64),
        torch.nested.nested_tensor([torch.zeros(1, 10)] * 16),
    ],
    ids=["nowhere", "float8", "complex", "whole", "nested"],
)
def test_odd_tensors_are_refused(tmp_path, odd):
    encoder = cpc_weights.random(0, Config(16, 8))
    path = tmp_path / "odd.pt"
    tensors = encoder.state_dict() | {"gEncoder.conv0.weight": odd}
    torch.save({"config": asdict(encoder.config), "weights": tensors}, path)
    with pytest.raises(InputError, match=r"odd.pt: "):
        cpc_weights.load(str(path))

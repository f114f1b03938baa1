"""Loading weights: the right file, the wrong file, no file, and no network."""

import argparse
import hashlib
import http.server
import socket
import threading

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


def test_a_saved_checkpoint_loads_with_the_same_weights(checkpoint):
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


def test_tensors_have_the_published_names_and_shapes():
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


def test_random_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    (first, one), (_, other) = cpc_weights.load("random", seed=4), cpc_weights.load("random", seed=5)
    before = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(before, torch.rand(1))  # the caller's random numbers are left alone
    again, same = cpc_weights.load("random", seed=4)
    assert one == same and one["weights"] == "random-seed4" and one["sha256"] != other["sha256"]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_the_digits_in_a_file_name_are_checked_against_its_sha256(checkpoint, tmp_path):
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
    content["config"]["hiddenGar"] = 9


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lack, 'Missing key.*"gAR.baseNet.bias_hh_l0"'),
        (add, 'Unexpected key.*"gAR.baseNet.weight_hh_l1"'),
        (misshape, r"size mismatch for gEncoder.conv2.weight: .*\(\[16, 16, 8\]\).*\(\[16, 16, 4\]\)"),
        (spoil, "gEncoder.conv2.bias has values that are NaN or infinite"),
        (retype, "arMode is 'transformer', expected LSTM or GRU or RNN"),
        (resize, "size mismatch for gAR.baseNet.weight_ih_l0"),
        (lambda content: content.pop("config"), "'config'"),
        (lambda content: content.update(weights=3), "no attribute 'items'"),
    ],
)
def test_a_wrong_checkpoint_is_refused(checkpoint, change, said):
    with pytest.raises(InputError, match=f"small.pt: not a CPC checkpoint .*{said}") as caught:
        cpc_weights.load(changed(checkpoint, change))
    assert "\n" not in str(caught.value)


def test_tensors_that_are_not_of_the_network_are_ignored(checkpoint):
    path = changed(checkpoint, lambda content: content["weights"].update({"cpcCriterion.x": torch.zeros(1)}))
    assert cpc_weights.load(path)[0].config == SMALL


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x80\x02}q\x00.", b"x" * 1000])
def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a CPC checkpoint"):
        cpc_weights.load(str(path))


def test_code_in_a_pickle_is_not_run(tmp_path):
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


def test_missing_weights_say_where_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    kept = tmp_path / "hub" / "checkpoints" / cpc_weights.PUBLISHED
    with pytest.raises(InputError, match=f"--download.*{cpc_weights.URL}.*{kept}"):
        cpc_weights.load(cpc_weights.PUBLISHED)
    with pytest.raises(InputError, match="no such weights"):
        cpc_weights.load("other.pt", download=True)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serve a file after some failures, the last ``cut_short`` of them truncated; return the requests."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(cpc_weights, "PAUSE_S", 0.01)
    servers = []

    def serve(content, name, failures, cut_short=0):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                requests.append(self.path)
                self.send_response(503 if len(requests) <= failures - cut_short else 200)
                self.send_header("Content-Length", str(len(content) + (len(requests) <= failures)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        requests = []
        servers.append(http.server.HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[0].serve_forever, daemon=True).start()
        monkeypatch.setattr(cpc_weights, "PUBLISHED", name)
        monkeypatch.setattr(cpc_weights, "URL", f"http://127.0.0.1:{servers[0].server_port}/{name}")
        return requests

    yield serve
    for each in servers:
        each.shutdown()
        each.server_close()


def named(content):
    return f"mine-{hashlib.sha256(content).hexdigest()[:8]}.pt"


def test_a_download_that_fails_twice_is_tried_again(checkpoint, tmp_path, server, caplog):
    caplog.set_level("INFO")
    content = checkpoint.read_bytes()
    name = named(content)
    requests = server(content, name, failures=2, cut_short=1)
    assert cpc_weights.load(name, download=True)[0].config == SMALL
    assert requests == [f"/{name}"] * 3
    assert (tmp_path / "hub" / "checkpoints" / name).read_bytes() == content
    for line, cause in zip(caplog.messages, ("HTTP Error 503", "IncompleteRead"), strict=True):
        assert cause in line and line.endswith("trying again in 0.01 s")


def test_a_download_that_always_fails_ends_after_three_tries(checkpoint, tmp_path, server):
    content = checkpoint.read_bytes()
    requests = server(content, named(content), failures=9)
    with pytest.raises(InputError, match=r"cannot be fetched \(HTTP Error 503.*put it at"):
        cpc_weights.load(named(content), download=True)
    assert len(requests) == 3 and not list(tmp_path.rglob("hub/**/*.pt"))


def test_a_download_with_the_wrong_sha256_is_not_kept(checkpoint, tmp_path, server):
    server(checkpoint.read_bytes(), "mine-00000000.pt", failures=0)
    with pytest.raises(InputError, match=r"cannot be fetched \(the SHA-256.*does not start with 00000000"):
        cpc_weights.load("mine-00000000.pt", download=True)
    assert not list(tmp_path.rglob("mine-*"))


def test_a_server_that_does_not_answer_costs_little_time(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(cpc_weights, "PAUSE_S", 0.01)
    monkeypatch.setattr(cpc_weights, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/{cpc_weights.PUBLISHED}"
        monkeypatch.setattr(cpc_weights, "URL", url)
        with pytest.raises(InputError, match=r"cannot be fetched.*put it at"):
            cpc_weights.load(cpc_weights.PUBLISHED, download=True)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_random_features_differ_between_speech_and_silence():
    """A burst of noise must move the features by far more than rounding to float16 does."""
    audio = torch.randn(1, 32_000, generator=torch.Generator().manual_seed(0)) * 0.3
    audio[:, 12_000:20_000] *= 1e-3
    with torch.no_grad():
        features = cpc_weights.random(0)(audio)[0]
    quiet, loud = features[80:120].mean(0), features[130:].mean(0)
    assert (quiet - loud).abs().mean() > 0.05
    assert features.std(0).mean() > 0.1

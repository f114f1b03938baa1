"""The whole pipeline with store, checkpoints, scores and report on another file system."""

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pyarrow.parquet as pq
import pytest
from made import corpus

from vap_pipeline.evaluate.__main__ import main as evaluate
from vap_pipeline.extract.__main__ import main as extract
from vap_pipeline.io import files
from vap_pipeline.report.__main__ import main as anova
from vap_pipeline.train.__main__ import main as train

SIZES = ["--width", "16", "--layers", "1", "--heads", "1", "--feedforward", "16", "--batch", "5"]


pytestmark = pytest.mark.usefixtures("unlogged_on_one_thread")


def run_all(root, place, *, stop_between=False):
    """Run the commands on the corpus in ``root``, all that they write below ``place``."""
    own = ["--corpus", "tiny", "--manifest", str(root / "tiny")]
    store = ["--store", f"{place}/features.zarr"]
    weights = ["--audio", str(root / "audio"), "--weights", str(root / "small.pt")]
    assert extract([*own, *weights, "--out", f"{place}/features.zarr"]) == 0
    for fold in ("0", "1"):
        run, checkpoint = ["--model", "discrete", "--fold", fold], f"{place}/checkpoints/fold-{fold}"
        flags = [*own, *run, *store, *SIZES, "--out", checkpoint]
        if stop_between:  # as a machine that goes away after its last save
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("vap_pipeline.train.loop.publish", _gone)
                with pytest.raises(ConnectionError):
                    train([*flags, "--epochs", "2", "--resume"])
            assert files.exists(f"{checkpoint}/resume.safetensors")
        assert train([*flags, "--epochs", "2", "--resume"]) == 0
        out = ["--out", f"{place}/scores/discrete/fold-{fold}.parquet", "--device", "cpu"]
        assert evaluate(["score", *own, *run, *store, "--checkpoint", checkpoint, *out]) == 0
    report = ["--scores", f"{place}/scores", "--out", f"{place}/report"]
    assert anova(["--corpus", "tiny", *report]) == 0


def _gone(*args):
    raise ConnectionError


def content(place):
    """Every file below ``place`` and its bytes, but for the one with the run's own number."""
    fs, root = fsspec.core.url_to_fs(str(place))
    found = {name[len(root) :].lstrip("/"): fs.cat_file(name) for name in fs.find(root)}
    return {name: bytes(value) for name, value in found.items() if not name.endswith("resume.safetensors")}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A corpus, and what the pipeline makes of it on this machine, in ``here``."""
    root = tmp_path_factory.mktemp("remote")
    corpus(root, 6, 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        run_all(root, root / "here")
    return root


def test_everything_may_lie_on_any_file_system(here):
    run_all(here, "memory://remote-test/there", stop_between=True)
    local, remote = content(here / "here"), content("memory://remote-test/there")
    assert local.keys() == remote.keys() and len(local) > 30
    assert [name for name, value in local.items() if remote[name] != value] == []


def test_store_and_checkpoint_are_read_from_a_web_server(here, tmp_path):
    pytest.importorskip("aiohttp", reason="fsspec reads from web servers with aiohttp")
    handler = partial(SimpleHTTPRequestHandler, directory=str(here / "here"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        own = ["--corpus", "tiny", "--manifest", str(here / "tiny"), "--store", f"{url}/features.zarr"]
        run = [*own, "--model", "discrete", "--fold", "0"]
        assert train([*run, *SIZES, "--epochs", "2", "--out", str(tmp_path / "model")]) == 0
        out = ["--out", str(tmp_path / "fold-0.parquet"), "--device", "cpu"]
        assert evaluate(["score", *run, "--checkpoint", f"{url}/checkpoints/fold-0", *out]) == 0
        server.shutdown()
    for name in ("model.safetensors", "config.json", "history.parquet"):
        expected = (here / "here/checkpoints/fold-0" / name).read_bytes()
        assert (tmp_path / "model" / name).read_bytes() == expected
    scores, expected = (
        pq.read_table(path)
        for path in (tmp_path / "fold-0.parquet", here / "here/scores/discrete/fold-0.parquet")
    )
    assert repr(scores.to_pylist()) == repr(expected.to_pylist())  # some values are NaN
    assert json.loads((tmp_path / "model/config.json").read_text())["thresholds"]

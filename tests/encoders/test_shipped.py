"""The small weights in the package: their size, their card, and that they are better than random ones."""

import pytest
import safetensors
import torch

from vap_pipeline.artefacts.manifest import read
from vap_pipeline.corpora.__main__ import main as vap_manifest
from vap_pipeline.encoders import cpc_weights
from vap_pipeline.pretrain import probe, speech


def test_the_file_is_small_and_the_card_names_its_sources():
    path = cpc_weights.SHIPPED["telephone-small"]
    assert path.stat().st_size < 4e6
    with safetensors.safe_open(path, "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
    encoder, described = cpc_weights.load("telephone-small")
    assert described["weights"] == "telephone-small.safetensors" and encoder.dim == 256
    card = path.with_suffix(".md").read_text()
    for words in (
        "LibriSpeech",
        "CC BY 4.0",
        "espeak-ng",
        "vap-pretrain",
        "vap-manifest clips",
        described["sha256"],
    ):
        assert words in card


@pytest.mark.slow
def test_they_are_better_than_random_weights_on_real_calls(shared, tmp_path):
    calls = shared / "two_channel_phone"
    folder = tmp_path / "phone"
    given = ["--audio", calls, "--table", calls, "--folds", 2, "--test", 1, "--out", folder]
    assert vap_manifest(["segments", *map(str, given)]) == 0
    listed = read(folder)
    stretches = speech.stretches(listed, calls, listed.select("all"), 2.0)
    learnt = cpc_weights.load("telephone-small")[0]
    random = cpc_weights.random(0, learnt.config)
    scores = probe.probe({"learnt": learnt, "random": random}, stretches, windows=12)
    for task in probe.TASKS:
        assert scores["learnt"][task] > scores["random"][task], task

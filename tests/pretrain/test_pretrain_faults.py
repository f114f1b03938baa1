"""If the loss is NaN, the message names the step and the speakers."""

import re

import numpy as np
import pytest
import soundfile
import torch

from vap_pipeline.encoders import cpc_weights
from vap_pipeline.encoders.cpc import Config
from vap_pipeline.io.errors import InputError
from vap_pipeline.pretrain.batches import WINDOW_SAMPLES, Batches
from vap_pipeline.pretrain.loop import pretrain
from vap_pipeline.pretrain.speech import Stretch
from vap_pipeline.settings.pretrain import PretrainSettings

FEW = PretrainSettings(steps=20, speakers=1, windows=2, negatives=8)


@pytest.fixture
def speech(tmp_path):
    """Make a stretch of noise of a named speaker."""

    def make(name):
        path = tmp_path / f"{name}.wav"
        noise = np.random.default_rng(0).standard_normal((32_000, 2)) * 0.1
        soundfile.write(path, noise, 16_000, subtype="FLOAT")
        return Stretch(f"calls/{name}/0", path, 0, 0.0, 2.0)

    return make


def said(speech, folder, held_back=(), config=FEW):
    encoder = cpc_weights.random(0, Config(8, 8))
    with pytest.raises(InputError) as error:
        pretrain(encoder, [speech("a")], list(held_back), config, {"corpus": "calls"}, str(folder))
    words = r"step (\d+): (.*?) is .*resume.safetensors, of step 0; .*speakers: (.*)"
    return re.search(words, str(error.value)).groups()


def test_a_nan_in_training_names_the_batchs_speakers(speech, tmp_path, monkeypatch):
    monkeypatch.setattr(Batches, "_window", lambda *_: torch.full((WINDOW_SAMPLES,), torch.nan))
    step, what, speakers = said(speech, tmp_path)
    assert (step, speakers) == ("0", "calls/a/0") and what == "the loss"


def test_a_nan_in_a_check_names_the_held_back_speakers(speech, tmp_path, monkeypatch):
    window = Batches._window

    def poisoned(self, speaker, generator):
        audio = window(self, speaker, generator)
        return audio * torch.nan if self.speakers[speaker][0].speaker == "calls/c/0" else audio

    monkeypatch.setattr(Batches, "_window", poisoned)
    held_back = [speech("b"), speech("c")]
    assert said(speech, tmp_path, held_back) == ("2", "the held-back loss", "calls/c/0")

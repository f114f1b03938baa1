"""`vap-predict - --live` as a process: audio on standard input, a line of JSON a frame on standard output."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from vap_pipeline.encoders import cpc_weights
from vap_pipeline.models import checkpoint
from vap_pipeline.models.network import ModelConfig, ProjectionModel
from vap_pipeline.predict.loading import load

RATE_HZ = 8000
SECONDS = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("model"))
    torch.manual_seed(2)
    network = ProjectionModel(ModelConfig(width=32, layers=1, heads=2, feedforward=64))
    checkpoint.save(network, {"store": {"encoder": cpc_weights.load("telephone-small")[1]}}, folder)
    return folder


def samples(channels=2):
    """Noise (n, channels) int16, the second channel silent."""
    rng = np.random.default_rng(5)
    speaker = rng.normal(0, 4000, SECONDS * RATE_HZ).clip(-32768, 32767)
    return np.stack([speaker, 0 * speaker], axis=1)[:, :channels].astype("<i2")


def wav(channels=2, subtype="PCM_16"):
    content = io.BytesIO()
    soundfile.write(content, samples(channels), RATE_HZ, subtype, format="WAV")
    return content.getvalue()


def listen(model, content, *flags):
    command = [sys.executable, "-m", "vap_pipeline.predict", model, "-", "--live", *flags]
    return subprocess.run(command, input=content, capture_output=True, timeout=120)


def lines(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def from_wav(model):
    done = listen(model, wav())
    assert done.returncode == 0 and done.stderr == b""
    return done


def test_a_line_for_each_frame(model, from_wav):
    rows = lines(from_wav)
    assert SECONDS * 100 - 8 <= len(rows) < SECONDS * 100  # the last ones wait for samples to come
    assert [row["time_s"] for row in rows] == [round(i / 100, 2) for i in range(len(rows))]
    expected = load(model).stream(RATE_HZ).push(samples())  # all in one piece
    assert rows[0].keys() == expected.keys()
    for name, column in expected.items():
        np.testing.assert_allclose([row[name] for row in rows], column[: len(rows)], atol=2e-4, err_msg=name)


def test_raw_samples_are_the_same_signal(model, from_wav):
    assert listen(model, samples().tobytes(), "--rate", "8000").stdout == from_wav.stdout


@pytest.mark.parametrize("content", [samples(1).tobytes(), wav(1)], ids=["raw", "wav"])
def test_mono_is_a_silent_other_speaker(model, from_wav, content):
    flags = () if content.startswith(b"RIFF") else ("--rate", "8000")
    assert listen(model, content, "--mono", *flags).stdout == from_wav.stdout


def test_an_end_within_a_sample_comes_after_the_frames_before_it(model, from_wav):
    done = listen(model, samples().tobytes() + b"\0", "--rate", "8000")
    assert done.returncode == 2 and done.stdout == from_wav.stdout
    assert b"ends within a sample (1 of 4 bytes); check --channels" in done.stderr


@pytest.mark.parametrize(
    ("content", "flags", "said"),
    [
        (wav(subtype="PCM_24"), (), "not 16-bit PCM; convert it"),
        (wav(subtype="FLOAT"), (), "not 16-bit PCM; convert it"),
        (wav()[:30], (), "ends within its WAV header"),
        (wav(1), (), "1 channel(s); give one for each of two speakers, or --mono"),
        (wav(), ("--rate", "16000"), "a WAV file of 8000 Hz and 2 channels; leave out --rate"),
    ],
    ids=["24 bits", "floats", "cut header", "one channel", "another rate"],
)
def test_what_is_refused_in_one_line(model, content, flags, said):
    done = listen(model, content, *flags)
    assert done.returncode == 2 and done.stdout == b""
    assert said in done.stderr.decode() and done.stderr.count(b"\n") == 1


def test_a_reader_that_goes_away_ends_it_quietly(model, tmp_path):
    path = tmp_path / "long.pcm"
    path.write_bytes(samples().tobytes() * 40)
    command = [sys.executable, "-m", "vap_pipeline.predict", model, "-", "--live", "--rate", "8000"]
    with (
        path.open("rb") as audio,
        subprocess.Popen(command, stdin=audio, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
    ):
        assert json.loads(process.stdout.readline())["time_s"] == 0
        process.stdout.close()
        process.stdout = None
        assert process.communicate(timeout=120)[1] == b""
    assert process.returncode == 141

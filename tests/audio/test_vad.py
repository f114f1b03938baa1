"""Voice activity from audio: the decisions by hand, and live as offline."""

import json

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vap_pipeline.audio.recording import open_recording
from vap_pipeline.audio.vad import (
    LiveDetector,
    Probabilities,
    VadSettings,
    decide,
    live_voice_activity_of,
    voice_activity_of,
)
from vap_pipeline.turn_taking.voice_activity import frames, voice_activity

CASES = ("MUL1423", "SNG0072", "SNG0480")


def test_decisions_by_hand():
    """Chunks last 32 ms: three silent ones are 96 ms, which is filled; four are not."""
    settings = VadSettings(threshold=0.5, min_silence_s=0.1, min_speech_s=0.1)

    def decided(text):
        active = decide(np.array([int(digit) / 10 for digit in text]), settings)
        return "".join("x" if chunk else "." for chunk in active)

    assert decided("0555550005555") == ".xxxxxxxxxxxx"
    assert decided("05555500005555") == ".xxxxx....xxxx"
    assert decided("0044445554444300000") == "......xxxxxxx......"  # holds down to 0.35
    assert decided("00055500000") == "..........."  # 96 ms of speech is too short
    assert decided("0005555") == "...xxxx" and decided("000") == "..." and decided("") == ""


@pytest.mark.parametrize("name", CASES)
def test_probabilities_are_those_of_the_library(shared, name):
    silero = pytest.importorskip("silero_vad")
    samples, rate = soundfile.read(shared / "two_channel_phone" / f"{name}.flac", dtype="float32")
    audio = torch.nn.functional.interpolate(
        torch.from_numpy(samples[None, : 20 * rate, 0])[None], scale_factor=2
    )
    audio = audio[0, 0]
    model = silero.load_silero_vad(onnx=True)
    expected = model.audio_forward(audio[None], sr=16000)[0].numpy()
    heard, parts = Probabilities(), []
    for start in range(0, len(audio), 777):
        parts.append(heard.push(audio[start : start + 777].numpy()))
    found = np.concatenate(parts)
    np.testing.assert_allclose(found, expected[: len(found)], atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_real_dialogues(shared, name):
    """What is found is speech; pauses inside utterances, which the words do not show, are missed."""
    recording = open_recording(shared / "two_channel_phone" / f"{name}.flac")
    words = json.loads((shared / "two_channel_phone" / f"{name}.json").read_text())
    n = frames(recording.duration_s)
    channel = np.array(["AB".index(word["speaker"]) for word in words])
    truth = voice_activity(channel, *(np.array([word[key] for word in words]) for key in ("start", "end")), n)
    found = voice_activity_of(recording, n)
    hits = (found & truth).sum()
    assert found.shape == (n, 2) and hits / found.sum() > 0.98 and hits / truth.sum() > 0.75


@settings(deadline=None, max_examples=10)
@given(st.lists(st.integers(0, 5000), max_size=8), st.integers(0, 3))
def test_live_does_not_depend_on_the_cut(sizes, seed):
    rng = np.random.default_rng(seed)
    signal = torch.from_numpy(rng.standard_normal((2, 20_000)).astype(np.float32)) * 0.2
    whole = LiveDetector().push(signal)
    detector, parts, start = LiveDetector(), [], 0
    for size in [*sizes, 20_000]:
        parts.append(detector.push(signal[:, start : start + size]))
        start += size
    # 39 chunks of 512 samples are complete; the middle of frame f is sample 160 f + 80.
    assert len(whole) == 125 and np.array_equal(np.concatenate(parts), whole)


def test_live_is_offline_without_smoothing(shared):
    recording = open_recording(shared / "two_channel_phone" / "SNG0072.flac")
    n = frames(recording.duration_s)
    plain = voice_activity_of(recording, n, VadSettings(min_silence_s=0, min_speech_s=0, pad_s=0))
    live = live_voice_activity_of(recording, n)
    assert np.array_equal(live[:-5], plain[:-5])

"""The mix of both channels: the published level by its definition, the robust one by what it leaves alone."""

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import InMemory, speech

from vap_pipeline.audio import level
from vap_pipeline.audio.level import gains, pieces
from vap_pipeline.audio.recording import open_recording
from vap_pipeline.encoders import cpc_weights


def by_definition(samples, rate):
    """semantics: resample; each channel by its peak if over 0.05; the mean; that by its peak if over 0.05."""
    channels = torchaudio.functional.resample(torch.from_numpy(samples.T.astype(np.float64)), rate, 16_000)
    channels = [c / c.abs().max() if c.abs().max() > 0.05 else c for c in channels]
    mixed = (channels[0] + channels[1]) / 2
    return mixed / mixed.abs().max() if mixed.abs().max() > 0.05 else mixed


@pytest.mark.parametrize("loudness", [(1, 1), (0.3, 0.02), (0.05, 0.05), (0.02, 0.02), (1, 0)])
@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_normalised_as_defined(tmp_path, loudness, rate):
    samples = (speech(24.5, rate) * loudness).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    recording = open_recording(tmp_path / "a.wav")
    out = torch.cat(list(pieces(recording, gains(recording), 2451, 2)))
    assert len(out) == 2451 * 160
    expected = by_definition(samples, rate)
    torch.testing.assert_close(out[: len(expected)].double(), expected, atol=1e-6, rtol=0)
    assert not out[len(expected) :].any()


def test_real_dialogues_are_normalised_as_defined(shared):
    for path in sorted(shared.glob("two_channel_phone/*.flac")):
        recording = open_recording(path)
        samples, rate = soundfile.read(path)
        frames = int(100 * recording.duration_s) + 1
        out = torch.cat(list(pieces(recording, gains(recording), frames, 2)))
        expected = by_definition(samples, rate)
        torch.testing.assert_close(out[: len(expected)].double(), expected, atol=1e-6, rtol=0)


def mix(recording, name="robust"):
    frames = round(100 * recording.duration_s)
    return torch.cat(list(pieces(recording, gains(recording, name), frames, 2)))


def test_the_description_of_todays_stores():
    assert level.settings("published") == {
        "sample_rate": 16_000,
        "mix": "each channel, then their mean, divided by its peak over the conversation "
        "where that exceeds 0.05",
    }
    assert level.SETTINGS == level.settings("published") != level.settings("robust")


def test_the_robust_level_by_hand():
    """Peaks of 0.4 and 0.2 with single frames above; of the mix, 0.4 / 0.8 + 0.2 / 0.4 at the same time."""
    samples = np.zeros((20 * 16_000, 2))
    samples[::80] = [0.4, 0.2]
    samples[40::80] = [-0.4, -0.2]
    samples[1000], samples[77_777, 1] = [0.9, -0.9], 0.8
    measured = gains(InMemory(samples + np.array([0.05, -0.1]), 16_000), "robust")
    np.testing.assert_allclose(measured.means, [0.05, -0.1], atol=1e-4)
    np.testing.assert_allclose(measured.gains, [1 / 0.8, 1 / 0.4], rtol=1e-3)


@settings(max_examples=25, deadline=None)
@given(
    scale=st.floats(0.004, 2),
    offsets=st.lists(st.floats(-0.05, 0.05), min_size=2, max_size=2),
    click=st.floats(-1, 1),
    at=st.integers(0, 12 * 8_000 - 1),
    channel=st.integers(0, 1),
)
def test_the_robust_mix_is_the_same_at_any_level(scale, offsets, click, at, channel):
    """Louder or softer, with an offset and a click, but for the click and what its filter spreads."""
    samples = speech(12)
    expected = mix(InMemory(samples))
    changed = samples * scale + offsets
    changed[at, channel] = click
    difference = (mix(InMemory(changed)) - expected).abs()
    difference[max(2 * at - 400, 0) : 2 * at + 400] = 0
    assert difference.max() < 0.03 * expected.abs().max()


def test_a_channel_without_speech_keeps_its_distance():
    """Noise 40 dB below the speech stays there; 20 dB below, it is a speaker."""
    samples = speech(12)
    samples[:, 1] = 0.01 * samples[:, 0]
    assert len(set(gains(InMemory(samples), "robust").gains.tolist())) == 1
    samples[:, 1] *= 10
    loud, soft = gains(InMemory(samples), "robust").gains.tolist()
    assert soft / loud == pytest.approx(10, rel=1e-3)
    assert not mix(InMemory(np.zeros((8_000, 2)))).any()


DAMAGE = {
    "an offset of 0.5 %": lambda samples: samples + 0.005,
    "an offset of 2 %": lambda samples: samples + 0.02,
    "an offset of one channel": lambda samples: samples + np.array([0, -0.02]),
    "a click": lambda samples: np.where(np.arange(len(samples))[:, None] == 99_999, [0.99, 0], samples),
    "a peak of 0.035": lambda samples: samples * 0.035 / abs(samples).max(),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_features_of_a_damaged_recording_are_those_of_the_clean_one(shared, how):
    """At least .95 frame by frame."""
    encoder, _ = cpc_weights.load("telephone-small", 0, False)
    samples = soundfile.read(shared / "two_channel_phone/SNG0072.flac", stop=30 * 8_000)[0]
    with torch.no_grad():
        clean, damaged = (
            torch.cat(list(encoder.stream(mix(InMemory(signal)).split(64_000)))).double()
            for signal in (samples, DAMAGE[how](samples))
        )
    mean, deviation = clean.mean(0), clean.std(0)
    vectors = [(features - mean) / deviation for features in (clean, damaged)]
    vectors = [vector - vector.mean(1, keepdim=True) for vector in vectors]
    correlation = torch.nn.functional.cosine_similarity(*vectors, dim=1)
    assert correlation.mean() > 0.95

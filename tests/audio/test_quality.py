"""What is said of a recording's signal, against numbers that the signal was made with."""

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import InMemory, speech

from vap_pipeline.audio.quality import measure
from vap_pipeline.audio.recording import open_recording


def said(samples):
    return measure(InMemory(samples)).warnings


def test_real_dialogues_are_fine(shared):
    for path in sorted(shared.glob("two_channel_phone/*.flac")):
        quality = measure(open_recording(path))
        assert quality.warnings == ()
        samples = soundfile.read(path)[0]
        assert [channel.offset for channel in quality.channels] == pytest.approx(samples.mean(0), abs=1e-6)
        assert quality.correlation == pytest.approx(np.corrcoef(samples.T)[0, 1], abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    scale=st.floats(0.1, 1),
    offset=st.floats(-0.05, 0.05),
    clipped=st.integers(0, 500),
    silent=st.integers(0, 1200),
)
def test_numbers_of_a_channel(scale, offset, clipped, silent):
    """12 s: 96,000 samples, 1,200 frames, of 0.2 times the scale but for what is clipped or silent."""
    samples = np.full((96_000, 2), 0.2 * scale)
    samples[::2] *= -1
    samples[: 80 * silent, 0] = 0
    samples += offset
    samples[96_000 - clipped :, 1] = -1
    first, second = measure(InMemory(samples)).channels
    assert (
        first.silent == pytest.approx(silent / 1200, abs=1e-6)
        and second.silent <= clipped // 80 / 1200 + 1e-6
    )
    assert second.clipped == pytest.approx(clipped / 96_000, abs=1e-7) and first.clipped == 0
    assert first.offset == pytest.approx(samples[:, 0].mean(), abs=1e-6)
    if silent < 1190:
        assert first.peak == pytest.approx(0.2 * scale, abs=2e-6)


def test_what_is_said():
    samples = speech(24) / 4
    assert said(samples) == ()
    assert said(samples + np.array([0, 0.005])) == ("channel 1 has a DC offset of 0.005 of full scale",)
    assert said(samples * [1, 0]) == ("channel 1 is silent",)
    assert said(samples * 0) == ("channel 0 is silent", "channel 1 is silent")
    assert said(samples[:, [0, 0]]) == ("both channels hold the same signal",)
    upside_down = samples[:, [0, 0]] * [1, -0.5]
    assert said(upside_down) == ("one channel is the other upside down (L = −R): their mix cancels out",)
    hiss = np.random.default_rng(1).standard_normal(len(samples)) * 1e-3
    assert "dB softer than the other and may hold no speech" in said(np.c_[samples[:, 0], hiss])[0]
    assert said(np.clip(samples * 20, -1, 1))[0].startswith("channel 0 is clipped (")
    quiet = said(samples * 0.04)
    assert len(quiet) == 2 and quiet[0].startswith("channel 0 is quiet (peak 0.0")


@settings(max_examples=20, deadline=None)
@given(softer_db=st.floats(3, 40), late=st.integers(-390, 390), sign=st.sampled_from([-1, 1]))
def test_crosstalk(softer_db, late, sign):
    """Speakers in turns of two seconds, each on the other's channel too, softer and up to 50 ms late."""
    samples = speech(24) / 4
    turn = np.arange(len(samples)) // 16_000 % 2
    samples *= np.c_[turn == 0, turn == 1]
    leak = sign * np.roll(samples, late, axis=0)[:, ::-1] * 10 ** (-softer_db / 20)
    quality = measure(
        InMemory(samples + leak + np.random.default_rng(2).standard_normal(samples.shape) * 1e-4)
    )
    assert quality.crosstalk > 0.9 and quality.warnings[-1].startswith(
        "crosstalk: one channel repeats the other in"
    )
    assert measure(InMemory(samples)).crosstalk == 0

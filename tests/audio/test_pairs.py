"""Two speakers from more than two channels, and from two files."""

import re

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import RATE, samples_of, speech

from vap_pipeline.audio.headers import check_two_channels
from vap_pipeline.audio.recording import check, open_recording, paths
from vap_pipeline.io.errors import InputError


def side(path, samples, rate=RATE):
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


def test_two_of_four_channels(tmp_path):
    four = np.concatenate([speech(12), speech(12, seed=1)], axis=1).astype(np.float32)
    path = side(tmp_path / "a.wav", four)
    for pick in ((0, 2), (3, 1), [2, 0]):
        np.testing.assert_array_equal(samples_of(open_recording(path, pick=pick)), four[:, list(pick)])
        assert check(path, pick) == (12.0, ())
    with pytest.raises(InputError, match="4 channels; pick those of the two speakers, as in `--pick 0,3`"):
        open_recording(path)
    for wrong in ((0, 4), (-1, 0), (1, 1), (0,), (0, 1, 2)):
        with pytest.raises(InputError, match=f"of which {','.join(map(str, wrong))} cannot be two speakers"):
            open_recording(path, pick=wrong)
    check_two_channels(path, 2, None)


@settings(max_examples=40, deadline=None)
@given(
    rates=st.lists(st.sampled_from([8_000, 11_025, 16_000, 44_100, 48_000]), min_size=2, max_size=2),
    lengths=st.lists(st.integers(1, 30_000), min_size=2, max_size=2),
    places=st.lists(st.floats(0, 1), min_size=2, max_size=2),
)
def test_two_files_are_one_recording(tmp_path_factory, rates, lengths, places):
    """Of one rate as they are, of two rates resampled as wholes; the shorter one is followed by silence."""
    folder, sides = tmp_path_factory.mktemp("a"), []
    for seed, (name, rate, length) in enumerate(zip("AB", rates, lengths, strict=True)):
        samples = np.random.default_rng(seed).standard_normal(length).astype(np.float32) / 8
        side(folder / f"{name}.wav", samples, rate)
        if rates[0] != rates[1]:
            samples = torchaudio.functional.resample(torch.from_numpy(samples), rate, 16_000).numpy()
        sides.append(samples)
    expected = np.zeros((max(map(len, sides)), 2), np.float32)
    for channel, samples in enumerate(sides):
        expected[: len(samples), channel] = samples
    recording = open_recording(paths(folder, "A.wav|B.wav"))
    assert recording.rate == (rates[0] if rates[0] == rates[1] else 16_000)
    np.testing.assert_allclose(samples_of(recording), expected, atol=1e-6)
    start, stop = sorted(round(place * len(expected)) for place in places)
    np.testing.assert_allclose(recording.read_checked(start, stop), expected[start:stop], atol=1e-6)
    said = "\n".join(recording.warnings)
    assert ("both are resampled" in said) == (rates[0] != rates[1])
    assert ("silence follows" in said) == (lengths[0] / rates[0] != lengths[1] / rates[1])
    assert check(paths(folder, "A.wav|B.wav")) == (
        max(length / rate for length, rate in zip(lengths, rates, strict=True)),
        recording.warnings,
    )


def test_what_is_said_of_two_files(tmp_path):
    a, b = (
        side(tmp_path / "a.wav", speech(12)[:, 0]),
        side(tmp_path / "b.wav", speech(13, 16_000)[:, 0], 16_000),
    )
    assert open_recording((a, b)).warnings == (
        f"{a}|{b}: 8,000 and 16,000 samples a second; both are resampled",
        f"{a}|{b}: 12.00 and 13.00 s long; silence follows the shorter one",
    )


def test_files_that_are_no_pair(tmp_path):
    mono, stereo = side(tmp_path / "mono.wav", speech(12)[:, 0]), side(tmp_path / "stereo.wav", speech(12))
    with pytest.raises(InputError, match=r"stereo\.wav: 2 channels, one of 2 files; a recording is"):
        open_recording([mono, stereo])
    with pytest.raises(InputError, match="1 channels, one of 3 files"):
        open_recording([mono, mono, mono])
    with pytest.raises(InputError, match="name the files of both speakers, or join the two sides"):
        open_recording(mono)
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'absent.wav'}: cannot be read")):
        open_recording([mono, tmp_path / "absent.wav"])


def test_a_pair_of_which_one_ends_while_it_is_read(tmp_path):
    a, b = (side(tmp_path / name, speech(30)[:, 0]) for name in ("a.wav", "b.wav"))
    recording = open_recording([a, b])
    b.write_bytes(b.read_bytes()[: 15 * RATE * 4])
    with pytest.raises(InputError, match="truncated or damaged after 10 s"):
        samples_of(recording)

"""Reading, mixing and resampling, against libsndfile, whole-signal resampling, and broken files."""

import os
import random
import threading
import time

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from made import mutate, sphere
from sounds import RATE, samples_of, speech

from vap_pipeline.audio.recording import gains, open_recording, pieces, resample
from vap_pipeline.io.errors import InputError


def g711(path, samples, coding):
    """Return the codes that libsndfile writes for samples, and the samples that it reads from them."""
    subtype = {"ulaw": "ULAW", "alaw": "ALAW"}[coding]
    soundfile.write(path, samples, RATE, subtype=subtype, format="WAV")
    content = path.read_bytes()
    codes = np.frombuffer(content[content.index(b"data") + 8 :][: samples.size], np.uint8)
    return codes.reshape(samples.shape), soundfile.read(path, dtype="float32")[0]


@pytest.mark.parametrize("coding", ["ulaw", "alaw"])
def test_mu_law_and_a_law_as_libsndfile_reads_them(tmp_path, coding):
    every_code = np.arange(256, dtype=np.uint8).repeat(2).reshape(-1, 2)
    codes, expected = g711(tmp_path / "a.wav", speech(23.3), coding)
    codes = np.concatenate([codes, every_code])
    recording = open_recording(sphere(tmp_path / "a.sph", codes, coding=coding))
    assert recording.rate == RATE and recording.duration_s == len(codes) / RATE
    np.testing.assert_array_equal(samples_of(recording)[: len(expected)], expected)
    assert len(np.unique(samples_of(recording)[-256:, 0])) == (255 if coding == "ulaw" else 256)


@pytest.mark.parametrize(
    ("order", "dtype"),
    [("01", "<i2"), ("10", ">i2")],
)
def test_pcm_of_both_byte_orders(tmp_path, order, dtype):
    expected = speech(11)
    full_scale = 2 ** (8 * np.dtype(dtype).itemsize - 1)
    path = sphere(tmp_path / "a.sph", (expected * full_scale).astype(dtype), coding="pcm", order=order)
    np.testing.assert_allclose(samples_of(open_recording(path)), expected, atol=2**-15)


@pytest.mark.parametrize(("name", "subtype"), [("a.wav", "PCM_16"), ("a.flac", "PCM_16"), ("a.wav", "FLOAT")])
def test_wav_and_flac(tmp_path, name, subtype):
    soundfile.write(tmp_path / name, speech(21), 16_000, subtype=subtype)
    np.testing.assert_allclose(samples_of(open_recording(tmp_path / name)), speech(21), atol=2**-15)


def test_real_sphere_files(shared):
    """The same speech, stored five ways; the second channel is the first upside down."""
    little = samples_of(open_recording(shared / "sphere/123_2pcle_shn.sph"))
    big = samples_of(open_recording(shared / "sphere/123_2pcbe_shn.sph"))
    np.testing.assert_array_equal(little, big)
    assert little.shape == (37_120, 2) and abs(little).max() == 2677 / 2**15  # sample_min of the header
    for name in ("123_2ulaw_shn.sph", "123_2alaw.sph"):
        companded = samples_of(open_recording(shared / "sphere" / name))
        assert np.corrcoef(companded[:, 0], little[:, 0])[0, 1] > 0.999
        np.testing.assert_allclose(companded, little, atol=abs(little).max() / 32)
    with pytest.raises(InputError, match=r"123_1ulaw_shn.sph: 1 channel, expected"):
        open_recording(shared / "sphere/123_1ulaw_shn.sph")


@settings(max_examples=40, deadline=None)
@given(
    rate=st.sampled_from([8_000, 16_000, 11_025, 12_000, 44_100, 48_000]),
    lengths=st.lists(st.integers(1, 9_000), min_size=1, max_size=6),
)
def test_resampling_in_blocks_is_resampling_whole(rate, lengths):
    signal = torch.from_numpy(speech(sum(lengths) / rate, rate).T[:, : sum(lengths)])
    blocks = signal.split([*lengths[:-1], signal.shape[1] - sum(lengths[:-1])], dim=1)
    resampled = torch.cat(list(resample(blocks, rate)), dim=1)
    expected = torchaudio.functional.resample(signal, rate, 16_000)
    torch.testing.assert_close(resampled, expected, atol=1e-9, rtol=0)


def test_pieces_end_with_the_frames_asked_for(tmp_path):
    for frames, samples in ((150, 8_000), (50, 8_000), (250, 16_001)):
        recording = open_recording(sphere(tmp_path / "a.sph", np.zeros((samples, 2), np.uint8)))
        parts = list(pieces(recording, gains(recording), frames, 1))
        assert sum(map(len, parts)) == frames * 160 and max(map(len, parts)) <= 16_000


def refused(path, said):
    with pytest.raises(InputError, match=said) as caught:
        for _ in open_recording(path).blocks():
            pass
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_files_are_named(tmp_path):
    codes = np.zeros((RATE, 2), np.uint8)
    refused(tmp_path / "absent.wav", "cannot be read")
    for name in ("a.sph", "a.wav", "a.flac"):
        (tmp_path / name).write_bytes(b"no audio" * 100)
        refused(tmp_path / name, "SPHERE" if name == "a.sph" else "cannot be read as audio")
        (tmp_path / name).write_bytes(b"")
        refused(tmp_path / name, "SPHERE" if name == "a.sph" else "cannot be read as audio")
    refused(sphere(tmp_path / "one.sph", codes[:, :1]), "1 channel,")
    refused(sphere(tmp_path / "none.sph", codes, sample_count=0), "sample_count is 0")
    refused(sphere(tmp_path / "odd.sph", codes, rate=8_001), "8001 samples a second")
    refused(sphere(tmp_path / "fast.sph", codes, rate=10**400), "samples a second; resample it")
    refused(sphere(tmp_path / "wide.sph", codes.astype("<i4"), coding="ulaw"), "samples of 4 bytes")
    for order in ("1", "shortpack-v0", "1O"):
        refused(sphere(tmp_path / "order.sph", codes.astype("<i2"), coding="pcm", order=order), "_format is")
    whole = sphere(tmp_path / "whole.sph", codes).read_bytes()
    for change, said in (
        (lambda head: head.replace(b"1024", b"1023", 1), "not a multiple of 1,024"),
        (
            lambda head: head.replace(b"end_head", b"channels_interleaved -s5 FALSE\nend_head"),
            "not interleaved",
        ),
    ):
        (tmp_path / "changed.sph").write_bytes(change(whole[:1024].rstrip()).ljust(1024) + whole[1024:])
        refused(tmp_path / "changed.sph", said)
    soundfile.write(tmp_path / "mono.wav", np.zeros(RATE), RATE)
    refused(tmp_path / "mono.wav", "1 channel,")
    (tmp_path / "wav.sph").write_bytes((tmp_path / "mono.wav").read_bytes())
    refused(tmp_path / "wav.sph", "not a NIST SPHERE file")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers(tmp_path, value):
    samples = speech(12)
    samples[11 * RATE, 1] = value
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    refused(tmp_path / "a.wav", r"NaN or infinite samples after 10 s")


def test_no_audio_file_at_all(tmp_path):
    (tmp_path / "x.raw").write_bytes(bytes(32_000))
    refused(tmp_path / "x.raw", "cannot be read as audio")
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "zeros.sph").symlink_to("/dev/zero")
    refused(tmp_path / "pipe.wav", "a pipe or a device")
    refused(tmp_path / "zeros.sph", "a pipe or a device")


@pytest.mark.parametrize("name", ["123_2alaw.sph", "123_2ulaw_shn.sph"])
def test_a_stop_is_heard_whenever_a_recording_is_read(shared, name):
    class Stop(Exception):
        pass

    asked, stop_at = [], set()

    def ask():
        asked.append(True)
        if len(asked) in stop_at:
            raise Stop

    recording = open_recording(shared / "sphere" / name, ask)
    opening = len(asked)
    gains(recording)
    assert len(asked) == opening + 2
    for last in range(1, opening + 3):
        asked.clear()
        stop_at = {last}
        with pytest.raises(Stop):
            gains(open_recording(shared / "sphere" / name, ask))


def test_a_stop_does_not_wait_for_a_decoder(shared, monkeypatch):
    class Stop(Exception):
        pass

    def ask():
        raise Stop

    over = threading.Event()
    monkeypatch.setattr("desphere.transcode_bytes", lambda content: over.wait(60))
    began = time.monotonic()
    with pytest.raises(Stop):
        open_recording(shared / "sphere/123_2pcle_shn.sph", ask)
    over.set()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("coding", "dtype", "order"), [("ulaw", "u1", "1"), ("alaw", "u1", "1"), ("pcm", "<i2", "01")]
)
def test_a_changed_sample_does_not_add_up_to_the_checksum(tmp_path, coding, dtype, order):
    codes = np.random.default_rng(0).integers(-99 if dtype == "<i2" else 0, 99, (RATE, 2)).astype(dtype)
    total = int(codes.astype(int).sum()) % 65_536
    path = sphere(tmp_path / "a.sph", codes, coding=coding, order=order, sample_checksum=total)
    np.testing.assert_equal(open_recording(path).samples, RATE)
    codes[77, 1] += 1
    refused(sphere(path, codes, coding=coding, order=order, sample_checksum=total), "damaged.*checksum")


def test_a_changed_bit_of_a_shortened_file_is_noticed(shared, tmp_path):
    """The decoder alone notices six of ten; the checksum the others, but for two that cancel out."""
    for name in ("123_2pcle_shn.sph", "123_2ulaw_shn.sph"):
        content = (shared / "sphere" / name).read_bytes()
        noticed, choose = 0, random.Random(0)
        for _ in range(40):
            changed = bytearray(content)
            changed[choose.randrange(1024, len(content) - 8)] ^= 1 << choose.randrange(8)
            (tmp_path / name).write_bytes(changed)
            try:
                open_recording(tmp_path / name)
            except InputError:
                noticed += 1
        assert noticed >= 36


def test_no_broken_file_does_more_than_raise_an_input_error(shared, tmp_path):
    """300 changed files: refused with their name in one line, or read as the header now says."""
    choose = random.Random(1)
    originals = [path.read_bytes() for path in sorted(shared.glob("sphere/*.sph"))]
    refusals = 0
    for i in range(300):
        path = tmp_path / "changed.sph"
        path.write_bytes(mutate(originals[i % len(originals)], choose))
        try:
            recording = open_recording(path)
            if recording.samples < 10**6:
                whole = torch.cat(list(pieces(recording, gains(recording), 100, 2)))
                assert whole.shape == (16_000,) and torch.isfinite(whole).all()
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refusals += 1
    assert 100 < refusals < 300

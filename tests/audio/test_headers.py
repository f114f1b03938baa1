"""Files as programs of the field leave them: every sample that is there is read, and none that is not."""

import struct
import sys

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from made import sphere
from sounds import RATE, chunk, pcm, samples_of, speech, tones, wav

from vap_pipeline.audio.headers import read_header
from vap_pipeline.audio.recording import check, open_recording
from vap_pipeline.io.errors import InputError

UNKNOWN = st.sampled_from([0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF])
SUBTYPES = st.sampled_from(["PCM_16", "PCM_24", "FLOAT", "ULAW"])
EXACT = 2**-15


def write(path, samples, rate, **kinds):
    """Write a file second by second: libsndfile's Vorbis encoder overflows the stack with more."""
    with soundfile.SoundFile(path, "w", rate, samples.shape[1], **kinds) as file:
        for start in range(0, len(samples), rate):
            file.write(samples[start : start + rate])
    return path


def same(path, expected, notes=0, atol=EXACT):
    recording = open_recording(path)
    assert recording.samples == len(expected) and len(recording.warnings) == notes
    np.testing.assert_allclose(samples_of(recording), expected, atol=atol)
    assert check(path) == (recording.duration_s, recording.warnings)
    return "".join(recording.warnings)


@settings(max_examples=30, deadline=None)
@given(
    declared=UNKNOWN, seconds=st.floats(1, 25), subtype=st.sampled_from(["PCM_16", "PCM_24", "FLOAT", "ULAW"])
)
def test_a_wav_of_unknown_length_is_read_to_its_end(tmp_path_factory, declared, seconds, subtype):
    path, samples = tmp_path_factory.mktemp("a") / "a.wav", speech(seconds)
    soundfile.write(path, samples, RATE, subtype=subtype)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", declared)
    path.write_bytes(content)
    same(path, samples, atol=1 / 32 if subtype == "ULAW" else EXACT)


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0.001, 0.99), seconds=st.floats(2, 12), seed=st.integers(0, 99))
def test_a_header_that_declares_less_than_is_there_is_not_believed(tmp_path_factory, share, seconds, seed):
    samples = speech(seconds, seed=seed)
    declared = int(share * len(samples)) // 2 * 8 + 4
    path = wav(tmp_path_factory.mktemp("a") / "a.wav", pcm(samples), declared)
    note = same(path, samples, 1)
    assert (
        f"declares {declared / 4 / RATE:.1f} s of audio, it holds {len(samples) / RATE:.1f} s; all are"
        in note
    )


@settings(max_examples=30, deadline=None)
@given(missing=st.integers(1, 90_000), magic=st.sampled_from(["RIFF", "RIFX", "RF64"]))
def test_a_wav_that_ends_early_is_read_as_far_as_it_goes(tmp_path_factory, missing, magic):
    path, samples = tmp_path_factory.mktemp("a") / "a.wav", speech(3)
    endian, kind = ("BIG", "WAV") if magic == "RIFX" else ("FILE", "RF64" if magic == "RF64" else "WAV")
    soundfile.write(path, samples, RATE, "PCM_16", endian, kind)
    whole = path.read_bytes()
    assert whole[:4] == magic.encode()
    path.write_bytes(whole[:-missing])
    note = same(path, samples[: (len(samples) * 4 - missing) // 4], 1)
    assert f"{path}: truncated: its header declares 3.0 s of audio, it holds" in note


@settings(max_examples=40, deadline=None)
@given(
    before=st.lists(st.binary(max_size=9), max_size=3),
    after=st.lists(st.binary(max_size=9), max_size=3),
    pad=st.booleans(),
    odd=st.booleans(),
)
def test_chunks_around_the_samples_are_no_samples(tmp_path_factory, before, after, pad, odd):
    path, codes = tmp_path_factory.mktemp("a") / "a.wav", np.arange(2 * (RATE + odd), dtype=np.uint8)
    codes = codes[: codes.size - odd]  # an odd number of bytes, of one channel
    format_ = struct.pack("<HHIIHH", 7, 1, RATE, RATE, 1, 8)
    parts = [chunk(b"junk", content, pad=pad) for content in before]
    parts += [chunk(b"fmt ", format_), chunk(b"data", codes.tobytes(), pad=pad)]
    parts += [chunk(b"LIST", content, pad=pad) for content in after]
    body = b"WAVE" + b"".join(parts)
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    header = read_header(path)
    assert (header.channels, header.rate, header.samples, header.notes) == (1, RATE, codes.size, ())
    decoded = soundfile.read(header.open())[0]
    expected = soundfile.read(wav_of_codes(path.with_name("b.wav"), codes))[0]
    np.testing.assert_array_equal(decoded, expected)


def wav_of_codes(path, codes):
    """A plain mu-law file."""
    body = (
        b"WAVE"
        + chunk(b"fmt ", struct.pack("<HHIIHH", 7, 1, RATE, RATE, 1, 8))
        + chunk(b"data", codes.tobytes())
    )
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


@pytest.mark.parametrize("magic", [b"BW64", b"RF64"])
@pytest.mark.parametrize("long", ["right", 0, 2**64 - 1])
def test_bw64_and_rf64(tmp_path, magic, long):
    samples = speech(12)
    size = 4 * len(samples) if long == "right" else long
    before = chunk(b"ds64", struct.pack("<QQQI", 72, size, len(samples), 0))
    same(wav(tmp_path / "a.wav", pcm(samples), 0xFFFFFFFF, magic, before), samples)


def test_a_size_modulo_4_gib(tmp_path):
    """The file has a hole of 4 GiB, which takes no room on the disk."""
    path, rate, end = tmp_path / "a.wav", 48_000, speech(2, 48_000)
    size = 2**32 + 4 * len(end)
    wav(path, b"", size % 2**32, rate=rate)
    with path.open("r+b") as file:
        file.seek(2**32, 2)
        file.write(pcm(end))
    recording = open_recording(path)
    assert recording.samples == size // 4
    assert "declares 2.0 s of audio, it holds 22371.6 s; all are read" in recording.warnings[0]
    np.testing.assert_allclose(recording.read(size // 4 - len(end), size // 4), end, atol=EXACT)


def test_a_wav_without_samples(tmp_path):
    for content, said in ((b"", "no audio"), (b"RIFF\4\0\0\0WAVE", "a WAV file without samples")):
        path = wav(tmp_path / "a.wav", b"")
        path.write_bytes(content or path.read_bytes())
        with pytest.raises(InputError, match=said):
            read_header(path)


def without_total(content):
    """A FLAC file whose header does not say how many samples it has, as an encoder leaves it in a pipe."""
    return content[:21] + bytes([content[21] & 0xF0]) + bytes(4) + content[26:]


def test_a_flac_of_unknown_length_and_one_that_ends_early(tmp_path):
    path, samples = tmp_path / "a.flac", speech(30)
    soundfile.write(path, samples, RATE)
    whole = path.read_bytes()
    path.write_bytes(without_total(whole))
    same(path, samples)
    path.write_bytes(whole[: len(whole) // 2])
    recording = open_recording(path)
    assert 12 < recording.duration_s < 18
    assert "truncated: its header declares 30.0 s of audio" in recording.warnings[0]
    np.testing.assert_allclose(samples_of(recording), samples[: recording.samples], atol=EXACT)
    path.write_bytes(without_total(whole[: len(whole) // 2]))
    assert open_recording(path).samples == recording.samples


@pytest.mark.parametrize(
    ("name", "rate", "kinds"),
    [
        ("a.mp3", RATE, {"format": "MP3", "subtype": "MPEG_LAYER_III"}),
        ("a.ogg", RATE, {"format": "OGG", "subtype": "VORBIS"}),
        ("a.opus", 48_000, {"format": "OGG", "subtype": "OPUS"}),
        ("a.aiff", RATE, {}),
    ],
)
def test_compressed_files(tmp_path, name, rate, kinds):
    samples = tones(25, rate)
    recording = open_recording(write(tmp_path / name, samples, rate, **kinds))
    assert (recording.rate, recording.samples, recording.warnings) == (rate, 25 * rate, ())
    decoded = samples_of(recording)
    for channel in (0, 1):
        assert np.corrcoef(decoded[:, channel], samples[:, channel])[0, 1] > 0.99
    np.testing.assert_allclose(
        recording.read(13 * rate + 7, 14 * rate), decoded[13 * rate + 7 : 14 * rate], atol=1e-6
    )


def test_an_mp3_that_ends_early(tmp_path):
    path = write(tmp_path / "a.mp3", tones(30), RATE, format="MP3", subtype="MPEG_LAYER_III")
    whole, content = samples_of(open_recording(path)), path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    recording = open_recording(path)
    assert 14 < recording.duration_s < 16 and "truncated: its header declares 30.0 s" in recording.warnings[0]
    np.testing.assert_allclose(samples_of(recording)[:-2000], whole[: recording.samples - 2000], atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("tag", [b"", b"ID3\x04\0\0\0\0\x02\x01" + bytes(257)])
def test_an_mp3_that_does_not_say_its_length(tmp_path, rate, channels, tag):
    """Soft noise first: at the bit rate of the first frames, the file would be shorter than it is."""
    samples = np.random.default_rng(0).standard_normal((40 * rate, channels)) * 0.1
    samples[: 20 * rate] *= 1e-3
    kinds = {
        "format": "MP3",
        "subtype": "MPEG_LAYER_III",
        "bitrate_mode": "VARIABLE",
        "compression_level": 0.3,
    }
    path = write(tmp_path / "a.mp3", samples, rate, **kinds)
    content = path.read_bytes()
    first = content.index(content[:2], 4)  # the frame after the one with the length
    assert b"Xing" in content[:first]
    path.write_bytes(tag + content[first:])
    header = read_header(path)
    assert abs(header.samples - 40 * rate) < 2500 and header.rate == rate and header.channels == channels
    assert header.notes == ()


@pytest.mark.parametrize("name", ["ulaw", "mu-law", "mulaw", "MULAW", "pculaw"])
def test_names_of_mu_law_in_sphere_files(tmp_path, name):
    codes = np.random.default_rng(0).integers(0, 256, (RATE, 2), np.uint8)
    expected = samples_of(open_recording(sphere(tmp_path / "a.sph", codes)))
    np.testing.assert_array_equal(
        samples_of(open_recording(sphere(tmp_path / "b.sph", codes, coding=name))), expected
    )


def test_sphere_files_whose_header_does_not_fit(tmp_path):
    codes = np.random.default_rng(0).integers(0, 256, (RATE, 2), np.uint8)
    path = sphere(tmp_path / "a.sph", codes)
    whole, expected = path.read_bytes(), samples_of(open_recording(path))
    path.write_bytes(whole.replace(b"sample_count", b"sample_kount"))
    same(path, expected)
    assert "declares 8,001 samples, it holds 8,000; copy" in same(
        sphere(path, codes, sample_count=8001), expected, 1
    )
    path = sphere(path, codes, sample_count=4000, sample_checksum=int(codes[:4000].sum()) % 65_536)
    assert "declares 4,000 samples, it holds 8,000; the rest is not read" in same(path, expected[:4000], 1)


def m4a(path, samples, rate):
    av = pytest.importorskip("av", reason="needs PyAV, of the extra [formats]")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate, layout="stereo")
        for start in range(0, len(samples), 1024):
            block = np.ascontiguousarray(samples[start : start + 1024].T, np.float32)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("suffix", [".m4a", ".mp4", ".aac"])
def test_aac(tmp_path, suffix):
    samples = tones(25, 16_000)
    recording = open_recording(m4a(tmp_path / f"a{suffix}", samples, 16_000))
    decoded = samples_of(recording)
    assert recording.rate == 16_000 and 0 <= len(decoded) - len(samples) < 3 * 1024
    delay = 1024 if suffix == ".aac" else 0  # raw AAC does not say how much of its start is the encoder's
    for channel in (0, 1):
        pair = decoded[delay:, channel][: len(samples) - 1024], samples[: len(samples) - 1024, channel]
        assert np.corrcoef(*pair)[0, 1] > 0.99
    for start, stop in ((16_000, 40_000), (40_000, 41_000), (300_007, 310_000), (0, 5)):
        np.testing.assert_allclose(recording.read(start, stop), decoded[start:stop], atol=1e-5)


def test_m4a_without_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    with pytest.raises(InputError, match=r"reading \.m4a files needs PyAV; run `pip install 'vap-pipeline"):
        read_header(tmp_path / "a.m4a")

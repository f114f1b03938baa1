"""Voice activity from audio: against silero-vad's own program, utterance times, and rules by hand."""

import json
import sys
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import InMemory

from vap_pipeline.audio import vad
from vap_pipeline.audio.recording import open_recording
from vap_pipeline.audio.vad import LiveActivity, Stream, VadSettings, probabilities, segments, voice_activity
from vap_pipeline.io.errors import InputError
from vap_pipeline.turn_taking.voice_activity import frames
from vap_pipeline.turn_taking.voice_activity import voice_activity as on_frames

pytest.importorskip("silero_vad", reason="needs silero-vad, of the extra [vad]")
pytest.importorskip("onnxruntime", reason="needs onnxruntime, of the extra [vad]")


@pytest.fixture(scope="module")
def dialogue(shared):
    """Twenty seconds of a real dialogue, (samples, 2) at 8 kHz."""
    return soundfile.read(shared / "two_channel_phone/SNG0480.flac", stop=20 * 8_000, dtype="float32")[0]


def at_16_khz(samples):
    return torchaudio.functional.resample(torch.from_numpy(samples.T.copy()), 8_000, 16_000).numpy()


def test_the_numbers_of_silero_s_own_program(dialogue):
    import silero_vad

    model = silero_vad.load_silero_vad(onnx=True)
    expected = model.audio_forward(torch.from_numpy(at_16_khz(dialogue)), 16_000).numpy()
    np.testing.assert_allclose(probabilities(InMemory(dialogue)), expected, atol=1e-5)
    assert 0.3 < (expected > 0.5).mean() < 0.9


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(0, 3000), min_size=1, max_size=60))
def test_a_stream_in_pieces_has_the_numbers_of_a_recording(dialogue, lengths):
    whole = at_16_khz(dialogue[:48_000])
    stops = np.minimum(np.cumsum([*lengths, whole.shape[1]]), whole.shape[1])
    stream = Stream(2, crosstalk_db=10)
    parts = [stream(piece) for piece in np.split(whole, stops, axis=1)]
    streamed = np.concatenate([*parts, stream.finish()], axis=1)
    np.testing.assert_array_equal(streamed, probabilities(InMemory(dialogue[:48_000]), 10))
    assert streamed.shape == (2, 188)  # 96,000 / 512 = 187.5


def truth(path, n_frames):
    """Voice activity of a dialogue's utterances, whose words are at most 0.05 s apart."""
    rows = json.loads(path.read_text())
    spoken = [("AB".index(row["speaker"]), row["start"], row["end"]) for row in rows]
    for speaker in (0, 1):
        words = [row for row in spoken if row[0] == speaker]
        for (_, _, end), (_, start, _) in pairwise(words):
            if 0 < start - end <= 0.05:
                spoken.append((speaker, end, start))
    channel, start_s, end_s = map(np.array, zip(*spoken, strict=True))
    return on_frames(channel, start_s, end_s, n_frames)


def test_real_dialogues(shared):
    """Against the utterance times: they start some 0.35 s before the sound and end 0.25 s after it."""
    counts = np.zeros((2, 2), int)
    for path in sorted(shared.glob("two_channel_phone/*.flac")):
        recording = open_recording(path)
        n_frames = frames(recording.duration_s)
        activity, labels = (
            on_frames(*voice_activity(recording), n_frames),
            truth(path.with_suffix(".json"), n_frames),
        )
        np.add.at(counts, (labels, activity), 1)
    precision, recall = counts[1, 1] / counts[:, 1].sum(), counts[1, 1] / counts[1].sum()
    assert precision > 0.99 and 2 * precision * recall / (precision + recall) == pytest.approx(
        0.887, abs=0.01
    )


@pytest.mark.parametrize("leak_db", [15, 25, 35])
def test_crosstalk_is_not_speech(dialogue, leak_db):
    """Each channel repeated 8 ms late on the other: twice the speech without the rule, the same with it."""
    leak = np.roll(dialogue, 64, axis=0)[:, ::-1] * np.float32(10 ** (-leak_db / 20))

    def activity(samples, crosstalk_db=None):
        recording = InMemory(samples)
        return on_frames(*voice_activity(recording, VadSettings(crosstalk_db=crosstalk_db)), 2001).astype(
            bool
        )

    clean, leaked, kept = activity(dialogue), activity(dialogue + leak), activity(dialogue + leak, 10)
    assert (leaked & ~clean).sum() > 4 * (kept & ~clean).sum()
    assert (kept == clean).mean() > 0.97


def test_segments_by_hand():
    """Frames of 32 ms. The pause of 2 frames (64 ms) is bridged, that of 6 stays; 2 frames are no speech."""
    lengths = [10, 10, 2, 5, 6, 20, 9, 2, 9]
    spoken = np.repeat(np.array([0, 0.9, 0.1, 0.6, 0.1, 0.9, 0, 0.9, 0], np.float32), lengths)
    frame_s, bare = 0.032, VadSettings(pad_s=0)
    found = segments(spoken, bare)
    np.testing.assert_allclose(found, frame_s * np.array([[10, 27], [33, 53]]), atol=1e-9)
    padded = segments(spoken, VadSettings())
    np.testing.assert_allclose(padded, np.array(found) + np.array([-0.03, 0.03]), atol=1e-9)
    found = segments(spoken, VadSettings(min_speech_s=0.05, min_silence_s=0, pad_s=0))
    np.testing.assert_allclose(found, frame_s * np.array([[10, 20], [22, 27], [33, 53], [62, 64]]), atol=1e-9)
    assert segments(np.array([0.4] * 50, np.float32), bare) == []
    assert len(segments(np.array([0.4] * 50, np.float32), VadSettings(threshold=0.4))) == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=300))
def test_segments_are_sorted_and_apart(values):
    chosen = VadSettings()
    found = np.array(segments(np.array(values, np.float32), chosen)).reshape(-1, 2)
    times = found.ravel()
    assert (np.diff(times) >= 0).all() and (times >= 0).all() and (times <= len(values) * 0.032).all()
    assert (found[:, 1] - found[:, 0] > chosen.min_speech_s).all()
    assert (found[1:, 0] - found[:-1, 1] >= chosen.min_silence_s - 2 * chosen.pad_s - 1e-9).all()


def test_a_gap_of_a_fifth_of_a_second_stays():
    for gap in (6, 7):  # frames within a gap of 0.2 s or more
        assert len(segments(np.array([0.9] * 30 + [0.05] * gap + [0.9] * 30, np.float32), VadSettings())) == 2


def test_live_activity(dialogue):
    """Speech from 0.5 on until below 0.35."""
    whole, live = at_16_khz(dialogue), LiveActivity()
    activity = np.concatenate(
        [live(whole[:, start : start + 320]) for start in range(0, whole.shape[1], 320)]
    )
    expected, speaking = probabilities(InMemory(dialogue))[:, : len(activity)], np.zeros(2, bool)
    for probability, active in zip(expected.T, activity, strict=True):
        speaking = np.where(speaking, probability >= 0.35, probability >= 0.5)
        np.testing.assert_array_equal(active, speaking)
    assert activity.shape == (625, 2) and 0.2 < activity.mean() < 0.9


def test_the_number_of_threads_stays(dialogue):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    vad._silero.cache_clear()
    for name in [name for name in sys.modules if name.startswith("silero_vad")]:
        del sys.modules[name]
    channel, start_s, end_s = voice_activity(InMemory(dialogue))
    assert torch.get_num_threads() == 2 and len(channel) == len(start_s) == len(end_s) > 4
    torch.set_num_threads(before)


@pytest.mark.parametrize("missing", ["onnxruntime", "silero_vad"])
def test_without_silero_vad(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    for part in (vad._silero, vad._session):
        part.cache_clear()
    with pytest.raises(InputError, match=r"needs silero-vad; run `pip install 'vap-pipeline\[vad\]'`"):
        voice_activity(InMemory(np.zeros((16_000, 2))))
    for part in (vad._silero, vad._session):
        part.cache_clear()

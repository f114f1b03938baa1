import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy import signal
from torch import Tensor

from vap_pipeline.encoders import cpc_weights
from vap_pipeline.encoders.cpc import Config
from vap_pipeline.io.errors import InputError
from vap_pipeline.pretrain import pitch, probe, probe_phones
from vap_pipeline.pretrain.speech import Stretch

RATE = 16_000
TELEPHONE = signal.butter(4, (300, 3400), "bandpass", fs=RATE, output="sos")
SECONDS = 14


def pulses(hertz: np.ndarray) -> np.ndarray:
    """A pulse in every period of ``hertz`` (samples,)."""
    phase = np.cumsum(hertz / RATE)
    return np.diff(np.floor(phase), prepend=0)


def as_audio(samples: np.ndarray) -> Tensor:
    return torch.from_numpy((samples / np.abs(samples).max()).astype(np.float32))[None]


@pytest.mark.parametrize("hertz", [63, 80, 100, 147, 210, 290, 390])
@pytest.mark.parametrize("telephone", [False, True])
def test_the_pitch_of_a_pulse_train(hertz: float, telephone: bool) -> None:
    train = signal.lfilter([1], [1, -0.9], pulses(np.full(RATE, hertz)))
    audio = as_audio(signal.sosfilt(TELEPHONE, train) if telephone else train)
    values = pitch.log_f0(audio)[0]
    assert values.shape == (100,)
    assert (values[5:-5].exp() / hertz - 1).abs().max() < 0.02


def test_the_pitch_of_a_glide() -> None:
    hertz = np.geomspace(110, 220, 2 * RATE)
    values = pitch.log_f0(as_audio(signal.sosfilt(TELEPHONE, pulses(hertz))))[0]
    expected = torch.from_numpy(hertz[80::160]).log()
    assert (values - expected)[5:-5].abs().max() < 0.03


def test_no_pitch_where_there_is_no_voice() -> None:
    noise = np.random.default_rng(0).standard_normal(2 * RATE)
    assert pitch.log_f0(as_audio(noise)).isnan().float().mean() > 0.97
    assert pitch.log_f0(torch.zeros(1, RATE)).isnan().all()


def test_the_energy_of_a_sine() -> None:
    audio = 0.3 * torch.sin(2 * math.pi * 200 * torch.arange(RATE) / RATE)[None]
    values = pitch.log_energy(audio)
    assert values.shape == (1, 100)
    torch.testing.assert_close(values[0, 2:-2], torch.full((96,), math.log(0.3**2 / 2)), atol=1e-3, rtol=0)


def test_mel_bands_rise_with_pitch() -> None:
    time = torch.arange(RATE) / RATE
    tones = torch.stack([torch.sin(2 * math.pi * hertz * time) for hertz in (300, 800, 2000, 3400)])
    values = pitch.log_mel(tones)
    assert values.shape == (4, 100, 80)
    loudest = values[:, 2:-2].argmax(-1)
    assert (loudest == loudest[:, :1]).all() and (loudest[:, 0].diff() > 5).all()


def test_frames_are_centred_as_those_of_the_encoder() -> None:
    """An encoder's frame sees 465 samples, the last of them 311 after its place."""
    audio = torch.randn(1, 20 * 160, generator=torch.Generator().manual_seed(0), requires_grad=True)
    encoder = cpc_weights.random(0, Config(hiddenEncoder=8, hiddenGar=8))
    encoder(audio)[0, 10].sum().backward()
    last = int(audio.grad.nonzero()[-1, 1])
    assert last == 10 * 160 + 311
    impulse = torch.zeros(1, 20 * 160)
    impulse[0, round(last - 464 / 2)] = 1
    for measure in (pitch.log_energy(impulse), pitch.log_mel(impulse).sum(-1)):
        heard = (measure[0] > measure.min()).nonzero()[:, 0]
        assert heard.float().mean() == 10 and len(heard) <= 3


@pytest.fixture(scope="module")
def stretches(tmp_path_factory: pytest.TempPathFactory) -> list[Stretch]:
    """Four speakers, two a file: buzzes and hisses of different pitch and colour, loud and soft by turns."""
    folder, rng, made = tmp_path_factory.mktemp("speech"), np.random.default_rng(0), []
    time = np.arange(SECONDS * RATE) / RATE
    for file in range(2):
        channels = []
        for channel in range(2):
            k = 2 * file + channel
            hertz = (110 + 35 * channel) * np.exp(0.3 * np.sin(time * (2 + 0.3 * k)))
            buzz = signal.lfilter([1], [1, -0.9], pulses(hertz)) * 3
            hiss = rng.standard_normal(len(time)) * 0.5
            voiced = signal.square(2 * np.pi * 1.7 * time, 0.6) > 0
            loud = np.exp(0.8 * np.sin(2 * np.pi * 0.9 * time + k))
            colour = signal.iirpeak(700 + 500 * k, 3, fs=RATE)
            sound = np.where(voiced, buzz, hiss) * loud
            channels.append(sound + 2 * signal.lfilter(*colour, sound))
        sound = np.stack(channels, axis=1)
        path = folder / f"c{file}.wav"
        soundfile.write(path, 0.5 * sound / np.abs(sound).max(), RATE)
        for channel in range(2):
            speaker = f"c{file}/{channel}"
            made += [Stretch(speaker, path, channel, a, a + 4.5) for a in (0.0, 4.7, 9.4)]
    return made


def answers(audio: Tensor) -> Tensor:
    """Pitch, energy and voicing themselves, as features."""
    hertz = pitch.log_f0(audio)
    return torch.stack([hertz.nan_to_num(5.0), pitch.log_energy(audio), hertz.isnan().float()], dim=-1)


class Noise:
    """Features that have nothing to do with the audio."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, audio: Tensor) -> Tensor:
        return torch.randn(len(audio), audio.shape[1] // 160, 8, generator=self.generator)


@pytest.fixture(scope="module")
def scores(stretches: list[Stretch]) -> Iterator[probe.Scores]:
    yield probe.probe({"answers": answers, "noise": Noise(), "log-mel": pitch.log_mel}, stretches)


def test_the_order_of_encoders_and_tasks(scores: probe.Scores) -> None:
    assert list(scores) == ["answers", "noise", "log-mel"]
    assert all(tuple(values) == probe.TASKS for values in scores.values())


def test_features_that_are_the_answer_score_one(scores: probe.Scores) -> None:
    values = scores["answers"]
    assert values["f0"] > 0.999 and values["energy"] > 0.999 and values["voicing"] > 0.999


def test_features_of_noise_score_as_chance(scores: probe.Scores) -> None:
    values = scores["noise"]
    assert abs(values["f0"]) < 0.1 and abs(values["energy"]) < 0.1
    assert 0.4 < values["voicing"] < 0.75  # what is most common, the hiss or the buzz
    assert values["speaker"] < 0.5  # of four
    assert values["phone"] < 0.15  # of about 40


def test_log_mel_features_score_in_between(scores: probe.Scores) -> None:
    values = scores["log-mel"]
    assert values["speaker"] > 0.9
    assert 0.35 < values["phone"] < 0.9
    assert 0.5 < values["energy"] < 0.999


def test_the_same_seed_gives_the_same_scores(stretches: list[Stretch], scores: probe.Scores) -> None:
    probe_phones.phones.cache_clear()
    assert probe.probe({"answers": answers, "noise": Noise()}, stretches, seed=0) == {
        name: scores[name] for name in ("answers", "noise")
    }
    others = [probe.probe({"noise": Noise()}, stretches, seed=seed)["noise"] for seed in range(1, 7)]
    assert any(other["f0"] != scores["noise"]["f0"] for other in others)  # of two ways to halve four speakers


def test_the_table() -> None:
    scores = {name: dict.fromkeys(probe.TASKS, i / 7) for i, name in enumerate(("random", "log-mel"))}
    assert probe.table(scores) == (
        "| encoder | f0 | energy | voicing | speaker | phone |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| random | 0.000 | 0.000 | 0.000 | 0.000 | 0.000 |\n"
        "| log-mel | 0.143 | 0.143 | 0.143 | 0.143 | 0.143 |\n"
    )


def test_too_little_speech_is_refused(stretches: list[Stretch]) -> None:
    three = [s for s in stretches if s.speaker != "c1/1"]
    with pytest.raises(InputError, match="3 speakers with 8 s of speech"):
        probe.probe({}, three)
    short = [Stretch(s.speaker, s.audio, s.channel, s.start_s, s.start_s + 1.9) for s in stretches]
    with pytest.raises(InputError, match="0 speakers"):
        probe.probe({}, short)


def test_speech_without_voiced_frames_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (9 * RATE, 2))
    for i in range(2):
        soundfile.write(tmp_path / f"{i}.wav", noise, RATE)
    hisses = [Stretch(f"{i}/{c}", tmp_path / f"{i}.wav", c, 0, 9) for i in range(2) for c in range(2)]
    with pytest.raises(InputError, match="have no voiced speech"):
        probe.probe({}, hisses)


def test_features_that_are_nan_or_of_the_wrong_shape(stretches: list[Stretch]) -> None:
    with pytest.raises(InputError, match="encoder broken: its features are NaN"):
        probe.probe({"broken": lambda audio: pitch.log_mel(audio) / 0 * 0}, stretches)
    with pytest.raises(ValueError, match="encoder short returns"):
        probe.probe({"short": lambda audio: pitch.log_mel(audio)[:, ::2]}, stretches)


def test_no_speaker_voice_or_sentence_is_on_both_sides() -> None:
    speaker = torch.arange(7).repeat_interleave(5)
    hertz = torch.linspace(4.5, 5.5, 35)[torch.randperm(35, generator=torch.Generator().manual_seed(0)), None]
    for seed in range(5):
        half = probe._half(speaker, hertz, np.random.default_rng(seed))
        assert all(len(half[speaker == number].unique()) == 1 for number in range(7))
        assert sorted(np.bincount(half[::5])) == [3, 4]
    assert not set(probe_phones.TRAINING_VOICES) & set(probe_phones.TEST_VOICES)
    sentences = [text.split(". ") for text in (probe_phones.TRAINING_TEXT, probe_phones.TEST_TEXT)]
    assert [len(part) for part in sentences] == [12, 8] and not set(sentences[0]) & set(sentences[1])


def test_the_phone_probe_is_scored_on_the_test_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [
        probe_phones.Phones(torch.full((2, 32_000), level), torch.zeros(2, 200).long())
        for level in (1.0, 2.0)
    ]
    seen = []

    def predict(_: object, x: Tensor, y: Tensor, others: Tensor) -> np.ndarray:
        seen.append((float(x.mean()), float(others.mean())))
        return np.zeros(len(others))

    monkeypatch.setattr(probe, "_predict", predict)
    probe._phone("levels", lambda audio: audio[:, ::160, None], *parts)
    assert seen == [(1.0, 2.0)]

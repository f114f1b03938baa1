"""Spoken transcripts: the files' format, words in their places, cues before shifts and holds, restarts."""

import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy_switchboard import transcripts

from vap_pipeline.audio.sphere import read_header
from vap_pipeline.corpora import render, sample, switchboard
from vap_pipeline.corpora.render import Token, Unit, Voice
from vap_pipeline.io.errors import InputError

PATHS = {  # a disc takes ten numbers, and there are four
    "sw2001": "swb1_d1/data/sw02001.sph",
    "sw2002": "swb1_d1/data/sw02002.sph",
    "sw2019": "swb1_d2/data/sw02019.sph",
}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three conversations of half a minute: 2001, 2002 and 2019."""
    folder = tmp_path_factory.mktemp("simulated") / "transcripts"
    sample.simulate(folder, conversations=3, minutes=0.5, seed=3)
    for path in sorted((folder / "20" / "2003").iterdir()):
        moved = folder / "20" / "2019" / path.name.replace("2003", "2019")
        moved.parent.mkdir(exist_ok=True)
        moved.write_text(path.read_text().replace("sw2003", "sw2019"))
        path.unlink()
    return folder


@pytest.fixture(scope="module")
def spoken(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spoken")
    render.render(simulated, folder, seed=5)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def energy(audio: np.ndarray) -> np.ndarray:
    """Decibels below full scale of each 10 ms."""
    return 10 * np.log10((audio[: len(audio) // 80 * 80].reshape(-1, 80) ** 2).mean(axis=1) + 1e-9)


def loud_in_words_only(audio: np.ndarray, tokens: list[list[Token]]) -> None:
    for channel in range(2):
        level = energy(audio[:, channel])
        talk, other = np.zeros(len(level), bool), np.zeros(len(level), bool)
        for start, end, text in tokens[channel]:
            place = slice(int(100 * start), int(100 * end) + 1)
            if text not in switchboard.NOT_SPEECH:
                talk[place] = True
            elif text != "[silence]":
                other[place] = True
        # Stops and the space between syllables are silent also in speech.
        assert (level[talk] > -48).mean() > 0.8
        assert (level[~talk & ~other] < -48).mean() > 0.98


def pitch(audio: np.ndarray) -> float:
    """Median fundamental frequency of the voiced frames, by autocorrelation; NaN where nothing is voiced."""
    found = []
    for start in range(0, len(audio) - 400, 80):
        frame = audio[start : start + 400] * np.hanning(400)
        both_ways = np.correlate(frame, frame, "full")[399:]
        window = np.correlate(np.hanning(400), np.hanning(400), "full")[399:]
        lags = np.arange(20, 120)  # 400 to 67 Hz
        strength = both_ways[lags] / window[lags] * window[0] / (both_ways[0] + 1e-12)
        if frame.std() > 1e-3 and strength.max() > 0.6:
            first = int(np.argmax(strength > 0.9 * strength.max()))
            found.append(8000 / lags[first + int(np.argmax(strength[first : first + 5]))])
    return float(np.median(found)) if found else float("nan")


def test_files_are_those_of_the_discs(simulated: Path, spoken: Path) -> None:
    assert sorted(files(spoken)) == sorted(PATHS.values())
    for path in PATHS.values():
        info = soundfile.info(spoken / path)
        assert (info.format, info.subtype) == ("NIST", "ULAW")
        assert (info.channels, info.samplerate, info.frames) == (2, 8000, 30 * 8000)
        header = read_header(spoken / path)
        assert (header.coding, header.channels, header.frames, header.size) == ("ulaw", 2, 240000, 1024)


def test_each_word_sounds_in_its_own_time(simulated: Path, spoken: Path) -> None:
    for name, sides in switchboard.find(simulated).items():
        audio, _ = soundfile.read(spoken / PATHS[name])
        loud_in_words_only(audio, render.read_tokens(name, sides))


def test_bytes_depend_on_transcript_and_seed_alone(simulated: Path, spoken: Path, tmp_path: Path) -> None:
    render.render(simulated, tmp_path / "one", seed=5, jobs=1)
    assert files(tmp_path / "one") == files(spoken)
    render.render(simulated / "20" / "2001", tmp_path / "other", seed=6)
    assert files(tmp_path / "other")[PATHS["sw2001"]] != files(spoken)[PATHS["sw2001"]]


def test_only_what_changed_is_spoken_again(simulated: Path, tmp_path: Path) -> None:
    words, audio = tmp_path / "words", tmp_path / "audio"
    for name, text in files(simulated).items():
        (words / name).parent.mkdir(parents=True, exist_ok=True)
        (words / name).write_bytes(text)
    render.render(words, audio)
    before = {path: (audio / path).stat().st_mtime_ns for path in PATHS.values()}

    foreign = audio / "swb1_d1/data/sw04000.sph"  # of the user, who has no transcript for it
    soundfile.write(foreign, np.zeros((8000, 2)), 8000, format="NIST", subtype="ULAW")
    changed = words / "20/2001/sw2001A-ms98-a-word.text"
    lines = changed.read_text().splitlines(keepends=True)
    spoken_line = next(i for i, line in enumerate(lines) if not line.endswith("]\n"))
    lines[spoken_line] = " ".join([*lines[spoken_line].split()[:3], "umbrella"]) + "\n"
    changed.write_text("".join(lines))
    for path in (words / "20/2002").iterdir():
        path.unlink()
    render.render(words, audio)
    assert not (audio / PATHS["sw2002"]).exists()
    assert foreign.exists()
    assert (audio / PATHS["sw2001"]).stat().st_mtime_ns > before[PATHS["sw2001"]]
    assert (audio / PATHS["sw2019"]).stat().st_mtime_ns == before[PATHS["sw2019"]]


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_and_started_again(simulated: Path, spoken: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from vap_pipeline.corpora.render import render\n"
        "render(Path(sys.argv[1]), Path(sys.argv[2]), seed=5, jobs=1)"
    )
    run = subprocess.Popen([sys.executable, "-c", program, simulated, tmp_path])
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("sw*.sph")) and time.monotonic() < deadline:
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    run.wait()
    left = files(tmp_path)
    assert 0 < len([name for name in left if name.endswith(".sph")]) < 3
    assert all(left[name] == files(spoken)[name] for name in left if name.endswith(".sph"))
    time.sleep(0.5)
    assert files(tmp_path).keys() <= left.keys()  # nobody goes on alone

    (tmp_path / "swb1_d1/data/.sw02002.sph.99.partial").write_bytes(b"half")
    render.render(simulated, tmp_path, seed=5)
    assert files(tmp_path) == files(spoken)


def test_real_conversation(shared: Path, tmp_path: Path) -> None:
    """The first half minute of the release's first conversation."""
    with tarfile.open(shared / "swb_ms98_transcriptions.tar.xz") as archive:
        found: dict[str, list[str]] = {}
        for member in archive:
            if member.name.endswith("-word.text"):
                found[Path(member.name).name] = archive.extractfile(member).read().decode().splitlines()  # type: ignore[union-attr]
            if len(found) == 2:
                break
    words = tmp_path / "words"
    words.mkdir()
    for name, lines in found.items():
        cut = next(i for i, line in enumerate(lines) if float(line.split()[2]) > 30)
        utterance, start, *_ = lines[cut].split()
        (words / name).write_text("\n".join([*lines[:cut], f"{utterance} {start} 30.5 [silence]"]))
    render.render(words, tmp_path / "audio")
    (path,) = (tmp_path / "audio").rglob("*.sph")
    ((name, sides),) = switchboard.find(words).items()
    loud_in_words_only(soundfile.read(path)[0], render.read_tokens(name, sides))


def test_every_kind_of_token(tmp_path: Path) -> None:
    tokens = [
        "about_1",
        "[laughter-yeah]",
        "w[ent]-",
        "{coinage}",
        "<b_aside>",
        "AT&T",
        "[splace/place]",
        "7-Up",
    ]
    a = [(1, 0.0, 1.0, "[noise]")]
    a += [(1, 1 + 0.5 * i, 1.5 + 0.5 * i, token) for i, token in enumerate(tokens)]
    a += [
        (1, 5.0, 5.0, "zero"),
        (1, 5.0, 5.01, "i"),
        (2, 5.01, 8.0, "[laughter]"),
        (2, 8.0, 12.0, "[silence]"),
    ]
    b = [(1, 0.0, 10.0, "[silence]"), (1, 10.0, 11.0, "[vocalized-noise]"), (2, 11.0, 12.0, "bye")]
    folder = transcripts(tmp_path / "words", 2001, a, b)
    render.render(folder, tmp_path / "audio")
    audio, _ = soundfile.read(tmp_path / "audio" / PATHS["sw2001"])
    assert len(audio) == 12 * 8000
    level = [energy(audio[int(4000 * half) : int(4000 * half) + 4000, 0]).max() for half in range(24)]
    for i, token in enumerate(tokens):
        assert level[2 + i] > -40 or token == "<b_aside>", token
    assert level[12] > -40  # laughter
    assert max(level[17:]) < -45
    assert energy(audio[80000:88000, 1]).max() > -48  # a breath, fainter than speech
    assert energy(audio[88000:, 1]).max() > -40


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("yeah", "yeah"),
        ("um-hum", "um-hum"),
        ("about_1", "about"),
        ("them_1's", "them's"),
        ("[laughter-yeah]", "yeah"),
        ("[laughter-um-hum]", "um-hum"),
        ("[laughter-sh[e]-]", "shuh"),
        ("w[ent]-", "wuh"),
        ("every[body]-", "every"),
        ("-[some]thing", "thing"),
        ("[splace/place]", "splace"),
        ("[ex[tent]-/extend]", "ex"),
        ("{coinage}", "coinage"),
        ("[laughter-{coinage}]", "coinage"),
        ("<b_aside>", ""),
        ("IBM", "IBM"),
        ("hm", "hum"),
    ],
)
def test_what_is_said_for_a_token(token: str, said: str) -> None:
    assert render.speakable(token) == said


def unit(start: float, end: float) -> Unit:
    return Unit(start, end, [Token(start, end, "word")])


def test_units_end_at_pauses_and_noises() -> None:
    tokens = [
        Token(0, 1, "[silence]"),
        Token(1, 1.5, "so"),
        Token(1.5, 1.5, "nothing"),
        Token(1.52, 2, "well"),
        Token(2, 2.3, "[laughter]"),
        Token(2.3, 3, "[laughter-yeah]"),
    ]
    assert render.units(tokens) == [Unit(1, 2, [tokens[1], tokens[3]]), Unit(2.3, 3, [tokens[5]])]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([], ["hold", "shift"]),  # the end of the conversation leaves the floor to the other
        ([(12.1, 14)], ["hold", "shift"]),
        ([(3.2, 4.9)], ["shift", "shift"]),
        ([(2.5, 4.9)], ["shift", "shift"]),  # in overlap
        ([(2.7, 3.2)], ["invitation", "shift"]),  # too short for a turn: a backchannel
        ([(1, 2.9)], ["hold", "shift"]),  # the other stopped talking before
        ([(3.1, 3.5)], ["invitation", "shift"]),
        ([(3.9, 4.3)], ["hold", "shift"]),  # a backchannel that comes too late
        ([(3.1, 3.5), (4, 4.5)], ["shift", "shift"]),  # no silence of 1 s after the short word
    ],
)
def test_what_follows_a_unit(other: list[tuple[float, float]], expected: list[str]) -> None:
    own = [unit(0, 3), unit(5, 12)]
    assert render.endings(own, [unit(*times) for times in other]) == expected


def test_backchannels_are_short_and_alone() -> None:
    own = [unit(0, 0.5), unit(1.5, 2.5), unit(3.4, 4), unit(6, 7.1)]
    assert render.endings(own, []) == ["backchannel", "hold", "hold", "shift"]


@pytest.mark.parametrize("voice", ["en-us+m3", "en-gb-x-rp+f2", "en-029+m1", "en-us-nyc+f4"])
def test_cues_can_be_heard(voice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitch of the last 0.25 s against the first second, in semitones, and its energy, by what follows."""
    monkeypatch.setattr(render, "CUE_VALIDITY", 1)
    said = ["we", "were", "in", "the", "garden", "with", "a", "mellow", "melody"]
    edges = np.linspace(0, 2.7, len(said) + 1)
    phrase = Unit(0, 2.7, [Token(a, b, w) for a, b, w in zip(edges, edges[1:], said, strict=False)])
    change, fade = {}, {}
    for kind in ("shift", "hold", "invitation"):
        moved, faded = [], []
        for seed in range(3):
            audio = render._speak(phrase, kind, Voice(voice, 0, 0.07), np.random.default_rng(seed))
            moved.append(12 * np.log2(pitch(audio[-2000:]) / pitch(audio[:8000])))
            faded.append(energy(audio[-3200:]).max() - energy(audio[:8000]).max())
        change[kind], fade[kind] = np.nanmedian(moved), np.median(faded)
    assert -11 < change["shift"] < -4
    assert -1.5 < change["hold"] < 2.5
    assert change["hold"] + 1.5 < change["invitation"] < 7
    assert change["shift"] + 3 < change["hold"]
    assert fade["shift"] < fade["hold"] - 5
    assert fade["hold"] < fade["invitation"]


def test_stretching_moves_the_words_and_keeps_the_pitch() -> None:
    """250 Hz for half a second, then 600 Hz for another; the border is moved to 0.8 s, the end to 1.2 s."""
    at = np.arange(4000) / 8000
    audio = np.concatenate([np.sin(2 * np.pi * 250 * at), np.sin(2 * np.pi * 600 * at)])
    out = render._stretch(audio, [0, 4000, 8000], [0, 6400, 9600])
    assert len(out) == 9600
    for part, expected in ((out[200:6200], 250), (out[6600:9400], 600)):
        spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part))))
        assert abs(np.argmax(spectrum) * 8000 / len(part) - expected) < 5
        assert 0.9 < np.abs(part).max() < 1.1
    assert np.abs(np.diff(out[:6000])).max() < 1.5 * np.abs(np.diff(audio[:3900])).max()  # no clicks


def test_bad_transcripts_are_named(simulated: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        render.render(tmp_path / "nowhere", tmp_path / "audio")
    with pytest.raises(InputError, match="transcripts"):
        render.render(tmp_path, tmp_path / "audio")
    folder = transcripts(tmp_path / "words", 2001)
    broken = folder / "sw2001B-ms98-a-word.text"
    broken.write_text(broken.read_text().replace("4.5", "nine", 1))
    with pytest.raises(InputError, match=r"sw2001B-ms98-a-word\.text"):
        render.render(folder, tmp_path / "audio")
    broken.unlink()
    with pytest.raises(InputError, match=r"sw2001.*speaker B"):
        render.render(folder, tmp_path / "audio")
    nothing = transcripts(tmp_path / "nothing", 2002, [(1, 0, 0, "[silence]")], [(1, 0, 0, "[silence]")])
    with pytest.raises(InputError, match=r"sw2002: has no length"):
        render.render(nothing, tmp_path / "audio")
    assert not list(tmp_path.rglob("*.sph"))


def test_a_recording_is_not_spoken_over(simulated: Path, tmp_path: Path) -> None:
    real = tmp_path / PATHS["sw2002"]
    real.parent.mkdir(parents=True)
    soundfile.write(real, np.zeros((8000, 2)), 8000, format="NIST", subtype="ULAW")
    before = files(tmp_path)
    with pytest.raises(InputError, match=r"sw02002\.sph: a recording that was not rendered"):
        render.render(simulated, tmp_path)
    assert files(tmp_path) == before

"""The ms98 reader against plain code, broken files, and the complete real release."""

import random
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold
from toy_switchboard import A, B, Word, lines, sphere, transcripts

from vap_pipeline.artefacts import manifest
from vap_pipeline.audio.sphere import read_header
from vap_pipeline.corpora import build, switchboard
from vap_pipeline.io.errors import InputError

NOT_SPEECH = {"[silence]", "[noise]", "[vocalized-noise]", "[laughter]"}


def plain(text: str) -> list[tuple[float, float]]:
    """The definition, sentence by sentence: walk the tokens of each utterance."""
    segments: list[list[float]] = []
    utterance_before = None
    for line in text.splitlines():
        utterance, start, end, token = line.split()
        if utterance != utterance_before:
            utterance_before, running = utterance, False
        if token in NOT_SPEECH:
            continue
        if running and float(start) - segments[-1][1] < 0.05:
            segments[-1][1] = float(end)
        else:
            segments.append([float(start), float(end)])
        running = True
    return [(start, end) for start, end in segments]


def segments_of(path: Path, speaker: str) -> list[tuple[float, float]]:
    start_s, end_s, _, _ = switchboard.words(path, speaker)
    return list(zip(start_s.tolist(), end_s.tolist(), strict=True))


def test_segments_worked_by_hand(tmp_path: Path) -> None:
    words: list[Word] = [
        (1, 0.0, 1.0, "[silence]"),
        (1, 1.0, 1.2, "hi"),
        (1, 1.2, 1.5, "[laughter-there]"),  # laughed words are speech
        (1, 1.5, 1.54, "[silence]"),
        (1, 1.54, 2.0, "w[ent]-"),  # 0.04 s later: goes on
        (1, 2.0, 2.06, "[noise]"),
        (1, 2.06, 2.3, "{coinage}"),  # 0.06 s later: a new one
        (1, 2.3, 2.3, "a"),  # zero length, extends nothing
        (2, 2.3, 3.0, "yes"),  # another utterance, though nothing lies between
        (2, 3.0, 4.0, "[laughter]"),
        (2, 4.0, 4.0, "the"),  # zero length, on its own
        (2, 4.0, 5.0, "[vocalized-noise]"),
    ]
    path = tmp_path / "sw2001A-ms98-a-word.text"
    path.write_text(lines("sw2001A", words))
    start_s, end_s, last_s, aside = switchboard.words(path, "sw2001A-")
    assert start_s.tolist() == [1.0, 2.06, 2.3, 4.0]
    assert end_s.tolist() == [2.0, 2.3, 3.0, 4.0]
    assert (last_s, aside) == (5.0, False)
    path.write_text(lines("sw2001A", [*words, (3, 5.0, 5.0, "<b_aside>")]))
    assert switchboard.words(path, "sw2001A-")[2:] == (5.0, True)


def test_a_gap_of_0_05_s_is_judged_in_floating_point() -> None:
    # 0.15 - 0.1 is 0.04999999999999999, 1.05 - 1.0 is 0.050000000000000044.
    for before, after, merged in ((0.1, 0.15, 1), (1.0, 1.05, 2)):
        start_s, _ = build.merge(np.array([0.0, after]), np.array([before, 9.0]))
        assert len(start_s) == merged


def test_overlapping_words_are_one_segment() -> None:
    start_s, end_s = build.merge(np.array([1.0, 1.2, 1.95, 3.0]), np.array([2.0, 1.4, 2.5, 4.0]))
    assert (start_s.tolist(), end_s.tolist()) == ([1.0, 3.0], [2.5, 4.0])


token = st.sampled_from([*sorted(NOT_SPEECH), "yeah", "w[ent]-", "[laughter-so]", "about_1", "<e_aside>"])
gap = st.sampled_from([0, 0, 1, 49_999, 50_000, 50_001, 200_125])
length = st.sampled_from([0, 1, 30_000, 50_000, 250_375])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.booleans(), gap, length, token), min_size=1, max_size=40))
def test_any_transcript_as_plain_code_reads_it(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int, int, str]]
) -> None:
    words: list[Word] = []
    utterance, now = 1, 0
    for another, pause, long, text in steps:
        utterance += another
        words.append((utterance, (now + pause) / 1e6, (now + pause + long) / 1e6, text))
        now += pause + long
    path = tmp_path_factory.getbasetemp() / "any.text"
    path.write_text(lines("sw2001A", words))
    assert segments_of(path, "sw2001A-") == plain(path.read_text())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"sw2001A-1 0.0 1.0\n", "line 1: not `utterance start_s end_s token`"),
        (b"sw2001A-1 0.0 1.0 a b\n", "line 1: not"),
        (b"sw2001A-1 0.0 1.0 a\n\nsw2001A-1 1.0 2.0 b\n", "line 2: not"),
        (b"sw2001A-1 0.0 1.0 a\nsw2001A-1 1.0 two b\n", "line 2: not"),
        (b"sw2001A-1 -1.0 1.0 a\n", "line 1: not .* times as decimals"),
        (b"sw2001A-1 nan 1.0 a\n", "line 1: not"),
        (b"sw2001A-1 0.0 inf a\n", "line 1: not"),
        (b"sw2001A-1 0.0 1e3 a\n", "line 1: not"),
        (b"sw2001A-1 0.0 1_0 a\n", "line 1: not"),
        (b"sw2001A-1 0.0 1.2.3 a\n", "line 1: not"),
        ("sw2001A-1 0.0 ١ a\n".encode(), "line 1: not"),
        (b"sw2001A-1 0.0 1.0 \xff\n", "byte 18 is not UTF-8"),
        (b"sw2001A-1 2.0 1.0 a\n", "line 1: its times run backwards"),
        (
            b"sw2001A-1 1.0 2.0 a\nsw2001A-1 1.5 3.0 b\n",
            "line 2: its times run backwards, into the line before",
        ),
        (b"sw2001A-1 1.0 2.0 a\nsw2001A-2 0.0 0.5 b\n", "line 2: its times run backwards"),
        (b"sw2001A-1 0.0 1" + b"0" * 400 + b" a\n", "line 1"),
        (b"sw2001B-1 0.0 1.0 a\n", "utterance sw2001B-1 is not one of sw2001A-"),
        (b"sw2001A-1 0.0 1.0 a\nsw2001A-1 1.0 2.0 [sile", "line 2: an unmatched bracket"),
    ],
)
def test_broken_words(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.text"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        switchboard.words(path, "sw2001A-")
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_tabs_and_line_ends_of_windows(tmp_path: Path) -> None:
    path = tmp_path / "tabs.text"
    path.write_bytes(b"sw2001A-1\t0.0\t1.0\thi  \r\nsw2001A-1 1.0 2.0 you\r\n\r\n")
    assert segments_of(path, "sw2001A-") == [(0.0, 2.0)]


def valid(path: Path) -> bool:
    """Read the file; whether that succeeded. What was read must be in order."""
    try:
        start_s, end_s, last_s, _ = switchboard.words(path, "sw2001A-")
    except InputError as error:
        assert "\n" not in str(error)
        return False
    assert (start_s <= end_s).all() and (end_s[:-1] <= start_s[1:]).all() and (end_s <= last_s).all()
    return True


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200), st.text("sw2001A- .\t\n\x00\u0085abx[]é١e_", max_size=120).map(str.encode)
    )
)
def test_anything_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "anything.text"
    path.write_bytes(content)
    valid(path)


def test_garbled_transcripts_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "garbled.text"
    whole = lines("sw2001A", A * 1 + [(3, 12.0 + i, 13.0 + i, "so") for i in range(20)]).encode()
    rng = random.Random(0)
    refused = 0
    for _ in range(500):
        garbled = bytearray(whole)
        kind = rng.randrange(4)
        at, to = sorted(rng.randrange(len(garbled)) for _ in range(2))
        if kind == 0:
            garbled[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del garbled[at:to]
        elif kind == 2:
            garbled[at:at] = rng.choice(
                (b"\n", b" ", b"\0", b"\xff", b"-1 ", b"nan", b"9" * 30, garbled[at:to])
            )
        else:
            garbled[at], garbled[to] = garbled[to], garbled[at]
        path.write_bytes(garbled)
        refused += not valid(path)
    assert 200 < refused < 500


def test_a_corpus_without_audio(tmp_path: Path) -> None:
    for number in (2010, 2001, 4940, 2005):
        transcripts(tmp_path, number)
    transcripts(tmp_path, 2002, b=[*B, (4, 12.0, 12.25, "[silence]")])
    transcripts(tmp_path, 2003, a=[*A, (3, 12.0, 13.5, "<b_aside>")])
    with pytest.raises(
        InputError, match=r"sw2003: the transcripts of A end at 13.5 s and those of B at 12 s"
    ):
        switchboard.read(tmp_path, None, test=1, folds=2)
    transcripts(tmp_path / "again", 2004, a=[*A, (3, 12.0, 12.5, "<b_aside>")])
    (tmp_path / "20" / "2003").rename(tmp_path / "elsewhere")
    for path in (tmp_path / "elsewhere").iterdir():
        path.unlink()
    found = switchboard.read(tmp_path, None, test=1, folds=2)
    manifest.check(found)
    assert [(c.conversation, c.audio, c.duration_s, c.split, c.fold) for c in found.conversations] == [
        ("sw2001", "", 12.0, "train", 0),
        ("sw2002", "", 12.25, "train", 0),
        ("sw2004", "", 12.5, "", None),  # speaks aside
        ("sw2005", "", 12.0, "train", 1),
        ("sw2010", "", 12.0, "train", 1),
        ("sw4940", "", 12.0, "test", None),
    ]
    channel, start_s, end_s = found.segments()["sw2001"]
    assert (channel.tolist(), start_s.tolist(), end_s.tolist()) == (
        [0, 0, 1],
        [1.0, 1.5, 4.0],
        [1.25, 2.0, 4.5],
    )


def test_missing_and_doubled_transcripts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        switchboard.find(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no transcripts below it"):
        switchboard.find(tmp_path)
    folder = transcripts(tmp_path, 2001)
    (tmp_path / "sw02001a-MS98-a-word.text").write_text("")
    with pytest.raises(InputError, match="has the same speaker"):
        switchboard.find(tmp_path)
    (tmp_path / "sw02001a-MS98-a-word.text").unlink()
    (folder / "sw2001B-ms98-a-word.text").unlink()
    with pytest.raises(InputError, match="sw2001: no word file of speaker B"):
        switchboard.read(tmp_path, None, 0, 2)


def test_audio_in_any_layout(tmp_path: Path) -> None:
    for number in range(2001, 2006):
        transcripts(tmp_path / "t", number)
    audio = tmp_path / "audio"
    sphere(audio / "swb1_d1" / "data" / "sw02001.sph", 12.0)
    sphere(audio / "swb1_d2" / "DATA" / "SW02002.SPH", 13.00125)
    sphere(audio / "sw2003.sph", 11.25, coding="ulaw,embedded-shorten-v2.00", missing=90_000)
    soundfile.write(audio / "sw02004.wav", np.zeros((96_001, 2)), 8000)
    (tmp_path / "disc").mkdir()
    soundfile.write(tmp_path / "disc" / "sw02005.flac", np.zeros((192_000, 2)), 16000)
    (audio / "linked").symlink_to(tmp_path / "disc")
    (audio / "readme.wav").write_text("not a conversation")
    found = switchboard.read(tmp_path / "t", audio, 1, 2)
    manifest.check(found)
    assert [(c.audio, c.duration_s) for c in found.conversations] == [
        ("swb1_d1/data/sw02001.sph", 12.0),
        ("swb1_d2/DATA/SW02002.SPH", 13.00125),
        ("sw2003.sph", 11.25),
        ("sw02004.wav", 12.000125),
        ("linked/sw02005.flac", 12.0),
    ]


@pytest.mark.parametrize(
    ("seconds", "ends"), [(12.0, [2.0, 11.9]), (11.0, [2.0, 11.0]), (10.9, None), (10.95, [2.0, 10.95])]
)
def test_speech_past_the_end_of_the_audio(tmp_path: Path, seconds: float, ends: list[float] | None) -> None:
    a = [
        (1, 0.0, 2.0, "so"),
        (2, 2.0, 10.94, "[silence]"),
        (3, 10.94, 11.92, "oh"),
        (4, 11.92, 12.0, "[silence]"),
    ]
    b = [(1, 0.0, 11.95, "[silence]"), (2, 11.95, 11.95, "oh"), (3, 11.95, 12.0, "[silence]")]
    for number in (2001, 2002):
        transcripts(tmp_path / "t", number, a, b)
        sphere(tmp_path / "a" / f"sw0{number}.sph", seconds)
    if ends is None:
        with pytest.raises(InputError, match=r"sw2001: its speech ends 1.05 s after .*sw02001.sph does"):
            switchboard.read(tmp_path / "t", tmp_path / "a", 0, 2)
        return
    found = switchboard.read(tmp_path / "t", tmp_path / "a", 0, 2)
    manifest.check(found)
    channel, _, end_s = found.segments()["sw2001"]
    assert end_s[channel == 0].tolist() == [2.0, min(11.92, seconds)]
    assert len(end_s) == (3 if seconds >= 11.95 else 2)  # B's lies wholly after the end


def corpus(tmp_path: Path, numbers: range = range(2001, 2009)) -> tuple[Path, Path]:
    for number in numbers:
        transcripts(tmp_path / "t", number)
        sphere(tmp_path / "a" / f"sw0{number}.sph")
    return tmp_path / "t", tmp_path / "a"


def break_audio(audio: Path, how: str) -> None:
    path = audio / "sw02003.sph"
    header = path.read_bytes()[:1024]
    if how == "missing":
        path.unlink()
    elif how == "without transcripts":
        sphere(audio / "sw02099.sph")
    elif how == "doubled":
        sphere(audio / "disc" / "sw2003.sph")
    elif how == "truncated header":
        path.write_bytes(header[:100])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "no SPHERE":
        path.write_bytes(b"RIFF" + bytes(2000))
    elif how == "mono":
        sphere(path, channels=1)
    elif how == "short":
        sphere(path, 9.5)
    elif how == "strange coding":
        sphere(path, coding="cosmic")
    elif how == "no length":
        path.write_bytes(header.replace(b"sample_count", b"sample_kount"))
    elif how == "negative":
        path.write_bytes(header.replace(b"sample_count -i 9", b"sample_count -i -"))
    elif how == "huge":
        path.write_bytes(header.replace(b"-i 96000", b"-i 96000000000000"))
    elif how == "huge, compressed":
        path.write_bytes(
            header.replace(b"-i 96000", b"-i 9" + b"0" * 30).replace(
                b"ulaw\n", b"ulaw,embedded-shorten-v2.00\n"
            )
        )
    elif how == "no number":
        path.write_bytes(header.replace(b"   1024", b"   1k24"))
    elif how == "wav that is none":
        path.rename(audio / "sw02003.wav")
        (audio / "sw02003.wav").write_bytes(bytes(3000))


BROKEN = {
    "missing": "sw2003: no audio below .* \\(1 like this\\)",
    "without transcripts": "sw2099: no transcripts",
    "truncated header": "sw02003.sph: truncated inside its SPHERE header",
    "empty": "sw02003.sph: not a NIST SPHERE file",
    "no SPHERE": "sw02003.sph: not a NIST SPHERE file",
    "mono": "sw02003.sph: 1 channel, expected one for each of two speakers",
    "short": "sw2003: 9.5 s long",
    "strange coding": "sw02003.sph: its samples are coded as 'cosmic'",
    "no length": "sw02003.sph: truncated: no samples follow its header",
    "negative": "sample_count is -6000",
    "huge": "sw2003: .* shorter than a window",
    "huge, compressed": "more than a day",
    "no number": "its length is not a multiple of 1,024",
    "wav that is none": "sw02003.wav: cannot be read as audio",
}


@pytest.mark.parametrize("how", BROKEN)
def test_broken_audio(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    texts, audio = corpus(tmp_path)
    whole = switchboard.read(texts, audio, 2, 3)
    break_audio(audio, how)
    with pytest.raises(InputError, match=BROKEN[how]) as caught:
        switchboard.read(texts, audio, 2, 3)
    assert "\n" not in str(caught.value)
    found = switchboard.read(texts, audio, 2, 3, on_error="skip")
    manifest.check(found)
    assert str(caught.value) in caplog.text and "left out" in caplog.text
    if how == "without transcripts":
        assert found.conversations == whole.conversations
    elif how == "missing":  # the corpus is what has both
        assert found.select() == [n for n in whole.select() if n != "sw2003"]
    else:  # the others keep their folds
        assert found.conversations == [c for c in whole.conversations if c.conversation != "sw2003"]


@pytest.mark.parametrize(
    ("name", "channels", "coding", "shorten"),
    [
        ("123_1ulaw_shn", 1, "ulaw", True),
        ("123_2alaw", 2, "alaw", False),
        ("123_2pcbe_shn", 2, "pcm", True),
        ("123_2pcle_shn", 2, "pcm", True),
        ("123_2ulaw_shn", 2, "ulaw", True),
    ],
)
def test_real_headers(shared: Path, name: str, channels: int, coding: str, shorten: bool) -> None:
    found = read_header(shared / "sphere" / f"{name}.sph")
    assert (found.size, found.rate, found.frames) == (1024, 20000, 37120)
    assert (found.channels, found.coding, found.shorten) == (channels, coding, shorten)
    assert found.sample_bytes == (2 if coding == "pcm" else 1)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 220), st.binary(min_size=1, max_size=6)), max_size=4),
    st.integers(0, 1200),
)
def test_any_header_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, bytes]], length: int
) -> None:
    path = sphere(tmp_path_factory.getbasetemp() / "any.sph", 0.05)
    content = bytearray(path.read_bytes())
    for at, change in changes:
        content[at : at + len(change)] = change
    path.write_bytes(content[: max(length, 200)] if length % 2 else content)
    try:
        found = read_header(path)
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert min(found.rate, found.channels, found.frames, found.sample_bytes) > 0
    assert found.shorten or found.size + found.frames * found.channels * found.sample_bytes <= len(content)


def test_doubled_audio(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts, audio = corpus(tmp_path)
    whole = {c.conversation: c.fold for c in switchboard.read(texts, audio, 2, 3).conversations}
    break_audio(audio, "doubled")
    with pytest.raises(InputError, match=r"sw2003.sph: .*sw02003.sph has the same conversation"):
        switchboard.read(texts, audio, 2, 3)
    found = switchboard.read(texts, audio, 2, 3, on_error="skip")
    del whole["sw2003"]
    assert {c.conversation: c.fold for c in found.conversations} == whole  # the others stay in their folds
    assert caplog.text.count("sw2003") == 1


def test_a_byte_order_mark_changes_nothing(tmp_path: Path) -> None:
    texts, audio = corpus(tmp_path)
    plain = switchboard.read(texts, audio, 2, 3)
    for path in texts.rglob("*.text"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    marked = switchboard.read(texts, audio, 2, 3)
    assert marked.conversations == plain.conversations and marked.voice_activity == plain.voice_activity


def test_nothing_is_left(tmp_path: Path) -> None:
    texts, audio = corpus(tmp_path, range(2001, 2003))
    for path in audio.iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match="no conversation is left"):
        switchboard.read(texts, audio, 0, 2, on_error="skip")
    for path in audio.iterdir():
        path.unlink()
    with pytest.raises(InputError, match="no audio of this corpus below it"):
        switchboard.read(texts, audio, 0, 2, on_error="skip")


@given(st.integers(2, 12), st.integers(0, 20), st.data())
def test_folds_are_those_of_kfold(folds: int, test: int, data: st.DataObject) -> None:
    train = data.draw(st.integers(folds, 60))
    names = [f"n{i}" for i in range(train + test)]
    found = build.split(names, test, folds)
    assert [found[name] for name in names[train:]] == [("test", None)] * test
    for fold, (_, held_out) in enumerate(KFold(folds).split(np.arange(train))):
        assert [names.index(n) for n, (_, f) in found.items() if f == fold] == held_out.tolist()


@pytest.mark.parametrize(("test", "folds"), [(0, 1), (-1, 2), (5, 2), (9, 2), (0, 7)])
def test_too_few_for_the_folds(test: int, folds: int) -> None:
    with pytest.raises(InputError, match=r"at least 2 folds|too few"):
        build.split(list("abcdef"), test, folds)


def test_the_whole_release(ms98: Path, tmp_path: Path) -> None:
    found = switchboard.read(ms98, None, 135, 11)
    manifest.check(found)
    names = found.select()
    assert len(names) == 2438 and names == sorted(names)
    assert sum(c.duration_s for c in found.conversations) / 3600 == pytest.approx(259.1, abs=0.05)
    unused = [c.conversation for c in found.conversations if c.split == ""]
    assert len(unused) == 98
    used = [name for name in names if name not in set(unused)]
    assert found.test_set() == used[-135:]
    blocks = [found.validation_set(fold) for fold in range(11)]
    assert [len(block) for block in blocks] == [201] * 5 + [200] * 6
    assert list(chain(*blocks)) == used[:2205]
    assert set(found.training_set(3)) == set(used[:2205]) - set(blocks[3])

    segments = found.segments()
    for name in random.Random(0).sample(names, 60):
        channel, start_s, end_s = segments[name]
        for number, side in enumerate("AB"):
            text = (ms98 / f"{name}{side}-ms98-a-word.text").read_text()
            mine = zip(start_s[channel == number].tolist(), end_s[channel == number].tolist(), strict=True)
            assert list(mine) == plain(text)
    # Its events take less than 2 GB.
    manifest.write(found, tmp_path / "switchboard")
    code = (
        "import sys; from vap_pipeline.evaluate.__main__ import main; status = main(sys.argv[1:]); "
        "print(open('/proc/self/status').read()); sys.exit(status)"
    )
    flags = ["--manifest", str(tmp_path / "switchboard"), "--out", str(tmp_path / "events.parquet")]
    ran = subprocess.run([sys.executable, "-c", code, "events", *flags], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    peak = re.search(r"VmHWM:\s+(\d+) kB", ran.stdout)
    assert peak and int(peak[1]) < 2e6
    # Of the 851 gaps of exactly 0.05 s, 347 come out below it in floating point; else there were 517,928.
    assert found.voice_activity.num_rows == 517_581

"""The simulated transcripts: the release's formats to the letter, and turn-taking like the release's."""

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from vap_pipeline.corpora import sample, switchboard
from vap_pipeline.io.errors import InputError
from vap_pipeline.turn_taking.events import EVENTS, find_events, windows
from vap_pipeline.turn_taking.voice_activity import frames, voice_activity

LINE = re.compile(r"(sw\d{4}[AB]-ms98-a-\d{4}) (\d+\.\d{6}) (\d+\.\d{6}) (\S.*)")
TOKEN = re.compile(
    r"\[(silence|noise|vocalized-noise|laughter|laughter-[a-z]+)\]|[a-z]+(-[a-z]+)?(_1)?|[a-z]+\[[a-z]+\]-"
)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "transcripts"
    sample.simulate(folder, conversations=24, minutes=2.5, seed=1)
    return folder


def rows(path: Path) -> list[tuple[str, float, float, str]]:
    found = []
    for line in path.read_text().splitlines():
        match = LINE.fullmatch(line)
        assert match, line
        found.append((match[1], float(match[2]), float(match[3]), match[4]))
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_files_lie_where_the_release_has_them(simulated: Path) -> None:
    expected = {"AAREADME.text"}
    for number in range(2001, 2025):
        for channel in "AB":
            name = f"20/{number}/sw{number}{channel}-ms98-a"
            expected |= {f"{name}-word.text", f"{name}-trans.text"}
    assert contents(simulated).keys() == expected


def test_tokens_tile_each_channel_and_agree_with_the_utterances(simulated: Path) -> None:
    kinds = set()
    for word_path in sorted(simulated.rglob("*-word.text")):
        words = rows(word_path)
        utterances = rows(Path(str(word_path).replace("-word", "-trans")))
        name = word_path.name.removesuffix("-word.text")
        assert [u[0] for u in utterances] == [f"{name}-{n:04d}" for n in range(1, len(utterances) + 1)]
        for tiles in (words, utterances):
            assert [0.0, *(row[2] for row in tiles[:-1])] == [row[1] for row in tiles]
            assert tiles[-1][2] == 150
            assert all(row[1] < row[2] for row in tiles)
            assert all(round(1e6 * time) % 125 == 0 for row in tiles for time in row[1:3])
        for utterance, start, end, text in utterances:
            inside = [row for row in words if row[0] == utterance]
            assert (inside[0][1], inside[-1][2]) == (start, end)
            spoken = [row[3] for row in inside if row[3] != "[silence]"]
            assert text == (" ".join(spoken) or "[silence]")
            assert spoken or len(inside) == 1
        for *_, token in words:
            assert TOKEN.fullmatch(token), token
            kinds.add(re.sub(r"[a-z]+", "w", token) if "silence" not in token else token)
    # Words, fillers with a hyphen, variants, words broken off, laughed words, noises.
    assert {"w", "w-w", "w_1", "w[w]-", "[w-w]", "[w]", "[silence]"} <= kinds


def test_seed_alone_decides_every_byte(simulated: Path, tmp_path: Path) -> None:
    sample.simulate(tmp_path / "again", conversations=24, minutes=2.5, seed=1)
    assert contents(tmp_path / "again") == contents(simulated)
    sample.simulate(tmp_path / "other", conversations=1, minutes=2.5, seed=2)
    other, first = contents(tmp_path / "other"), contents(simulated)
    assert all(other[name] != first[name] for name in other if name.startswith("20"))


def test_another_simulation_replaces_the_one_before_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "transcripts"
    sample.simulate(folder, conversations=3, minutes=0.5, seed=0)
    sample.simulate(folder, conversations=2, minutes=0.5, seed=0)
    assert sorted(switchboard.find(folder)) == ["sw2001", "sw2002"]
    assert [path.name for path in tmp_path.iterdir()] == ["transcripts"]

    precious = tmp_path / "ms98"
    precious.mkdir()
    (precious / "sw2001A-ms98-a-word.text").write_text("precious")
    with pytest.raises(InputError, match="not simulated"):
        sample.simulate(precious, conversations=2, minutes=0.5, seed=0)
    assert contents(precious) == {"sw2001A-ms98-a-word.text": b"precious"}


@pytest.mark.parametrize(
    "setting",
    [{"conversations": 0}, {"conversations": 8000}, {"minutes": 0.1}, {"minutes": np.nan}, {"seed": -1}],
)
def test_settings_out_of_range_are_refused(tmp_path: Path, setting: dict) -> None:
    with pytest.raises(InputError, match="give"):
        sample.simulate(tmp_path / "new", **{"conversations": 2, "minutes": 1.0, "seed": 0, **setting})
    assert not list(tmp_path.iterdir())


def test_turn_taking_is_like_the_release(simulated: Path) -> None:
    """Shares and rates measured on 150 real conversations (15.7 h), with room on both sides."""
    activity, counts, hours = [], np.zeros(len(EVENTS)), 0.0
    for name, sides in switchboard.find(simulated).items():
        speech, _ = switchboard.read_conversation(name, sides)
        va = voice_activity(speech.channel, speech.start_s, speech.end_s, frames(speech.duration_s))
        activity.append(va)
        counts += np.bincount(find_events(windows(torch.from_numpy(va))).event, minlength=len(EVENTS))
        hours += speech.duration_s / 3600
    speakers = np.concatenate(activity).sum(axis=1)
    silence, both = (speakers == 0).mean(), (speakers == 2).mean()
    assert 0.12 < silence < 0.25  # real: 0.19
    assert 0.02 < both < 0.06  # real: 0.04
    per_minute = dict(zip(EVENTS, counts / hours / 60, strict=True))
    assert 2 < per_minute["shift"] < 6
    assert 6 < per_minute["hold"] < 14
    assert 3 < per_minute["short"] < 7


def test_words_before_a_gap_are_drawn_out(simulated: Path) -> None:
    """The same words, last in a turn and last before the speaker goes on, differ by half their length."""
    length: dict[bool, dict[str, list[float]]] = {True: {}, False: {}}
    for sides in switchboard.find(simulated).values():
        spoken = []
        for channel in "AB":
            words = [row for row in rows(sides[channel]) if row[3] not in switchboard.NOT_SPEECH]
            spoken += [(start, end, channel, text) for _, start, end, text in words]
        spoken.sort()
        for (start, end, channel, text), (following, _, who, _) in pairwise(spoken):
            if following - end > 0.15 and text.isalpha():
                length[who != channel].setdefault(text, []).append(end - start)
    ratios = [
        np.median(length[True][text]) / np.median(length[False][text])
        for text in length[True].keys() & length[False].keys()
        if min(len(length[True][text]), len(length[False][text])) >= 4
    ]
    assert len(ratios) >= 10
    assert 1.15 < np.median(ratios) < 1.5

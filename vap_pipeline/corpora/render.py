"""Speak ms98 transcripts, simulated or real, into telephone audio, each word at its own time.

The words between two pauses are synthesised by espeak-ng as one phrase, then stretched so that each word
fills its place in the transcript. How the phrase ends depends on what comes next:

- shift: the other speaks next: the pitch falls, the voice fades and dulls;
- hold: the speaker goes on: the pitch stays or rises a little, the voice keeps its strength;
- invitation: the other says a backchannel: the pitch rises high, the voice grows stronger and brighter;
- backchannels themselves are soft, low and flat.

(Gravano & Hirschberg, "Turn-taking cues in task-oriented dialogue", Computer Speech and Language 25, 2011;
Duncan, "Some signals and rules for taking speaking turns in conversations", Journal of Personality and Social
Psychology 23, 1972.) One ending in eight sounds like another kind, so that the cues are not certain.
"""

import hashlib
import io
import math
import os
import re
import threading
from bisect import bisect_left
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from itertools import pairwise
from multiprocessing import connection, get_context, parent_process
from multiprocessing.context import BaseContext, ForkServerContext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from scipy import signal
from tqdm import tqdm

from vap_pipeline.audio import espeak
from vap_pipeline.audio.telephone import RATE_HZ, band_pass
from vap_pipeline.corpora import switchboard
from vap_pipeline.corpora.switchboard import NOT_SPEECH
from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError

VERSION = 2  # of the rendering: audio of another version is rendered again
CUE_VALIDITY = 0.88  # how often an ending sounds like the event that follows
CUE_S = 0.8  # before the end, when a cue begins
ACCENTS = ("en-us", "en-gb-x-rp", "en-us-nyc", "en-gb-scotland", "en-029")
VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5")


class Token(NamedTuple):
    start: float  # seconds
    end: float
    text: str


class Unit(NamedTuple):
    """Words of one speaker without a pause between them."""

    start: float
    end: float
    tokens: list[Token]


class Cue(NamedTuple):
    semitones: float  # how far the pitch has moved at the end
    ending: str  # the punctuation whose melody espeak gives the last accent
    gain_db: float  # by which the voice is louder at the end
    bright: float  # share of the voice above 700 Hz that is added at the end, or taken away


class Voice(NamedTuple):
    name: str
    semitones: float
    level: float  # root mean square of the speech; full scale is 1


CUES = {
    "shift": Cue(-2.0, ".", -9.0, -0.8),
    "hold": Cue(2.5, ",", 0.0, 0.0),
    "invitation": Cue(4.0, "?", 3.0, 1.0),
    "backchannel": Cue(-2.0, ",", -3.0, -0.5),
}


def render(transcripts: Path, audio: Path, seed: int = 0, jobs: int | None = None) -> None:
    """Speak every conversation below ``transcripts`` into ``audio/swb1_d1/data/sw02001.sph``.

    The files are two-channel 8 kHz mu-law NIST SPHERE, A left and B right, as long as the transcripts, spread
    over ``swb1_d1`` to ``swb1_d4``. Files rendered earlier from the same transcript with the same seed stay,
    so an interrupted run continues; files rendered from transcripts that no longer exist are removed. The
    same transcripts and seed give the same bytes with any number of processes, ``jobs`` (default: one per
    core).

    Raises:
        InputError: there are no transcripts, a channel is missing, a transcript is broken, or a recording
            that was not rendered is in a file's place.
    """
    tasks: list[tuple[str, dict[str, Path], Path, int]] = []
    keys = {}
    for name, sides in switchboard.find(transcripts).items():
        number = int(name[2:])
        path = audio / f"swb1_d{1 + number // 10 % 4}" / "data" / f"sw{number:05d}.sph"
        keys[path] = _key(sides, seed)
        found = _key_of(path)
        if found is None and path.exists():
            raise InputError(f"{path}: a recording that was not rendered; give another --audio folder")
        if found != keys[path]:
            tasks.append((name, sides, path, seed))
    for path in audio.rglob("sw*.sph"):
        if path not in keys and _key_of(path):
            path.unlink()
    for path in audio.rglob(".sw*.sph.*.partial"):  # of a run that was killed
        path.unlink()
    if not tasks:
        return

    # Forked from a server that has imported this module, a process starts quickly.
    context = get_context("forkserver" if os.name == "posix" else "spawn")
    if isinstance(context, ForkServerContext):
        context.set_forkserver_preload(["__main__", __name__])
    with ThreadPoolExecutor(min(jobs or os.cpu_count() or 1, len(tasks))) as threads:
        futures = [threads.submit(_in_fresh_process, context, *task) for task in tasks]
        done = tqdm(as_completed(futures), "speech", len(tasks), unit=" conversations", disable=None)
        try:
            for future in done:
                future.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _in_fresh_process(context: BaseContext, *task: Any) -> None:
    """Run :func:`_render` in its own process: espeak's state would leak into the next conversation."""
    with ProcessPoolExecutor(1, context, initializer=_die_with_parent) as process:
        process.submit(_render, *task).result()


def _die_with_parent() -> None:
    """End this process when the one that started it ends."""
    parent = parent_process()
    if parent:
        wait = threading.Thread(target=lambda: (connection.wait([parent.sentinel]), os._exit(1)), daemon=True)
        wait.start()


def read_tokens(name: str, sides: dict[str, Path]) -> list[list[Token]]:
    """Read both speakers' tokens, in order, silences and noises included.

    Raises:
        InputError: a word file is missing or broken, or the conversation has no length.
    """
    switchboard.read_conversation(name, sides)  # for its checks
    tokens = []
    for path in (sides["A"], sides["B"]):
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        tokens.append([Token(float(start), float(end), text) for _, start, end, text in rows])
    if not max(channel[-1].end for channel in tokens):
        raise InputError(f"conversation {name}: has no length; get its files again")
    return tokens


def units(tokens: Sequence[Token]) -> list[Unit]:
    """Cut a channel's speech at its pauses; words less than 0.05 s apart are one unit."""
    found: list[Unit] = []
    for token in tokens:
        if token.text in NOT_SPEECH or token.end <= token.start:
            continue
        if found and token.start - found[-1].end < 0.05:
            found[-1] = Unit(found[-1].start, token.end, [*found[-1].tokens, token])
        else:
            found.append(Unit(token.start, token.end, [token]))
    return found


def endings(own: Sequence[Unit], other: Sequence[Unit]) -> list[str]:
    """Return what each unit of a speaker is, or what follows it: a key of ``CUES`` for each of ``own``.

    A backchannel lasts at most 1 s, in a silence of its speaker of 1 s before and after. Others end in

    - a shift, when a unit of the other that is no backchannel comes before the speaker's own next unit; the
      other may have begun already, if it goes on for 0.3 s or more;
    - an invitation, when the other says a backchannel from 0.4 s before to 0.8 s after its end;
    - else a hold; at the end of the conversation a shift.
    """
    own_short, other_short = _short(own), _short(other)
    turns = [unit for unit, short in zip(other, other_short, strict=True) if not short]
    backchannels = [unit.start for unit, short in zip(other, other_short, strict=True) if short]
    ends = [unit.end for unit in turns]
    found = []
    for i, unit in enumerate(own):
        going_on = own[i + 1].start if i + 1 < len(own) else math.inf
        following = bisect_left(ends, unit.end + 0.3)
        nearest = bisect_left(backchannels, unit.end - 0.4)
        if own_short[i]:
            found.append("backchannel")
        elif following < len(turns) and turns[following].start < going_on:
            found.append("shift")
        elif nearest < len(backchannels) and backchannels[nearest] < unit.end + 0.8:
            found.append("invitation")
        else:
            found.append("shift" if going_on == math.inf else "hold")
    return found


def _short(channel: Sequence[Unit]) -> list[bool]:
    """Whether each unit of a channel is a backchannel."""
    silence = [math.inf, *(after.start - before.end for before, after in pairwise(channel)), math.inf]
    return [
        unit.end - unit.start <= 1 and min(silence[i], silence[i + 1]) >= 1 for i, unit in enumerate(channel)
    ]


def speakable(text: str) -> str:
    """Return the words to speak for a transcript's token; empty for marks such as ``<b_aside>``.

    ``[laughter-yeah]`` gives yeah, ``about_1`` about, ``{coinage}`` coinage. A slip, ``[splace/place]``,
    gives the word that was said, splace. A broken word, ``we[nt]-``, gives the part that was said, with a
    vowel added if it has none: ``w[ent]-`` gives wuh.
    """
    if text.startswith("<"):
        return ""
    text = re.sub(r"^\[laughter-(.*)\]$", r"\1", text)
    text = re.sub(r"^\[(.*)/.*\]$", r"\1", text)
    text = re.sub(r"_\d", "", text)
    said = re.sub(r"\[[^\]]*\]?", "", text).replace("]", "")
    said = re.sub(r"[{}]", "", said).strip("-").replace("_", " ")
    if re.search(r"[aeiou0-9]|.y", said, re.IGNORECASE) or said.isupper():
        return said
    return said + "uh" if "-" in text else said.replace("m", "um", 1)  # or espeak would spell "w" and "hm"


def _render(name: str, sides: dict[str, Path], path: Path, seed: int) -> None:
    """Speak one conversation into ``path``."""
    rng = np.random.default_rng([seed, int(name[2:])])
    tokens = read_tokens(name, sides)
    length = round(RATE_HZ * max(channel[-1].end for channel in tokens))
    speech = np.zeros((length, 2), np.float32)
    spoken = [units(channel) for channel in tokens]
    for channel, variant in enumerate(rng.permutation(VARIANTS)[:2]):
        level = 10 ** (rng.uniform(-26, -21) / 20)
        voice = Voice(f"{rng.choice(ACCENTS)}+{variant}", rng.uniform(-2, 2), level)
        for unit, kind in zip(spoken[channel], endings(spoken[channel], spoken[1 - channel]), strict=True):
            start = round(RATE_HZ * unit.start)
            speech[start : start + round(RATE_HZ * unit.end) - start, channel] += _speak(
                unit, kind, voice, rng
            )
        for token in tokens[channel]:
            start, end = round(RATE_HZ * token.start), round(RATE_HZ * token.end)
            if token.text in NOT_SPEECH - {"[silence]"} and end - start > RATE_HZ // 50:
                speech[start:end, channel] += _noise(token, voice, rng)
    files.write(path, _sphere(_line(speech, rng), _key(sides, seed)))


def _speak(unit: Unit, kind: str, voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """Return a unit's speech, float32 (samples,) at 8 kHz, with each word at its own time."""
    if kind != "backchannel" and rng.random() > CUE_VALIDITY:
        kind = rng.choice([other for other in ("shift", "hold", "invitation") if other != kind])
    cue = CUES[kind]
    length = round(RATE_HZ * unit.end) - round(RATE_HZ * unit.start)
    tokens = [token for token in unit.tokens if speakable(token.text)]
    if not tokens or length < RATE_HZ // 50:
        return np.zeros(length, np.float32)

    # 1 at the end, 0 until CUE_S before it (later in a short unit).
    cue_s = min(CUE_S, 0.8 * (unit.end - unit.start))
    toward_end = [max(0.0, 1 - (unit.end - token.end) / cue_s) for token in tokens]
    declination = np.linspace(1, -0.5, len(tokens)) + rng.normal(0, 0.6)
    semitones = voice.semitones + declination + cue.semitones * np.array(toward_end)
    said = [speakable(token.text) for token in tokens]
    speed = 200 * 0.055 * sum(map(len, said)) / (unit.end - unit.start)  # at 200 a letter lasts about 0.055 s
    audio, starts = espeak.speak(said, semitones.tolist(), cue.ending, voice.name, np.clip(speed, 130, 400))
    if not len(audio):
        return np.zeros(length, np.float32)
    audio = signal.resample_poly(audio, RATE_HZ // 50, espeak.RATE_HZ // 50, window=_LOW_PASS)
    places = np.round(RATE_HZ * (np.array([token.start for token in tokens]) - unit.start))
    places[0] = 0
    audio = _stretch(audio, [*(starts * (RATE_HZ / espeak.RATE_HZ)), len(audio)], [*places, length])

    level = voice.level * 10 ** (rng.normal(0, 1) / 20) * (0.6 if kind == "backchannel" else 1)
    audio *= level / max(float(np.sqrt(np.mean(audio**2))), 1e-4)
    ramp = np.clip(1 + (np.arange(length) - length) / (RATE_HZ * cue_s), 0, 1)
    audio *= 10 ** (cue.gain_db * ramp / 20)
    if cue.bright:
        audio += cue.bright * ramp * (audio - signal.sosfilt(_DULL, audio))
    for token in tokens:
        if token.text.startswith("[laughter-"):  # a tremble
            start, end = (round(RATE_HZ * (t - unit.start)) for t in token[:2])
            audio[start:end] *= 1 + 0.7 * np.sin(np.arange(end - start) * (2 * np.pi * 6 / RATE_HZ))
    return _fade(audio)


def _noise(token: Token, voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """Return the sound of laughter, a breath or a noise, float32 (samples,), 6 s of it at most."""
    length = round(RATE_HZ * token.end) - round(RATE_HZ * token.start)
    if token.text == "[laughter]":
        beats = Unit(0, min(length / RATE_HZ, 6), [])
        edges = np.linspace(0, beats.end, max(2, round(5 * beats.end)) + 1)
        laugh = [Token(a, b, "ha") for a, b in pairwise(edges)]
        sound = 0.5 * _speak(beats._replace(tokens=laugh), "backchannel", voice, rng)
    else:
        band = _BREATH if token.text == "[vocalized-noise]" else _KNOCK
        sound = signal.sosfilt(band, rng.standard_normal(min(length, 6 * RATE_HZ)))
        sound *= np.hanning(len(sound)) * 0.2 * voice.level / np.sqrt(np.mean(sound**2))
    return np.pad(sound[:length], (0, length - len(sound[:length])))


def _stretch(audio: np.ndarray, source: Sequence[float], target: Sequence[float]) -> np.ndarray:
    """Stretch ``audio`` so that the samples at ``source`` come to lie at ``target``, keeping its pitch.

    WSOLA (Verhelst & Roelands, "An overlap-add technique based on waveform similarity", ICASSP 1993): frames
    of 30 ms, half overlapping, each from within 7.5 ms of its place, where it best continues the one before.
    """
    hop, search = 15 * RATE_HZ // 1000, 75 * RATE_HZ // 10000
    frame = 2 * hop
    window = signal.windows.hann(frame, sym=False)
    padded = np.pad(audio, frame + search + hop)
    length = int(target[-1])
    places = np.interp(np.arange(0, length + hop, hop), target, source).round().astype(int) + search + 2 * hop
    out = np.zeros(len(places) * hop + hop)
    previous = places[0]
    for k, place in enumerate(places):
        if k:
            region = padded[place - search : place + search + frame]
            expected = padded[previous + hop : previous + hop + frame]
            place += int(np.argmax(np.correlate(region, expected))) - search
        out[k * hop : k * hop + frame] += window * padded[place : place + frame]
        previous = place
    return out[hop : hop + length]


def _fade(audio: np.ndarray) -> np.ndarray:
    """Fade in and out over 8 ms, to avoid clicks."""
    edge = min(8 * RATE_HZ // 1000, len(audio) // 2)
    audio[:edge] *= np.linspace(0, 1, edge)
    audio[len(audio) - edge :] *= np.linspace(1, 0, edge)
    return audio


def _line(speech: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return both channels (samples, 2) after a telephone line: cross-talk, noise, narrow band."""
    line = speech + 10 ** (-42 / 20) * speech[:, ::-1]
    line = line + 10 ** (rng.uniform(-62, -56, 2) / 20) * rng.standard_normal(speech.shape)
    return np.clip(band_pass(line), -1, 1)


def _sphere(audio: np.ndarray, key: str) -> bytes:
    """Return a mu-law SPHERE file of ``audio`` (samples, 2), with ``key`` in its header."""
    buffer = io.BytesIO()
    soundfile.write(buffer, audio, RATE_HZ, format="NIST", subtype="ULAW")
    header, samples = buffer.getvalue()[:1024], buffer.getvalue()[1024:]
    field = f"render_key -s{len(key)} {key}\n".encode()
    return header.replace(b"end_head\n", field + b"end_head\n")[:1024] + samples


def _key(sides: dict[str, Path], seed: int) -> str:
    """Return a digest of all that a rendering depends on."""
    digest = hashlib.sha256(f"{VERSION} {seed}".encode())
    for side in sorted(sides):
        digest.update(sides[side].read_bytes())
    return digest.hexdigest()[:32]


def _key_of(path: Path) -> str | None:
    """Return the key in a rendered file's header; None if there is no file or it was not rendered."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        found = re.search(rb"^render_key -s\d+ (\w+)$", file.read(1024), re.MULTILINE)
    return found[1].decode() if found else None


_LOW_PASS = signal.firwin(20 * (espeak.RATE_HZ // 50) + 1, 1 / (espeak.RATE_HZ // 50), window=("kaiser", 5.0))
_DULL = signal.butter(2, 700, "lowpass", fs=RATE_HZ, output="sos")
_BREATH = signal.butter(1, (500, 2500), "bandpass", fs=RATE_HZ, output="sos")
_KNOCK = signal.butter(1, 400, "lowpass", fs=RATE_HZ, output="sos")

"""A simulator of telephone talk: transcripts in the layout and formats of Switchboard's ms98 release.

Turns consist of clauses, and clauses of words. There are pauses between and inside the clauses, and gaps and
overlaps between the turns; the listener gives backchannels at the ends of clauses. The distributions follow
those of the ms98 release (medians: word 0.22 s, pause 0.46 s, backchannel 0.44 s, gap 0.2 s with a third of
the transfers in overlap) and the literature: Heldner & Edlund, "Pauses, gaps and overlaps in
conversations", Journal of Phonetics 38, 2010; Levinson & Torreira, "Timing in turn-taking and its
implications for processing models of language", Frontiers in Psychology 6, 2015. Fewer of the turns are
very short or overlap completely, so that a few minutes contain enough events.

The next event can be predicted, but never with certainty. The words before a gap are lengthened and conclude
("i guess", "what about you"), those before a pause often trail off ("and um"), backchannels follow long
clauses (Gravano & Hirschberg, "Turn-taking cues in task-oriented dialogue", Computer Speech and Language 25,
2011), and for about half a minute one speaker speaks most of the time. `render` adds the cues in the sound.
"""

import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from vap_pipeline.io.errors import InputError

RATE_HZ = 8000  # samples; the times of the release are multiples of an audio sample
FIRST, LAST = 2001, 9999  # the conversations' numbers
CUE_VALIDITY = 0.88  # how often the end of a clause is lengthened according to the event that follows
NOTE = "Simulated conversations in the layout and formats of the ms98 transcripts: nobody said this.\n"

Rng = np.random.Generator
Token = tuple[int, int, str]  # start and end in samples, and the text

# Words in capitals stand for one of their lines, chosen at random.
GRAMMAR = {
    "CLAUSE": (
        "SUBJECT VERB THING",
        "SUBJECT VERB THING PLACE",
        "SUBJECT VERB THING TIME",
        "TIME SUBJECT VERB THING",
        "SUBJECT SAY SUBJECT VERB THING",
        "it was QUALITY for SUBJECT",
        "the NOUN PLACE was DEGREE QUALITY",
        "there is a QUALITY NOUN PLACE",
        "that is DEGREE QUALITY when SUBJECT VERB THING",
    ),
    "SUBJECT": ("i", "we", "you", "they", "my sister", "my neighbor", "the kids", "most people"),
    "VERB": ("bought", "fixed", "painted", "wanted", "found", "carried", "borrowed", "cleaned", "tried"),
    "SAY": ("think", "said", "guess", "heard", "hope", "remember"),
    "THING": ("the NOUN", "a QUALITY NOUN", "that old NOUN", "some of the NOUN", "it", "another NOUN"),
    "NOUN": (
        "garden", "kitchen", "bicycle", "boat", "fence", "camera", "dinner", "weather", "music", "furniture",
        "newspaper", "river", "lemonade", "piano", "window", "vegetables", "computer", "umbrella",
    ),
    "QUALITY": ("big", "nice", "costly", "green", "terrible", "beautiful", "quiet", "good", "heavy", "warm"),
    "DEGREE": ("really", "pretty", "so", "a little", "very"),
    "PLACE": ("at home", "in the city", "down the road", "about_1 a mile away", "by the lake", "over there"),
    "TIME": ("last summer", "every weekend", "in the morning", "these days", "a year ago", "sometimes"),
    "QUESTION": (
        "what about you", "do you like that", "have you tried it", "did you ever see the NOUN",
        "how was the NOUN", "is it QUALITY PLACE",
    ),
    "OPENER": ("well", "so", "oh", "yeah", "yeah well", "right but", "okay and", "no i mean"),
    "LINK": ("and", "but", "so", "because", "and then", "or"),
    "TRAIL": ("and um", "and", "but uh", "so um", "because", "uh", "um"),
    "CLOSER": ("i guess", "or something", "you know", "so yeah", "that is all", "i think"),
    "BACKCHANNEL": (
        "um-hum", "yeah", "uh-huh", "right", "yeah right", "oh", "sure", "okay", "oh yeah", "huh", "wow",
    ),
}  # fmt: skip
# Durations in seconds of words that are longer than their number of letters suggests.
DRAWLED = {"uh": 0.30, "um": 0.36, "yeah": 0.30, "oh": 0.26, "well": 0.27, "um-hum": 0.42, "uh-huh": 0.42}


@dataclass
class _Speaker:
    pace: float  # multiplies every word's length
    eager: float  # multiplies the rate of backchannels
    tokens: list[Token]

    @property
    def end(self) -> int:
        return self.tokens[-1][1] if self.tokens else 0

    def say(self, words: list[str], start: int, rng: Rng, stretch: float) -> int:
        """Append the words from ``start`` on, the last lengthened by ``stretch``; return where they end."""
        for left, word in zip(reversed(range(len(words))), words, strict=True):
            letters = len(word.split("_")[0].strip("[]-"))
            seconds = DRAWLED.get(word, 0.05 + 0.052 * letters) * self.pace * rng.lognormal(0, 0.25)
            seconds *= (stretch, 1 + (stretch - 1) / 2)[left] if left < 2 else 1
            end = start + round(RATE_HZ * min(max(seconds, 0.05), 1.5))
            self.tokens.append((start, end, word))
            start = end
        return start


def simulate(transcripts: Path, conversations: int, minutes: float, seed: int) -> None:
    """Write simulated ``conversations`` of ``minutes`` each below ``transcripts``, as ms98 does.

    A conversation has the files ``20/2001/sw2001A-ms98-a-word.text`` and ``…-trans.text``, and the same of B.
    The same arguments give the same bytes. An earlier simulation in ``transcripts`` is replaced, once the new
    one is whole.

    Raises:
        InputError: a setting is out of range, or ``transcripts`` holds something that was not simulated.
    """
    if not 1 <= conversations <= LAST - FIRST + 1:
        raise InputError(f"{conversations} conversations: give a number from 1 to {LAST - FIRST + 1}")
    if not 0.5 <= minutes <= 60:
        raise InputError(f"conversations of {minutes} minutes: give 0.5 to 60")
    if seed < 0:
        raise InputError(f"seed {seed}: give a whole number from 0 on")
    transcripts = transcripts.resolve()
    note = transcripts / "AAREADME.text"
    fresh = transcripts.with_name(f".{transcripts.name}.new")
    try:
        simulated = note.is_file() and note.read_bytes() == NOTE.encode()
        if transcripts.exists() and not simulated and (transcripts.is_file() or any(transcripts.iterdir())):
            raise InputError(f"{transcripts}: holds something that was not simulated; give another folder")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        (fresh / note.name).write_text(NOTE)
        for number in range(FIRST, FIRST + conversations):
            folder = fresh / str(number // 100) / str(number)
            folder.mkdir(parents=True)
            rng = np.random.default_rng([seed, number])
            end = round(60 * minutes * RATE_HZ)
            for channel, tokens in zip("AB", _conversation(end, rng), strict=True):
                _write(folder, f"sw{number}{channel}-ms98-a", tokens, end, rng)
        if transcripts.exists():
            shutil.rmtree(transcripts)
        fresh.rename(transcripts)
    except OSError as error:
        raise InputError(
            f"{transcripts}: cannot be written ({error.strerror}); make room or check its permissions"
        ) from error


def _conversation(end: int, rng: Rng) -> tuple[list[Token], list[Token]]:
    """Return the tokens of both channels, in order, of a conversation of ``end`` samples."""
    speakers = [_Speaker(rng.lognormal(0, 0.08), rng.lognormal(0, 0.3), []) for _ in range(2)]
    turn = int(rng.integers(2))
    teller, told = turn, 0
    now = _samples(rng.uniform(0.3, 1.5))
    while now < end:
        if now > told:  # who has the most to say, for the next half a minute or so
            teller, told = 1 - teller, now + _samples(rng.uniform(15, 40))
        clauses = int(rng.geometric(0.25 if turn == teller else 0.6))
        now = _turn(speakers[turn], speakers[1 - turn], now, clauses, rng)
        turn = 1 - turn
        # Floor transfer offset: a third of overlaps, and gaps with a long tail.
        offset = (
            -min(rng.exponential(0.35), 1.2) if rng.random() < 0.33 else min(rng.lognormal(-1.0, 0.8), 2.5)
        )
        now = max(now + _samples(offset), speakers[turn].end + _samples(0.1))
    for speaker in speakers:
        speaker.tokens = [token for token in speaker.tokens if token[1] < end - RATE_HZ // 4]
        _add_noise(speaker, end, rng)
    return speakers[0].tokens, speakers[1].tokens


def _turn(speaker: _Speaker, listener: _Speaker, now: int, clauses: int, rng: Rng) -> int:
    """Let ``speaker`` speak from ``now`` on, ``listener`` say backchannels; return the turn's end."""
    for clause in range(clauses):
        last = clause == clauses - 1
        words = _words("OPENER" if clause == 0 else "LINK", rng) if rng.random() < 0.6 else []
        words += _words("QUESTION" if last and rng.random() < 0.25 else "CLAUSE", rng)
        if rng.random() < 0.35:
            words += _words("CLOSER" if last == (rng.random() < CUE_VALIDITY) else "TRAIL", rng)
        if rng.random() < 0.3:
            now = _hesitate(speaker, words, now, rng)
        # The listener joins in after a long clause more often than after a short one.
        eager = listener.eager * (0.55 if len(words) > 6 else 0.3)
        invited = not last and rng.random() < eager
        lengthened = last if rng.random() < CUE_VALIDITY else not last
        now = speaker.say(words, now, rng, stretch=1.45 if lengthened else 1.2 if invited else 1.05)
        if invited:
            start = now + _samples(np.clip(rng.normal(0.1, 0.18), -0.25, 0.6))
            if start > listener.end + _samples(0.3):
                listener.say(_words("BACKCHANNEL", rng), start, rng, stretch=1.2)
        if not last and rng.random() < 0.9:  # the others are run on
            now += _samples(np.clip(rng.lognormal(-0.8, 0.6), 0.08, 2.0))
    if rng.random() < 0.06:
        start = now + _samples(rng.uniform(0.06, 0.3))
        speaker.tokens.append((start, start + _samples(rng.uniform(0.3, 1.2)), "[laughter]"))
    return now


def _hesitate(speaker: _Speaker, words: list[str], now: int, rng: Rng) -> int:
    """Speak the first of ``words``, off the list, and pause, often after a filler or a word broken off."""
    cut = int(rng.integers(1, max(2, len(words) - 1)))
    said, words[:] = words[:cut], words[cut:]
    next_word = words[0] if words else ""
    if next_word.isalpha() and len(next_word) > 3 and rng.random() < 0.4:
        said.append(f"{next_word[:2]}[{next_word[2:]}]-")
    elif rng.random() < 0.6:
        said.append(("uh", "um")[rng.integers(2)])
    end = speaker.say(said, now, rng, stretch=1.1)
    return end + (_samples(rng.uniform(0.1, 0.7)) if words else 0)


def _add_noise(speaker: _Speaker, end: int, rng: Rng) -> None:
    """Put noises and breaths into some of the long silences, and let some words be laughed."""
    tokens: list[Token] = []
    for start, stop, word in [*speaker.tokens, (end, end, "")]:
        silent = start - (tokens[-1][1] if tokens else 0)
        if silent > 3 * RATE_HZ and rng.random() < 0.15:
            noise = start - int(silent * rng.uniform(0.4, 0.6))
            length = _samples(rng.uniform(0.15, 0.8))
            tokens.append((noise, noise + length, ("[noise]", "[vocalized-noise]")[rng.integers(2)]))
        if word.isalpha() and rng.random() < 0.004:
            word = f"[laughter-{word}]"
        tokens.append((start, stop, word))
    speaker.tokens = tokens[:-1]


def _words(symbol: str, rng: Rng) -> list[str]:
    """Expand a symbol of the grammar."""
    options = GRAMMAR[symbol]
    words = options[rng.integers(len(options))].split()
    return [word for part in words for word in (_words(part, rng) if part in GRAMMAR else [part])]


def _samples(seconds: float) -> int:
    return round(seconds * RATE_HZ)


def _write(folder: Path, name: str, tokens: list[Token], end: int, rng: Rng) -> None:
    """Write one channel's two files: utterances and ``[silence]`` that tile it from 0 to ``end``.

    As in the release, an utterance has about half a second of silence at both ends, and a pause of over a
    second is a boundary, with an utterance of nothing but silence where it is long.
    """
    # Boundaries of utterances, all inside silence.
    cuts = [0]
    stops = [stop for _, stop, _ in tokens]
    for stop, start in zip([0, *stops], [*(start for start, _, _ in tokens), end], strict=True):
        pause = start - stop
        if pause > 2 * RATE_HZ:
            margins = _samples(float(rng.uniform(0.3, 0.6))), _samples(float(rng.uniform(0.3, 0.6)))
            cuts += [cut for cut in (stop + margins[0], start - margins[1]) if stop > 0 or cut > RATE_HZ // 2]
        elif pause > RATE_HZ or (pause > RATE_HZ // 3 and stop - cuts[-1] > 8 * RATE_HZ):
            cuts.append(stop + pause // 2)
    cuts = sorted({*cuts, end})

    word_lines, trans_lines, i = [], [], 0
    for number, (begin, finish) in enumerate(pairwise(cuts), start=1):
        utterance = f"{name}-{number:04d}"
        at, texts = begin, []
        while i < len(tokens) and tokens[i][1] <= finish:
            start, stop, text = tokens[i]
            if start > at:
                word_lines.append(_line(utterance, at, start, "[silence]"))
            word_lines.append(_line(utterance, start, stop, text))
            texts.append(text)
            at, i = stop, i + 1
        if finish > at:
            word_lines.append(_line(utterance, at, finish, "[silence]"))
        trans_lines.append(_line(utterance, begin, finish, " ".join(texts) or "[silence]"))
    (folder / f"{name}-word.text").write_text("".join(word_lines))
    (folder / f"{name}-trans.text").write_text("".join(trans_lines))


def _line(utterance: str, start: int, end: int, text: str) -> str:
    return f"{utterance} {start / RATE_HZ:.6f} {end / RATE_HZ:.6f} {text}\n"

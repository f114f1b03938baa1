"""The speech synthesiser espeak-ng, through ctypes: text in, samples and the times of words or phones out.

The library keeps its state in global variables. Use it from one thread, and from a fresh process if the
samples must be the same every time.
"""

import ctypes
from dataclasses import dataclass, field
from functools import cache
from xml.sax.saxutils import escape

import espeakng_loader
import numpy as np

RATE_HZ = 22050  # of all of espeak's own voices
PAUSE = "_"  # the phone of silence
_SYNCHRONOUS, _PHONEME_EVENTS, _UTF8_SSML, _SPEED = 2, 1, 1 | 0x10, 1
_LIST_TERMINATED, _MARK, _PHONEME = 0, 3, 7  # types of events
_PITCH, _STEPS_PER_SEMITONE = 50, 5  # a voice's own pitch, and a semitone, on SSML's scale 0 to 99 (measured)


class _Id(ctypes.Union):
    _fields_ = (("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))  # of a mark, and of a phoneme


class _Event(ctypes.Structure):  # espeak_EVENT of espeak-ng's speak_lib.h
    _fields_ = (
        *((name, ctypes.c_int) for name in ("type", "identifier", "text", "length", "audio_ms", "sample")),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


def speak(
    words: list[str], semitones: list[float], ending: str, voice: str, words_per_minute: float
) -> tuple[np.ndarray, np.ndarray]:
    """Speak ``words`` as one phrase.

    Args:
        semitones: the pitch of each word, relative to the voice's own.
        ending: punctuation that shapes the last accent: with ``.`` it falls, with ``,`` and ``?`` it rises.
        voice: a voice and a variant of espeak's, such as ``en-us+f2``.
        words_per_minute: 80 to 450.

    Returns:
        The samples, float32 in [−1, 1) at 22,050 Hz, without the silence at both ends, and the sample where
        each word starts, int64 (len(words),), the first 0.
    """
    ssml = " ".join(
        f'<prosody pitch="{round(min(max(_PITCH + _STEPS_PER_SEMITONE * pitch, 0), 99))}">'
        f'<mark name="{i}"/>{escape(word)}{ending if i == len(words) - 1 else ""}</prosody>'
        for i, (word, pitch) in enumerate(zip(words, semitones, strict=True))
    )
    audio, heard = _synthesise(ssml, voice, words_per_minute)
    loud = np.flatnonzero(np.abs(audio) > 0.01)
    if not len(loud):
        return np.zeros(0, np.float32), np.zeros(len(words), np.int64)
    first, last = loud[0], loud[-1] + 1
    starts = np.array([heard.marks.get(i, 0) for i in range(len(words))]) - first
    starts = np.maximum.accumulate(np.clip(starts, 0, last - first))
    starts[0] = 0
    return audio[first:last], starts


def phones(text: str, voice: str, words_per_minute: float = 175) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Speak ``text``, and return its phones too. The arguments are as for :func:`speak`.

    Returns:
        The samples, float32 in [−1, 1) at 22,050 Hz; the phones' names in espeak's notation, without stress
        marks, ``_`` for silence; and the sample where each phone starts, int64 (phones,), the first 0. A
        phone lasts until the next one starts.
    """
    audio, heard = _synthesise(escape(text), voice, words_per_minute)
    names, starts = [PAUSE], [0]
    for name, start in heard.phones:
        bare = name.lstrip("',%=")
        names.append(PAUSE if bare.startswith(PAUSE) else bare or PAUSE)
        starts.append(min(max(start, starts[-1]), len(audio)))
    return audio, names, np.array(starts)


@dataclass
class _Heard:
    """The output of the library: samples, and the samples at which marks and phonemes start."""

    chunks: list[np.ndarray] = field(default_factory=list)
    marks: dict[int, int] = field(default_factory=dict)
    phones: list[tuple[str, int]] = field(default_factory=list)


def _synthesise(ssml: str, voice: str, words_per_minute: float) -> tuple[np.ndarray, _Heard]:
    library, heard = _library()
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise RuntimeError(f"espeak-ng has no voice {voice}")
    library.espeak_SetParameter(_SPEED, round(min(max(words_per_minute, 80), 450)), 0)
    text = f"<speak>{ssml}</speak>".encode()
    for output in (heard.chunks, heard.marks, heard.phones):
        output.clear()
    if library.espeak_Synth(text, len(text) + 1, 0, 1, 0, _UTF8_SSML, None, None) != 0:
        raise RuntimeError(f"espeak-ng could not speak: {ssml}")
    audio = np.concatenate([np.zeros(0, np.int16), *heard.chunks]).astype(np.float32) / 32768
    return audio, heard


@cache
def _library() -> tuple[ctypes.CDLL, _Heard]:
    """Return the library and the object in which its callback collects the output."""
    heard = _Heard()

    def collect(samples, count, events) -> int:
        if count > 0:
            heard.chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        i = 0
        while events[i].type != _LIST_TERMINATED:
            if events[i].type == _MARK:
                heard.marks[int(events[i].id.name)] = events[i].sample
            elif events[i].type == _PHONEME:
                heard.phones.append((events[i].id.string.decode(), events[i].sample))
            i += 1
        return 0

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    data = str(espeakng_loader.get_data_path()).encode()
    if library.espeak_Initialize(_SYNCHRONOUS, 0, data, _PHONEME_EVENTS) != RATE_HZ:
        raise RuntimeError("espeak-ng cannot load its data; reinstall the package espeakng-loader")
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # by default it is the time of the clock
    callback = _Callback(collect)
    library.__dict__["callback"] = callback  # must live as long as the library
    library.espeak_SetSynthCallback(callback)
    return library, heard

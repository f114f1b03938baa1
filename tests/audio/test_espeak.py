import numpy as np
import pytest

from vap_pipeline.audio import espeak

VOWELS = {"a", "i:", "I", "E", "0", "A:", "aU", "eI", "oU", "u:", "@", "V", "i", "O:"}


@pytest.mark.parametrize("voice", ["en-us+m1", "en-us+f2"])
def test_phones_start_where_they_are_heard(voice: str) -> None:
    audio, names, starts = espeak.phones("She sees me & pays. Papa says so.", voice)
    assert audio.dtype == np.float32 and np.abs(audio).max() > 0.1
    assert starts[0] == 0 and (np.diff(starts) >= 0).all() and starts[-1] <= len(audio)
    assert len(names) == len(starts)

    said = "".join(name if name != espeak.PAUSE else " " for name in names).split()
    assert said[0].startswith("Si:si:zmi:") and said[-1].endswith("soU")
    level, hiss = {}, {}
    for name, start, end in zip(names, starts, [*starts[1:], len(audio)], strict=True):
        if end - start > 200:
            piece = audio[start:end]
            level.setdefault(name, []).append(np.sqrt(np.mean(piece**2)))
            hiss.setdefault(name, []).append(np.mean(np.diff(np.sign(piece)) != 0) * espeak.RATE_HZ / 2)
    vowels = [x for name in level.keys() & VOWELS for x in level[name]]
    assert len(vowels) >= 8
    assert np.median(vowels) > 30 * max(level[espeak.PAUSE])  # the full stop between the sentences
    assert min(hiss["s"]) > 3000 > 2000 > max(x for name in hiss.keys() & VOWELS for x in hiss[name])


def test_an_unknown_voice_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no voice nobody"):
        espeak.phones("Hello.", "nobody")

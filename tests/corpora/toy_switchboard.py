"""Small corpora in Switchboard's formats, written by hand."""

from collections.abc import Iterable
from pathlib import Path

Word = tuple[int, float, float, str]  # utterance, start, end, token

A = [
    (1, 0.0, 1.0, "[silence]"),
    (1, 1.0, 1.25, "well"),
    (1, 1.25, 1.5, "[silence]"),
    (1, 1.5, 2.0, "w[ent]-"),
    (2, 2.0, 12.0, "[silence]"),
]
B = [(1, 0.0, 4.0, "[silence]"), (2, 4.0, 4.5, "um-hum"), (3, 4.5, 12.0, "[silence]")]


def lines(speaker: str, words: Iterable[Word]) -> str:
    return "".join(f"{speaker}-ms98-a-{u:04d} {start:f} {end:f} {token}\n" for u, start, end, token in words)


def transcripts(root: Path, number: int, a: Iterable[Word] = A, b: Iterable[Word] = B) -> Path:
    """Write both sides of a conversation where the release has them; return the folder."""
    folder = root / str(number)[:2] / str(number)
    folder.mkdir(parents=True)
    for side, words in (("A", a), ("B", b)):
        (folder / f"sw{number}{side}-ms98-a-word.text").write_text(lines(f"sw{number}{side}", words))
    return folder


def sphere(
    path: Path, seconds: float = 12.0, channels: int = 2, coding: str = "ulaw", missing: int = 0
) -> Path:
    """Write a SPHERE file of silence that lacks its last ``missing`` bytes."""
    frames = round(8000 * seconds)
    header = (
        "NIST_1A\n   1024\nconversation_id -s4 2001\nsample_rate -i 8000\n"
        f"channel_count -i {channels}\nsample_count -i {frames}\nsample_n_bytes -i 1\n"
        f"sample_coding -s{len(coding)} {coding}\nend_head\n"
    ).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((header.ljust(1024) + b"\xff" * frames * channels)[: 1024 + frames * channels - missing])
    return path

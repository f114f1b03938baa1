"""One conversation in every format, written by the program's own library if there is one, and read back."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import lhotse
import numpy as np
import pylangacq
import pytest
import soundfile
import srt
import webvtt
from lhotse.audio import AudioSource
from lhotse.supervision import AlignmentItem
from praatio import textgrid
from pympi import Eaf

from vap_pipeline.corpora import segments
from vap_pipeline.turn_taking.voice_activity import voice_activity

RATE_HZ = 8000
SECONDS = 20
NAMES = ("call0", "call1", "call2")
Rows = list[tuple[int, float, float]]


def dialogue(seed: int) -> Rows:
    """Rows of channel, start and end to the millisecond; both may speak at once, pauses last over 0.05 s."""
    rng = np.random.default_rng(seed)
    rows: Rows = []
    for channel in (0, 1):
        steps = rng.integers(60, 1_500, 16).cumsum()
        rows += [
            (channel, int(a) / 1000, int(b) / 1000) for a, b in steps.reshape(-1, 2) if b < SECONDS * 1000
        ]
    return sorted(rows, key=lambda row: row[1])


CALLS = {name: dialogue(seed) for seed, name in enumerate(NAMES)}
EVERY = [(name, *row) for name, rows in CALLS.items() for row in rows]


def _lines(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n")


def _per_call(folder: Path, suffix: str, text: Callable[[Rows], str]) -> None:
    for name, rows in CALLS.items():
        (folder / f"{name}{suffix}").write_text(text(rows))


def _per_speaker(folder: Path, suffix: str, text: Callable[[Rows], str]) -> None:
    for name, rows in CALLS.items():
        for side in (0, 1):
            mine = [row for row in rows if row[0] == side]
            (folder / f"{name}_{'AB'[side]}{suffix}").write_text(text(mine))


def csv_table(folder: Path) -> None:
    _lines(
        folder / "t.csv",
        ["conversation,channel,start_s,end_s", *(f"{n},{c},{s},{e}" for n, c, s, e in EVERY)],
    )


def tsv_with_decimal_commas_in_utf16(folder: Path) -> None:
    lines = ["File name\tChannel\tStart (s)\tEnd (s)"]
    lines += [f"{n}.wav\t{c + 1}\t{s}\t{e}".replace(".", ",").replace(",wav", ".wav") for n, c, s, e in EVERY]
    (folder / "t.tsv").write_bytes("\r\n".join(lines).encode("utf-16"))


def csv_of_durations_in_ms_per_call(folder: Path) -> None:
    def text(rows: Rows) -> str:
        lines = [f'{"LR"[c]}; "{s * 1000:.0f}"; {(e - s) * 1000:.0f}' for c, s, e in rows]
        return "\n".join(["Channel; start_ms; duration_ms", *lines, ";;"])

    _per_call(folder, ".csv", text)


def json_rows(folder: Path) -> None:
    names = ("conversation", "channel", "start_s", "end_s")
    (folder / "t.json").write_text(json.dumps([dict(zip(names, row, strict=True)) for row in EVERY]))


def json_lines(folder: Path) -> None:
    names = ("recording_name", "speaker", "begin", "end")
    _lines(folder / "t.jsonl", [json.dumps(dict(zip(names, row, strict=True))) for row in EVERY])


def json_words(folder: Path) -> None:
    def text(rows: Rows) -> str:
        return json.dumps([{"speaker": "AB"[c], "word": "x", "start": s, "end": e} for c, s, e in rows])

    _per_call(folder, ".json", text)


def whisperx(folder: Path) -> None:
    def text(rows: Rows) -> str:
        found = [
            {
                "start": s,
                "end": e,
                "text": " hm 5",
                "speaker": f"SPEAKER_0{c}",
                "words": [{"word": "hm", "start": s, "end": e, "score": 0.9}, {"word": "5"}],
            }
            for c, s, e in rows
        ]
        return json.dumps({"segments": found, "word_segments": [w for f in found for w in f["words"]]})

    _per_call(folder, ".json", text)


def whisper_per_speaker(folder: Path) -> None:
    def text(rows: Rows) -> str:
        return json.dumps({"text": "", "segments": [{"id": 0, "start": s, "end": e} for _, s, e in rows]})

    _per_speaker(folder, ".json", text)


def rttm(folder: Path) -> None:
    line = "SPEAKER {} 1 {:.3f} {:.3f} <NA> <NA> {} <NA> <NA>"
    _lines(folder / "t.rttm", [line.format(n, s, e - s, "AB"[c]) for n, c, s, e in EVERY])


def stm(folder: Path) -> None:
    _lines(
        folder / "t.stm",
        [";; a comment", "call0 1 x 0 1 inter_segment_gap"]
        + [f"{n} {c + 1} {n}{'fm'[c]} {s} {e} <o,f0,female> words" for n, c, s, e in EVERY],
    )


def _supervisions() -> lhotse.SupervisionSet:
    return lhotse.SupervisionSet.from_segments(
        lhotse.SupervisionSegment(
            id=f"{n}-{i}", recording_id=n, start=s, duration=e - s, channel=c, speaker=f"{n}-{'AB'[c]}"
        )
        for i, (n, c, s, e) in enumerate(EVERY)
    )


def _recordings(folder: Path) -> lhotse.RecordingSet:
    return lhotse.RecordingSet.from_recordings(
        lhotse.Recording.from_file(folder.parent / "audio" / f"{name}.wav", recording_id=name)
        for name in NAMES
    )


def ctm(folder: Path) -> None:
    """By hand: lhotse rounds to hundredths of a second."""
    _lines(folder / "t.ctm", [f"{n} {c + 1} {s:.3f} {e - s:.3f} hm 0.99" for n, c, s, e in EVERY])


def kaldi(folder: Path) -> None:
    lhotse.kaldi.export_to_kaldi(_recordings(folder), _supervisions(), folder)


def lhotse_manifests(folder: Path) -> None:
    _recordings(folder).to_file(folder / "x_recordings_all.jsonl.gz")
    _supervisions().to_file(folder / "x_supervisions_all.jsonl.gz")


def lhotse_of_two_files(folder: Path) -> None:
    recordings = [
        lhotse.Recording(
            id=name,
            sources=[
                AudioSource("file", [c], str(folder.parent / f"mono/{name}_{'AB'[c]}.wav")) for c in (1, 0)
            ],
            sampling_rate=RATE_HZ,
            num_samples=RATE_HZ * SECONDS,
            duration=float(SECONDS),
        )
        for name in NAMES
    ]
    lhotse.RecordingSet.from_recordings(recordings).to_file(folder / "recordings.jsonl")
    aligned = [
        lhotse.SupervisionSegment(
            s.id, s.recording_id, s.start, s.duration + 0.02, s.channel, speaker=s.speaker
        ).with_alignment("word", [AlignmentItem("hm", s.start, s.duration)])
        for s in _supervisions()
    ]
    lhotse.SupervisionSet.from_segments(aligned).to_file(folder / "supervisions.jsonl")


def _textgrid(path: Path, rows: Rows, form: str, name: str = "{}") -> None:
    grid = textgrid.Textgrid()
    for side in sorted({row[0] for row in rows}):
        entries = [(s, e, "hm") for c, s, e in rows if c == side]
        tier = textgrid.IntervalTier(name.format("AB"[side]), entries, 0, SECONDS)
        grid.addTier(tier)
    grid.save(str(path), form, includeBlankSpaces=True)  # type: ignore[arg-type]


def long_textgrid(folder: Path) -> None:
    for name, rows in CALLS.items():
        _textgrid(folder / f"{name}.TextGrid", rows, "long_textgrid")


def short_textgrid_of_aligner(folder: Path) -> None:
    for name, rows in CALLS.items():
        _textgrid(folder / f"{name}.TextGrid", rows, "short_textgrid", "{} - words")


def textgrid_per_speaker_in_utf16(folder: Path) -> None:
    for name, rows in CALLS.items():
        for side in (0, 1):
            path = folder / f"{name}.{('left', 'right')[side]}.TextGrid"
            _textgrid(path, [row for row in rows if row[0] == side], "long_textgrid", "utterances")
            path.write_bytes(path.read_text().encode("utf-16"))


def elan(folder: Path) -> None:
    for name, rows in CALLS.items():
        document = Eaf(author="nobody")
        document.remove_tier("default")
        document.add_linguistic_type("notes", "Symbolic_Association")
        for side, tier in enumerate("AB"):
            document.add_tier(tier)
            document.add_tier(f"{tier} notes", "notes", parent=tier)
            for _, s, e in (row for row in rows if row[0] == side):
                document.add_annotation(tier, round(s * 1000), round(e * 1000), "hm")
                document.add_ref_annotation(f"{tier} notes", tier, round(s * 1000) + 1, "note")
        document.to_file(str(folder / f"{name}.eaf"))


def _chat(rows: Rows) -> str:
    head = "@UTF8\n@Begin\n@Languages:\teng\n@Participants:\tA A Adult, B B Adult\n"
    head += "".join(f"@ID:\teng|x|{side}|||||Adult|||\n" for side in "AB")
    text = "".join(f"*{'AB'[c]}:\thm .\n\t\x15{s * 1000:.0f}_{e * 1000:.0f}\x15\n" for c, s, e in rows)
    return f"{head}{text}@End\n"


def chat(folder: Path) -> None:
    _per_call(folder, ".cha", _chat)
    assert (
        pylangacq.CHAT.from_files([str(folder / "call0.cha")]).n_files == 1
    )  # in its own library's eyes too


def chat_as_srt(folder: Path) -> None:
    _per_call(folder, ".srt", lambda rows: next(iter(pylangacq.CHAT.from_strs([_chat(rows)]).to_srt_strs())))


def srt_per_speaker(folder: Path) -> None:
    def text(rows: Rows) -> str:
        return srt.compose(
            srt.Subtitle(1, timedelta(seconds=s), timedelta(seconds=e), "note: hm") for _, s, e in rows
        )

    _per_speaker(folder, ".srt", text)


def vtt_with_voices(folder: Path) -> None:
    for name, rows in CALLS.items():
        captions = webvtt.WebVTT()
        for c, s, e in rows:
            times = (f"00:00:{t:06.3f}" for t in (s, e))
            captions.captions.append(webvtt.Caption(*times, f"<v Speaker {c + 1}>hm</v>"))
        captions.save(str(folder / f"{name}.vtt"))


def audacity_per_speaker(folder: Path) -> None:
    _per_speaker(
        folder, ".txt", lambda rows: "".join(f"{s:.6f}\t{e:.6f}\thm\n\\\t100\t200\n" for _, s, e in rows)
    )


def audacity(folder: Path) -> None:
    _per_call(folder, ".txt", lambda rows: "".join(f"{s:.6f}\t{e:.6f}\t{'AB'[c]}\n" for c, s, e in rows))


def seamless_interaction(folder: Path) -> None:
    """Files of two participants; their recordings are called likewise."""
    for name, rows in CALLS.items():
        for side in (0, 1):
            words = [{"word": "hm", "start": s, "end": e, "score": 1.0} for c, s, e in rows if c == side]
            spoken = [{"words": words, "start": 0, "end": SECONDS, "transcript": "hm"}]
            content = {"id": name, "metadata:transcript": spoken, "metadata:vad": []}
            (folder / f"{_seamless(name, side)}.json").write_text(json.dumps(content))


def _seamless(name: str, side: int) -> str:
    return f"V00_S0809_I0000058{name[-1]}_P094{7 + side}"


WRITERS = [
    csv_table, tsv_with_decimal_commas_in_utf16, csv_of_durations_in_ms_per_call, json_rows, json_lines,
    json_words, whisperx, whisper_per_speaker, rttm, stm, ctm, kaldi, lhotse_manifests, lhotse_of_two_files,
    long_textgrid, short_textgrid_of_aligner, textgrid_per_speaker_in_utf16, elan, chat,
    chat_as_srt, srt_per_speaker, vtt_with_voices, audacity_per_speaker, audacity, seamless_interaction,
]  # fmt: skip


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Silence of 20 s: two-channel files, mono files of each speaker, and those of participants."""
    folder = tmp_path_factory.mktemp("recorded")
    for inner in ("audio", "mono", "seamless"):
        (folder / inner).mkdir()
    for name in NAMES:
        soundfile.write(folder / f"audio/{name}.wav", np.zeros((RATE_HZ * SECONDS, 2)), RATE_HZ)
        for side in (0, 1):
            mono = np.zeros(RATE_HZ * SECONDS)
            soundfile.write(folder / f"mono/{name}_{'AB'[side]}.wav", mono, RATE_HZ)
            soundfile.write(folder / f"seamless/{_seamless(name, side)}.wav", mono, RATE_HZ)
    return folder


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_every_format_gives_the_same_voice_activity(write: Callable[[Path], None], recorded: Path) -> None:
    labels = recorded / write.__name__
    labels.mkdir()
    write(labels)
    own = {"lhotse_of_two_files": "mono", "seamless_interaction": "seamless"}  # a file per speaker
    audio = recorded / own.get(write.__name__, "audio")
    found = segments.read(audio, [labels], test=1, folds=2)
    names = found.select()
    assert len(names) == 3
    for (name, activity), rows in zip(found.activity(sorted(names)), CALLS.values(), strict=True):
        channel, start, end = (np.array(column) for column in zip(*rows, strict=True))
        expected = voice_activity(channel, start, end, len(activity))
        np.testing.assert_array_equal(activity, expected, err_msg=name)
        assert 0.1 < expected.mean() < 0.9
    assert all(("|" in c.audio) == (write.__name__ in own) for c in found.conversations)

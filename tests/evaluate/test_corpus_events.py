"""Events of a corpus: the files against the plain reference, window by window."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import reference
import torch

from vap_pipeline.artefacts import manifest
from vap_pipeline.evaluate import corpus_events
from vap_pipeline.evaluate.__main__ import main
from vap_pipeline.io.errors import InputError
from vap_pipeline.turn_taking.events import EVENTS


def region(window: int, start: int, end: int) -> dict:
    """Frames in the window, and seconds in the conversation."""
    return {
        "start": start,
        "end": end,
        "start_s": (800 * window + start) / 100,
        "end_s": (800 * window + end) / 100,
    }


def expected(corpus, names: list[str], settings: dict | None = None) -> tuple[list[dict], list[dict]]:
    """The rows of both files, worked out the plain way."""
    read = manifest.read(corpus.manifest)
    duration = {c.conversation: c.duration_s for c in read.conversations}
    events, non_shift = [], []
    for name in names:
        segments = list(zip(*(column.tolist() for column in read.segments()[name]), strict=True))
        va = reference.voice_activity(segments, int(100 * duration[name]) + 1)
        for window in range((len(va) - 1000) // 800 + 1):
            cut = va[800 * window : 800 * window + 1200]
            cut += [(0, 0)] * (1200 - len(cut))
            found = sorted(
                reference.find_events(cut, settings), key=lambda row: (EVENTS.index(row[0]), row[2], row[1])
            )
            place = {"conversation": name, "window": window}
            for event, speaker, start, end in found:
                events.append(place | {"event": event, "speaker": speaker} | region(window, start, end))
            frames = reference.non_shift(cut, settings)
            for speaker in (0, 1):
                own = [frame for frame, x in frames if x == speaker]
                for start in own:
                    if start - 1 not in own:
                        end = next(frame for frame in range(start, 1001) if frame not in own)
                        non_shift.append(place | {"speaker": speaker} | region(window, start, end))
    return events, non_shift


@pytest.mark.parametrize("block", [1, 7, 500])
@pytest.mark.parametrize(("split", "names"), [("test", "tu"), ("train", "abc"), ("all", "abctu")])
def test_files_hold_what_the_reference_finds(corpus, tmp_path, monkeypatch, split, names, block):
    monkeypatch.setattr(corpus_events, "BLOCK_WINDOWS", block)
    out = tmp_path / "deep" / "events.parquet"
    written = corpus_events.write_events(corpus.manifest, split, out)
    assert written == (out, tmp_path / "deep" / "events.non_shift.parquet")
    events, non_shift = expected(corpus, list(names))
    assert pq.read_table(written[0]).to_pylist() == events
    assert pq.read_table(written[1]).to_pylist() == non_shift
    assert events and non_shift


def test_columns(corpus, tmp_path):
    out = tmp_path / "events.parquet"
    assert main(["events", "--manifest", str(corpus.manifest), "--split", "all", "--out", str(out)]) == 0
    place = [("conversation", pa.string()), ("window", pa.int32())]
    region = [("speaker", pa.int8()), ("start", pa.int16()), ("end", pa.int16())]
    region += [("start_s", pa.float64()), ("end_s", pa.float64())]
    assert pq.read_schema(out).equals(pa.schema([*place, ("event", pa.string()), *region]))
    assert pq.read_schema(tmp_path / "events.non_shift.parquet").equals(pa.schema([*place, *region]))
    assert set(pc.unique(pq.read_table(out)["event"]).to_pylist()) == set(EVENTS)


def test_events_with_other_settings(corpus, tmp_path):
    out = tmp_path / "events.parquet"
    flags = ["--hs-pre-offset-shift", "0.5", "--bc-max-duration-frames", "1.5", "--metric-min-context", "2"]
    assert main(["events", "--manifest", str(corpus.manifest), "--out", str(out), *flags]) == 0
    hs = reference.PAPER["hs"] | {"pre_offset_shift": 0.5}
    bc = reference.PAPER["bc"] | {"max_duration_frames": 1.5}
    changed = reference.PAPER | {"hs": hs, "bc": bc, "metric": {"min_context": 2}}
    table = pq.read_table(out)
    assert table.to_pylist() == expected(corpus, list("abctu"), changed)[0]
    recorded = json.loads(table.schema.metadata[b"event_settings"])
    assert (recorded["hs"], recorded["bc"]) == (hs, bc) and recorded["metric"]["min_context"] == 2


def test_a_conversation_without_speech_has_no_events(tmp_path):
    silent = manifest.Conversation("silent", "", 30.0, "test")
    folder = tmp_path / "quiet"
    manifest.write(manifest.Manifest([silent], manifest.SCHEMA.empty_table()), folder)
    for path in corpus_events.write_events(folder, "test", tmp_path / "events.parquet"):
        assert pq.read_table(path).num_rows == 0


def test_a_split_without_conversations(tmp_path, capsys):
    only = manifest.Conversation("only", "", 30.0, "test")
    folder = tmp_path / "small"
    manifest.write(manifest.Manifest([only], manifest.SCHEMA.empty_table()), folder)
    out = tmp_path / "events.parquet"
    with pytest.raises(InputError, match="train"):
        corpus_events.write_events(folder, "train", out)
    assert main(["events", "--manifest", str(folder), "--split", "train", "--out", str(out)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("out", ["folder", ".", "", "/"])
def test_a_folder_to_write_to_is_refused_before_the_work(corpus, tmp_path, monkeypatch, capsys, out):
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(manifest, "read")
    assert main(["events", "--manifest", str(corpus.manifest), "--out", out]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and f"{Path(out)}: is a folder" in error
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_an_unwritable_file(corpus, tmp_path, capsys):
    (tmp_path / "file").touch()
    out = str(tmp_path / "file" / "events.parquet")
    assert main(["events", "--manifest", str(corpus.manifest), "--out", out]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and out.removesuffix(".parquet") in error


def test_threads_are_given_back(corpus, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        corpus_events.write_events(corpus.manifest, "test", tmp_path / "events.parquet")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)

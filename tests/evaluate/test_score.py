import json
import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import reference
import torch
from sklearn.metrics import f1_score

from vap_pipeline.artefacts import manifest
from vap_pipeline.artefacts.store import open_store
from vap_pipeline.artefacts.windows import Windows, activity, inputs, swap
from vap_pipeline.evaluate import score
from vap_pipeline.evaluate.__main__ import main
from vap_pipeline.models import checkpoint
from vap_pipeline.settings.events import PAPER
from vap_pipeline.turn_taking import projection
from vap_pipeline.turn_taking.events import EVENTS, find_events, windows
from vap_pipeline.turn_taking.scores import METRICS, regions

TASKS = {  # event -> score and label, as the table of the definitions has them
    "shift": ("f1_hold_shift", 1),
    "hold": ("f1_hold_shift", 0),
    "short": ("f1_short_long", 1),
    "long": ("f1_short_long", 0),
    "pre_shift": ("f1_predict_shift", 1),
    "pre_backchannel": ("f1_predict_backchannel", 1),
}


def run(corpus, name: str, out: Path, *flags: str) -> int:
    places = ("--checkpoint", corpus.checkpoint(name), "--store", corpus.store, "--manifest", corpus.manifest)
    own = ("--corpus", "small", *map(str, places), "--out", str(out), "--device", "cpu")
    return main(["score", *own, *flags])


@pytest.fixture(scope="module", params=["discrete", "comparative"])
def scored(
    request: pytest.FixtureRequest, corpus, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp(request.param) / "fold-0.parquet"
    assert run(corpus, request.param, out) == 0
    return request.param, out


def one_by_one(
    corpus, name: str, conversations: list[str]
) -> tuple[dict[str, list[tuple[int, float]]], float]:
    """Score window by window, frame by frame: labels and probabilities of each score, and the mean loss."""
    network, config = checkpoint.load(str(corpus.checkpoint(name)))
    cut = Windows(open_store(corpus.store), conversations)
    drawn = regions(((c, cut.store.va(c)) for c in conversations), config["seed"]).to_pylist()
    found: dict[str, list[tuple[int, float]]] = {metric: [] for metric in METRICS}
    losses = []
    for swapped in False, True:
        for i in range(len(cut)):
            batch = swap(cut.batch([i]), torch.tensor([swapped]))
            with torch.no_grad():
                features, va, history = inputs(batch)
                logits = network(features, va, history)
                p, p_bc = projection.probabilities(logits, va, name)
            if not swapped:
                losses.append(projection.loss(logits, projection.labels(activity(batch), name), name).item())
            p, p_bc = p[0].numpy(), None if p_bc is None else p_bc[0].numpy()
            events = find_events(activity(batch))
            for event, x, start, end in zip(
                events.event, events.speaker, events.start, events.end, strict=True
            ):
                metric, label = TASKS[EVENTS[event]]
                for t in range(start, end):
                    if metric == "f1_short_long":
                        value = 1 - p[t, x] if p_bc is None else p_bc[t, x]
                    elif metric == "f1_predict_backchannel":
                        if p_bc is None:
                            continue
                        value = p_bc[t, x]
                    else:
                        value = p[t, x] if label else 1 - p[t, x]
                    found[metric].append((label, float(value)))
            for row in drawn:
                if row["index"] == i and row["label"] == 0 and row["task"].startswith("predict"):
                    x = 1 - row["speaker"] if swapped else row["speaker"]
                    for t in range(row["start"], row["end"]):
                        if row["task"] == "predict_shift":
                            found["f1_predict_shift"].append((0, float(1 - p[t, x])))
                        elif p_bc is not None:
                            found["f1_predict_backchannel"].append((0, float(p_bc[t, 1 - x])))
    return found, float(np.mean(losses))


def test_scores_are_those_of_scoring_window_by_window(corpus, scored: tuple[str, Path]):
    name, out = scored
    rows = {(row["metric"], row["level"]): row for row in pq.read_table(out).to_pylist()}
    validation, _ = one_by_one(corpus, name, ["a", "b"])
    test, loss = one_by_one(corpus, name, ["t", "u"])
    assert rows["loss", "frame"]["value"] == pytest.approx(loss, rel=1e-5)
    for metric in METRICS:
        examples = test["f1_hold_shift" if metric == "f1_shift" else metric]
        if metric == "f1_predict_backchannel" and name == "comparative":
            assert (metric, "frame") not in rows
            continue
        row = rows[metric, "frame"]
        labels, values = (np.array(column) for column in zip(*examples, strict=True))
        assert (row["support_0"], row["support_1"]) == ((labels == 0).sum(), (labels == 1).sum())
        average = "binary" if metric == "f1_shift" else "weighted"
        # Another batch may move a probability across the threshold, in the last digit.
        expected = f1_score(labels, values >= row["threshold"], average=average)
        assert row["value"] == pytest.approx(expected, abs=2e-3)
        if metric in ("f1_hold_shift", "f1_shift"):
            assert row["threshold"] == 0.5
        else:
            labels, values = (np.array(column) for column in zip(*validation[metric], strict=True))
            chosen = f1_score(labels, values >= row["threshold"], average="weighted")
            for step in range(1, 100, 4):
                assert chosen > f1_score(labels, values >= step / 100, average="weighted") - 2e-3


def test_events_redraw_the_scores_without_the_model(scored: tuple[str, Path]):
    _, out = scored
    events = pq.read_table(out.with_suffix(".events.parquet")).to_pylist()
    for row in pq.read_table(out).to_pylist():
        if row["metric"] in ("loss", "f1_shift"):
            continue
        there = [event for event in events if event["task"] == row["metric"].removeprefix("f1_")]
        if row["level"] == "event":
            labels, values = zip(*((e["label"], e["probability"]) for e in there), strict=True)
        else:
            labels, values = zip(*((e["label"], v) for e in there for v in e["probabilities"]), strict=True)
        said = np.array(values, np.float32) >= np.float32(row["threshold"])
        assert row["value"] == pytest.approx(f1_score(labels, said, average="weighted"))
    for event in events:
        assert event["start_s"] == (event["window"] * 800 + event["start"]) / 100
        assert len(event["probabilities"]) == event["end"] - event["start"]
        assert event["probability"] == pytest.approx(np.mean(event["probabilities"]), abs=1e-6)
    first = [
        (e["conversation"], e["window"], e["task"], e["label"], e["speaker"], e["start"]) for e in events
    ]
    once = [place for place, event in zip(first, events, strict=True) if not event["swapped"]]
    assert sorted(once * 2) == sorted(first)  # every region in both passes


def test_timeline_is_a_stretch_without_gaps(corpus, scored: tuple[str, Path]):
    name, out = scored
    timeline = pq.read_table(out.with_suffix(".timeline.parquet"))
    frames = timeline["frame"].to_numpy()
    assert (np.diff(frames) == 1).all() and len(frames) == 2600
    conversation = timeline["conversation"][0].as_py()
    va = open_store(corpus.store).va(conversation)[frames[0] : frames[-1] + 1]
    assert (np.stack([timeline["va_0"], timeline["va_1"]], 1) == va).all()
    assert np.allclose(timeline["p_0"].to_numpy() + timeline["p_1"].to_numpy(), 1, atol=1e-5)
    assert np.isnan(timeline["p_bc_0"].to_numpy()).all() == (name == "comparative")
    # Frames 1000 to 1799 of the stretch are those from 200 on of its second window.
    network, _ = checkpoint.load(str(corpus.checkpoint(name)))
    windows = Windows(open_store(corpus.store), [conversation])
    with torch.no_grad():
        features, activity_, history = inputs(windows.batch([frames[0] // 800 + 1]))
        p, _ = projection.probabilities(network(features, activity_, history), activity_, name)
    assert timeline["p_0"].to_numpy()[1000:1800] == pytest.approx(p[0, 200:, 0].numpy(), abs=1e-5)


def test_same_seed_gives_the_same_bytes(corpus, scored: tuple[str, Path], tmp_path: Path):
    name, out = scored
    assert run(corpus, name, tmp_path / out.name) == 0
    for path in out.parent.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in out.parent.iterdir()}


def test_batch_size_changes_nothing(corpus, scored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    name, out = scored
    monkeypatch.setattr(score, "BATCH_WINDOWS", 3)
    assert run(corpus, name, tmp_path / out.name) == 0
    a, b = (pq.read_table(path.with_suffix(".events.parquet")) for path in (out, tmp_path / out.name))
    assert a.drop_columns(["probability", "probabilities"]).equals(
        b.drop_columns(["probability", "probabilities"])
    )
    flat_a, flat_b = (table["probabilities"].combine_chunks().flatten().to_numpy() for table in (a, b))
    assert flat_a == pytest.approx(flat_b, abs=1e-5)


def test_bad_input_gets_one_line(corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def refused(*flags: str, name: str = "discrete") -> str:
        out = tmp_path / "scores" / "fold-0.parquet"
        assert run(corpus, name, out, *flags) == 2
        assert not out.parent.exists()
        error = capsys.readouterr().err
        assert error.startswith("vap-evaluate: error: ") and error.count("\n") == 1
        return error

    assert "--fold 1 was given, but this checkpoint is of 0" in refused("--fold", "1")
    assert "--model independent" in refused("--model", "independent")
    assert "--device" in refused("--device", "abacus")
    assert str(tmp_path / "no") in refused("--checkpoint", str(tmp_path / "no"))
    assert str(tmp_path / "no") in refused("--store", str(tmp_path / "no"))
    assert str(tmp_path / "no") in refused("--manifest", str(tmp_path / "no"))

    other = tmp_path / "checkpoint"
    network, config = checkpoint.load(str(corpus.checkpoint()))
    config["store"]["encoder"]["name"] = "another encoder"
    checkpoint.save(network, config, str(other))
    error = refused("--checkpoint", str(other))
    assert "another encoder" in error and "random numbers" in error
    config["store"]["encoder"]["name"] = "random numbers"
    config["data"] = {"validation": "the digest of other conversations"}
    checkpoint.save(network, config, str(other))
    assert "conversations of fold 0 have changed" in refused("--checkpoint", str(other))
    del config["seed"]
    checkpoint.save(network, config, str(other))
    assert "does not say seed" in refused("--checkpoint", str(other))

    listed = manifest.read(corpus.manifest)
    listed.conversations.append(manifest.Conversation("z", "", 20.0, "test", None))
    manifest.write(listed, tmp_path / "manifest")
    assert "1 of the 3 conversations of the test set are missing, such as z" in refused(
        "--manifest", str(tmp_path / "manifest")
    )
    listed.conversations = [c for c in listed.conversations if c.split != "test"]
    listed.voice_activity = listed.voice_activity.slice(0, 0)
    manifest.write(listed, tmp_path / "manifest")
    assert "test set" in refused("--manifest", str(tmp_path / "manifest"))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_garbled_checkpoint_changes_no_score_silently(corpus, scored, tmp_path: Path, name: str):
    """What is read of it is checksummed; config.json, which nobody needs to read, may be anything."""
    which, out = scored
    other, choose = tmp_path / "checkpoint", random.Random(0)
    shutil.copytree(corpus.checkpoint(which), other)
    whole = (other / name).read_bytes()
    for at in [*choose.sample(range(len(whole)), 3), whole.find(b'"seed') + 9]:
        (other / name).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        status = run(corpus, which, tmp_path / out.name, "--checkpoint", str(other))
        assert status == (2 if name == "model.safetensors" else 0)
        if not status:
            assert (tmp_path / out.name).read_bytes() == out.read_bytes()


def params(tmp_path: Path, events: str) -> tuple[str, str]:
    """A settings file in which only the events differ from the defaults."""
    path = tmp_path / "params.yaml"
    path.write_text(f"small: {{events: {events}}}\n")
    return "--params", str(path)


def test_event_settings_of_a_checkpoint_and_of_its_scores_agree(corpus, scored, tmp_path: Path, capsys):
    name, out = scored
    assert json.loads(pq.read_schema(out).metadata[b"event_settings"]) == PAPER.described()
    other = tmp_path / "fold-0.parquet"
    # The settings file asks for other events than the checkpoint's: refused, with what differs.
    assert run(corpus, name, other, *params(tmp_path, "{hs: {pre_offset_shift: 0.5}}")) == 2
    error = capsys.readouterr().err
    assert "other event settings (events.hs.pre_offset_shift was 1.0, is 0.5)" in error
    assert error.count("\n") == 1 and not other.exists()
    # Other windows than those of training are refused whoever asks for them.
    assert run(corpus, name, other, "--window-s", "9") == 2
    assert "other windows (events.window_s was 10.0, is 9.0)" in capsys.readouterr().err
    # A flag is meant: thresholds are found anew, for these events.
    assert run(corpus, name, other, "--hs-pre-offset-shift", "0.5") == 0
    assert json.loads(pq.read_schema(other).metadata[b"event_settings"])["hs"]["pre_offset_shift"] == 0.5
    counts = {(row["metric"], row["level"]): row["support_1"] for row in pq.read_table(other).to_pylist()}
    store = open_store(corpus.store)
    plain = [
        event
        for conversation in ("t", "u")
        for window in windows(torch.from_numpy(store.va(conversation)))
        for event in reference.find_events(
            [tuple(frame) for frame in window.tolist()],
            reference.PAPER | {"hs": reference.PAPER["hs"] | {"pre_offset_shift": 0.5}},
        )
    ]
    shifts = sum(event[0] == "shift" for event in plain)
    before = {(row["metric"], row["level"]): row["support_1"] for row in pq.read_table(out).to_pylist()}
    assert counts["f1_hold_shift", "event"] == 2 * shifts >= before["f1_hold_shift", "event"]


def test_a_model_must_be_named(capsys: pytest.CaptureFixture[str]):
    assert main(["score", "--corpus", "small"]) == 2
    assert "--model and --fold, or --checkpoint" in capsys.readouterr().err


def test_outputs_that_are_no_numbers_are_refused(corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    network, config = checkpoint.load(str(corpus.checkpoint()))
    with torch.no_grad():
        network.head.bias.fill_(torch.nan)
    checkpoint.save(network, config, str(tmp_path / "checkpoint"))
    assert (
        run(corpus, "discrete", tmp_path / "out.parquet", "--checkpoint", str(tmp_path / "checkpoint")) == 2
    )
    assert "NaN or infinite" in capsys.readouterr().err
    assert not (tmp_path / "out.parquet").exists()

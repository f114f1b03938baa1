"""Windows: against the store they are cut from, and histories made of whole conversations."""

import numpy as np
import pytest
import torch

from vap_pipeline.artefacts import store
from vap_pipeline.artefacts.windows import Windows, activity, inputs, swap
from vap_pipeline.turn_taking.voice_activity import activity_history

FRAMES = {"short": 999, "one": 1000, "two": 1801, "long": 15_003}  # 0, 1, 2 and 18 windows


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    generator = np.random.default_rng(3)
    arrays = {
        name: (
            generator.standard_normal((n, 8)).astype(np.float16),
            (generator.random((n // 50 + 1, 2)) < 0.4).astype(np.uint8).repeat(50, 0)[:n],
        )
        for name, n in FRAMES.items()
    }
    path = tmp_path_factory.mktemp("windows") / "features.zarr"
    writer = store.create(path, {"dim": 8})
    for name, (features, va) in arrays.items():
        writer.write(name, features, va, {})
    return store.open_store(path), arrays


def test_windows_of_conversations_in_their_order(corpus):
    opened, _ = corpus
    windows = Windows(opened, ["long", "short", "one", "two"])
    assert len(windows) == 18 + 0 + 1 + 2
    places = [(windows.conversation(i), windows.start(i)) for i in range(len(windows))]
    assert places == [("long", 800 * i) for i in range(18)] + [("one", 0), ("two", 0), ("two", 800)]


def test_batch_holds_what_the_store_holds(corpus):
    opened, arrays = corpus
    windows = Windows(opened, list(FRAMES))
    index = np.random.default_rng(0).permutation(len(windows))
    batch = windows.batch(index)
    features, va, history = inputs(batch)
    assert batch["index"].tolist() == index.tolist()
    for row, i in enumerate(index):
        frames, spoken = arrays[windows.conversation(i)]
        start = windows.start(i)
        assert torch.equal(features[row], torch.from_numpy(frames[start : start + 1000]).float())
        assert torch.equal(va[row], torch.from_numpy(spoken[start : start + 1000]).float())
        ahead = np.concatenate([spoken, np.zeros((200, 2), np.uint8)])[start : start + 1200]
        assert np.array_equal(activity(batch)[row].numpy(), ahead)  # silence after the end
        whole = activity_history(torch.from_numpy(spoken))
        torch.testing.assert_close(history[row], whole[start : start + 1000])


def test_before_counts_what_lies_more_than_a_minute_back(corpus):
    opened, arrays = corpus
    windows = Windows(opened, ["long"])
    before = windows.batch([0, 7, 8, 17])["before"]
    spoken = arrays["long"][1]
    expected = [spoken[: max(start - 6000, 0)].sum(0).tolist() for start in (0, 5600, 6400, 13_600)]
    assert before.tolist() == expected
    assert before[:2].sum() == 0 and before[2:].min() > 0


def test_swap_exchanges_the_speakers_of_the_marked_windows_alone(corpus):
    opened, _ = corpus
    batch = Windows(opened, ["long"]).batch(range(18))
    mask = torch.arange(18) % 2 == 0
    features, va, history = inputs(batch)
    swapped_features, swapped_va, swapped_history = inputs(swap(batch, mask))
    assert torch.equal(features, swapped_features)
    assert torch.equal(va[~mask], swapped_va[~mask]) and torch.equal(va[mask].flip(-1), swapped_va[mask])
    torch.testing.assert_close(swapped_history[mask], 1 - history[mask])
    assert torch.equal(history[~mask], swapped_history[~mask])


def test_digest_follows_conversations_notes_and_voice_activity(corpus, tmp_path):
    opened, arrays = corpus
    digests = {Windows(opened, names).digest() for names in (["one", "two"], ["two", "one"], ["one"])}
    for note, flip in (({}, False), ({"audio": "other"}, False), ({}, True)):
        writer = store.create(tmp_path / f"{len(digests)}.zarr", {"dim": 8})
        va = arrays["one"][1].copy()
        va[0, 0] ^= flip
        writer.write("one", arrays["one"][0], va, note)
        digests.add(Windows(store.open_store(writer.path), ["one"]).digest())
    assert len(digests) == 3 + 2  # the same conversation with the same notes has the same digest


def test_no_conversations_no_windows(corpus):
    assert len(Windows(corpus[0], [])) == 0

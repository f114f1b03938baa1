"""Published checkpoints: their numbers, both lines, both kinds of file, and wrong files."""

import json
import runpy

import numpy as np
import plain_stereo
import pytest
import soundfile
import torch
import torchaudio
from published_state import state

from vap_pipeline.io.errors import InputError
from vap_pipeline.models import published
from vap_pipeline.turn_taking.near_future import entropy, p_future, p_now

RECORDINGS = ("MUL1423", "SNG0072", "SNG0480")


def saved(folder, tensors, name="model.pt"):
    path = folder / name
    torch.save(tensors, path)
    return path


def assert_like_plain(model, tensors, features, stride, tolerance, **plain):
    with torch.inference_mode():
        logits, activity = (row[0].double() for row in model(features[None]))
    expected_logits, expected_activity = plain_stereo.outputs(tensors, features, stride, **plain)
    assert logits.shape == expected_logits.shape and activity.shape == expected_activity.shape
    assert np.abs(logits.numpy() - expected_logits).max() < tolerance
    assert np.abs(activity.numpy() - expected_activity).max() < tolerance


@pytest.fixture(scope="module")
def formula(shared, tmp_path_factory):
    """The state dict with formula weights, and the file it is saved in."""
    folder = shared / "stereo"
    made = runpy.run_path(str(folder / "formula_weights.py"))["state_dict"](folder / "published_layout.json")
    return made, saved(tmp_path_factory.mktemp("formula"), made)


def audio(shared, name, start_s, end_s):
    samples, rate = soundfile.read(
        shared / "two_channel_phone" / f"{name}.flac",
        start=start_s * 8000,
        stop=end_s * 8000,
        dtype="float32",
    )
    return torchaudio.functional.resample(torch.from_numpy(samples.T.copy()), rate, 16_000)


@pytest.mark.parametrize("name", RECORDINGS)
def test_it_gives_the_numbers_of_the_published_program(shared, formula, name):
    model, encoder, rate_from, _ = published.load(formula[1])
    assert rate_from == "50 Hz: kernel 5 in a file of the older line"
    with torch.inference_mode():
        logits, activity = (row[0] for row in model(encoder(audio(shared, name, 20, 40))[None]))
    results = {
        "p_now": p_now(logits),
        "p_future": p_future(logits),
        "H": entropy(logits),
        "vad": activity.sigmoid(),
        "logits_every_20": logits[::20],
    }
    with np.load(shared / "stereo" / "expected.npz") as expected:
        for quantity, values in results.items():
            wanted = expected[f"{name}/{quantity}"]
            assert values.shape == wanted.shape
            assert np.abs(values.numpy() - wanted).max() < 1e-4, quantity


@pytest.mark.parametrize("seconds", [5, 60])
def test_real_windows_of_other_lengths_are_like_the_plain_reading(shared, formula, seconds):
    model, encoder, *_ = published.load(formula[1])
    with torch.inference_mode():
        features = encoder(audio(shared, "SNG0480", 10, 10 + seconds))
    assert_like_plain(model, formula[0], features, 2, 1e-4)


@pytest.mark.parametrize(
    ("kernel", "encoder", "stride", "rate_hz"),
    [
        (1, True, 1, 100),
        (5, True, 2, 50),
        (11, True, 5, 20),
        (5, False, 5, 20),
        (10, False, 10, 10),
        (20, False, 20, 5),
    ],
)
def test_both_lines_are_like_the_plain_reading_at_the_rate_of_their_kernel(
    tmp_path, kernel, encoder, stride, rate_hz
):
    tensors = state(kernel=kernel, encoder=encoder)
    model, own_encoder, rate_from, _ = published.load(saved(tmp_path, tensors))
    assert model.config.rate_hz == rate_hz and rate_from.startswith(f"{rate_hz} Hz: ")
    assert (own_encoder is not None) == encoder
    features = torch.randn(2, 503, 16, generator=torch.Generator().manual_seed(1))
    after = "last" if encoder else "first"
    assert_like_plain(model, tensors, features, stride, 1e-5, activity_after=after)


@pytest.mark.parametrize("seconds", [5, 60])
def test_windows_of_other_lengths_are_like_the_plain_reading(tmp_path, seconds):
    tensors = state(stereo_layers=1)
    model = published.load(saved(tmp_path, tensors)).model
    features = torch.randn(2, 100 * seconds, 16, generator=torch.Generator().manual_seed(2))
    assert_like_plain(model, tensors, features, 2, 1e-5)


def test_a_limit_of_context_is_like_the_plain_reading(tmp_path):
    tensors = state()
    model = published.load(saved(tmp_path, tensors)).model
    features = torch.randn(2, 300, 16, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        logits = model(features[None], context_s=0.5).logits[0]
    expected, _ = plain_stereo.outputs(tensors, features, 2, context=25)
    assert np.abs(logits.numpy() - expected).max() < 1e-5
    assert np.abs(logits.numpy() - plain_stereo.outputs(tensors, features, 2)[0]).max() > 1e-3


def test_the_frame_rate_is_as_given_or_from_the_name(tmp_path):
    tensors = state(kernel=5)
    for name, given, expected in (
        ("a.pt", 20.0, "20 Hz: as given"),
        ("vap_20Hz_5s.pt", None, "20 Hz: from the file's name"),
        ("vap_20hz.pt", 50.0, "50 Hz: as given"),
        ("of_16000hz_speech.pt", None, "50 Hz: kernel 5 in a file of the older line"),
    ):
        model, _, rate_from, _ = published.load(saved(tmp_path, tensors, name), given)
        assert rate_from == expected and f"{model.config.rate_hz:g} Hz" in rate_from


def test_a_lightning_file_is_the_same_model(tmp_path):
    tensors = state()
    renamed = {
        f"net.{name.replace('vap_head.', 'vap_head.projection_head.')}": t for name, t in tensors.items()
    }
    renamed["VAP.codebook.emb.weight"] = torch.zeros(256, 8)
    plain = published.load(saved(tmp_path, tensors))
    other = published.load(saved(tmp_path, {"state_dict": renamed, "epoch": 3}, "model.ckpt"))
    for ours, theirs in ((plain.model, other.model), (plain.encoder, other.encoder)):
        a, b = ours.state_dict(), theirs.state_dict()
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert other.unused == ()


def test_what_is_not_used_is_named(tmp_path):
    assert published.load(saved(tmp_path, state() | {"lid.weight": torch.zeros(2)})).unused == ("lid.weight",)


def test_the_layout_has_no_other_tensors(shared):
    layout = dict(json.loads((shared / "stereo" / "published_layout.json").read_text()))
    ours = {name: list(tensor.shape) for name, tensor in state(width=256, feedforward=768).items()}
    assert ours == layout


def without(name):
    return {key: value for key, value in state().items() if key != name}


WRONG = {
    "not a file of tensors": b"\x80\x04\x95pickle",
    "no tensors in it": {},
    "ar.combinator.h0_a.weight is missing": without("ar.combinator.h0_a.weight"),
    "ar.layers.1.mha_cross.key.weight is missing": without("ar.layers.1.mha_cross.key.weight"),
    "gAR.baseNet.weight_hh_l0 is missing": without("encoder.encoder.gAR.baseNet.weight_hh_l0"),
    "size mismatch": state() | {"va_classifier.weight": torch.zeros(2, 16)},
    "other slopes than ALiBi's": state() | {"ar.layers.0.mha.m": torch.ones(4)},
    "vap_head.bias is not finite": state() | {"vap_head.bias": torch.full((256,), torch.nan)},
    "numbers the classes differently": state() | {"objective.codebook.emb.weight": torch.zeros(256, 8)},
    "has 8 outputs, not the 256": state(outputs=8),
    "not a published stereo model (": state() | {"encoder.downsample.1.weight": torch.zeros(3)},
    "width is 6; it must be even and a multiple of the 4 heads": state()
    | {"ar.combinator.h0_a.weight": torch.zeros(6, 6)},
    "kernel 7 is of no known frame rate": state(kernel=7),
    "more than one layer a channel": state() | {"ar_channel.layers.1.mha.m": torch.ones(4)},
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("reason", WRONG)
def test_wrong_files_are_refused_in_one_line(tmp_path, reason):
    content = WRONG[reason]
    if isinstance(content, bytes):
        path = tmp_path / "model.pt"
        path.write_bytes(content)
    else:
        path = saved(tmp_path, content)
    with pytest.raises(InputError) as error:
        published.load(path)
    assert reason in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_and_a_rate_that_does_not_fit_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        published.load(tmp_path / "none.pt")
    for kernel, rate_hz in ((5, 100.0), (1, 50.0), (5, 30.0)):
        with pytest.raises(InputError, match=f"kernel {kernel} does not fit {rate_hz:g} Hz"):
            published.load(saved(tmp_path, state(kernel=kernel)), rate_hz)

"""The stereo model: what it sees, what a swap of the speakers does, its objectives and its sizes."""

import pytest
import torch

from vap_pipeline.io.errors import InputError
from vap_pipeline.models.build import build
from vap_pipeline.models.checkpoint import load, save
from vap_pipeline.models.config import ModelConfig
from vap_pipeline.models.network import ProjectionModel
from vap_pipeline.models.stereo import StereoModel
from vap_pipeline.turn_taking.frame_rates import RATES_HZ, stride
from vap_pipeline.turn_taking.projection import MODELS, OUTPUTS

SMALL = {"input_dim": 12, "width": 16, "layers": 3, "heads": 2, "feedforward": 24}


def stereo(**settings):
    torch.manual_seed(0)
    return build(ModelConfig(trunk="stereo", **SMALL | settings)).eval()


def features(frames=100, batch=2, dim=12):
    return torch.randn(batch, 2, frames, dim, generator=torch.Generator().manual_seed(1))


def test_its_usual_settings_are_the_published_ones():
    config = ModelConfig(trunk="stereo")
    assert (config.rate_hz, config.kernel, config.positions, config.context_frames) == (50, 5, "alibi", None)
    assert (config.layers, config.heads, config.width, config.feedforward) == (4, 4, 256, 768)


def test_the_published_size():
    """Everything in the published layout but the encoder, the slopes and the table of class bits."""
    attention, feedforward, norm = 4 * 256**2, 2 * 256 * 768, 2 * 256
    self_layer = attention + feedforward + 2 * norm
    stereo_layer = 2 * attention + feedforward + 3 * norm
    downsample = 256 * 256 * 5 + 256 + norm
    heads = 257 * 256 + 257
    expected = downsample + self_layer + 3 * stereo_layer + 2 * 256**2 + norm + heads
    assert sum(p.numel() for p in StereoModel(ModelConfig(trunk="stereo")).parameters()) == expected


@pytest.mark.parametrize("positions", ["alibi", "sinusoidal"])
def test_swapped_channels_swap_what_belongs_to_a_channel(positions):
    model = stereo(positions=positions)
    with torch.no_grad():
        hidden, swapped = model.trunk(features()), model.trunk(features().flip(1))
        for ours, theirs in ((hidden.first, swapped.first), (hidden.last, swapped.last)):
            torch.testing.assert_close(theirs, ours.flip(1))
        assert (swapped.joint - hidden.joint).abs().max() > 0.01
        a, b = model.trunk.combine_a, model.trunk.combine_b
        model.trunk.combine_a, model.trunk.combine_b = b, a
        torch.testing.assert_close(model.trunk(features().flip(1)).joint, hidden.joint)


def test_the_channels_hear_each_other_only_in_the_stereo_layers():
    model, x = stereo(), features()
    other = x.clone()
    other[:, 1] += 1
    with torch.no_grad():
        before, after = model.trunk(x), model.trunk(other)
    assert torch.equal(before.first[:, 0], after.first[:, 0])
    assert (before.last[:, 0] != after.last[:, 0]).any(-1).all()


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("positions", ["alibi", "sinusoidal"])
def test_a_frame_sees_the_features_up_to_its_first_10_ms_and_no_later(rate_hz, positions):
    model, x = stereo(frame_rate_hz=rate_hz, positions=positions), features(203)
    at = 4 * stride(rate_hz)
    changed = x.clone()
    changed[:, :, at] += 1
    with torch.no_grad():
        before, after = model(x), model(changed)
    frames = -(-203 // stride(rate_hz))
    assert before.logits.shape == (2, frames, 256) and before.voice_activity.shape == (2, frames, 2)
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a[:, :4], b[:, :4]) and (a[:, 4] != b[:, 4]).any(-1).all()


@pytest.mark.parametrize("positions", ["alibi", "sinusoidal"])
def test_a_limit_of_context_bounds_what_a_frame_sees(positions):
    """Of 3 layers with 5 frames: 4 + 4 + 4 frames back. Of one layer, exactly 4."""
    for layers, reach in ((1, 4), (3, 12)):
        model = stereo(positions=positions, context_s=0.05, frame_rate_hz=100, layers=layers)
        x = features(60)
        changed = x.clone()
        changed[:, :, 20] += 1
        with torch.no_grad():
            differs = (model(x).logits != model(changed).logits).any(-1)
        assert not differs[:, :20].any() and not differs[:, 21 + reach :].any()
        assert differs[:, 20 : 21 + reach].all()


def test_a_context_given_with_the_call_is_the_models_own_limit():
    model = stereo()
    limited = stereo(context_s=0.2)
    limited.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(model(features(), context_s=0.2), limited(features()))


@pytest.mark.parametrize("objective", MODELS)
def test_any_objective_is_a_setting(objective):
    logits, activity = stereo(model=objective)(features())
    assert logits.shape == (2, 50, OUTPUTS[objective]) and activity.shape == (2, 50, 2)


def test_voice_activity_is_read_after_the_first_or_the_last_layer():
    first, last = stereo(activity_layer="first"), stereo()
    first.load_state_dict(last.state_dict())
    with torch.no_grad():
        hidden = last.trunk(features())
        for model, channels in ((first, hidden.first), (last, hidden.last)):
            expected = torch.stack([model.activity_head(channels[:, c])[..., 0] for c in (0, 1)], -1)
            torch.testing.assert_close(model(features()).voice_activity, expected)


def test_all_weights_learn():
    model = stereo().train()
    logits, activity = model(features())
    (logits.square().mean() + activity.square().mean()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


@pytest.mark.parametrize("settings", [{}, {"frame_rate_hz": 20, "kernel": 5, "activity_layer": "first"}])
def test_saved_and_loaded_it_says_the_same(tmp_path, settings):
    model = stereo(**settings)
    save(model, {"fold": 1}, str(tmp_path))
    loaded, _ = load(str(tmp_path))
    assert isinstance(loaded, StereoModel) and loaded.config == model.config
    assert torch.equal(loaded(features()).logits, model(features()).logits)


@pytest.mark.parametrize(
    "wrong",
    [{"trunk": "quadro"}, {"frame_rate_hz": 30}, {"positions": "learned"}, {"context_s": 0}, {"kernel": 0}],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(InputError):
        ModelConfig(**{"trunk": "stereo", **wrong})


def activity(frames=90):
    generator = torch.Generator().manual_seed(2)
    va = (torch.rand(2, frames, 2, generator=generator) < 0.5).float()
    return va, torch.rand(2, frames, 5, generator=generator)


@pytest.mark.parametrize("trunk", ["mono", "timing"])
@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("positions", ["alibi", "sinusoidal"])
def test_mono_and_timing_at_every_rate_see_no_later_frame(trunk, rate_hz, positions):
    torch.manual_seed(0)
    model = build(ModelConfig(trunk=trunk, frame_rate_hz=rate_hz, positions=positions, **SMALL)).eval()
    size = stride(rate_hz)
    x, (va, history) = features(90)[:, 0], activity()
    at = 2 * size  # the first 10 ms of frame 2
    later = (x.clone(), va.clone(), history.clone())
    for tensor in later:
        tensor[:, at:] = 1 - tensor[:, at:]
    with torch.no_grad():
        before, after = model(x, va, history), model(*later)
    assert before.shape == (2, -(-90 // size), 256)
    assert torch.equal(before[:, :2], after[:, :2]) and (before[:, 2] != after[:, 2]).any(-1).all()


def test_timing_has_no_audio():
    model = build(ModelConfig(trunk="timing", **SMALL)).eval()
    va, history = activity()
    assert isinstance(model, ProjectionModel) and not hasattr(model, "feature")
    assert torch.equal(model(None, va, history), model(features(90)[:, 0], va, history))

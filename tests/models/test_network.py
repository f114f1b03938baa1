"""The model: against PyTorch's own transformer layers, its causality, and what is saved of it."""

import json
import math
import random

import pytest
import safetensors.torch
import torch
from torch import nn

from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError
from vap_pipeline.io.tensors import digest, unpack
from vap_pipeline.models.checkpoint import load, save
from vap_pipeline.models.layers import Dropout, positions
from vap_pipeline.models.network import ModelConfig, ProjectionModel
from vap_pipeline.turn_taking.projection import MODELS, OUTPUTS

SMALL = {"input_dim": 12, "width": 16, "layers": 2, "heads": 2, "feedforward": 24}


def example(frames=50, dim=12, batch=2):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(batch, frames, dim, generator=generator)
    va = (torch.rand(batch, frames, 2, generator=generator) < 0.4).float()
    return features, va, torch.rand(batch, frames, 5, generator=generator)


def test_positions_by_hand():
    expected = [[0, 1, 0, 1], [math.sin(1), math.cos(1), math.sin(0.01), math.cos(0.01)]]
    torch.testing.assert_close(positions(2, 4, torch.device("cpu")), torch.tensor(expected))


def test_dropout_drops_as_often_as_it_should_and_keeps_the_mean():
    """Every place of a row alike: four elements share a random number."""
    torch.manual_seed(0)
    dropout, n = Dropout(0.1), 200_000
    x = torch.ones(n, 7, requires_grad=True)
    y = dropout(x)
    dropped = (y == 0).double()
    five_sigma = 5 * math.sqrt(0.1 * 0.9 / n)
    assert (dropped.mean(0) - 0.1).abs().max() < five_sigma
    together = (dropped[:, :-1] * dropped[:, 1:]).mean(0)  # neighbours know nothing of each other
    assert (together - 0.01).abs().max() < 5 * math.sqrt(0.01 * 0.99 / n)
    torch.testing.assert_close(y[y != 0], torch.full((int((y != 0).sum()),), 1 / 0.9), rtol=1e-4, atol=0)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    torch.manual_seed(0)
    assert torch.equal(dropout(x), y) and not torch.equal(dropout(x), y)


def test_dropout_at_its_ends():
    x = torch.randn(3, 5)
    assert torch.equal(Dropout(0.0)(x), x) and torch.equal(Dropout(0.5).eval()(x), x)
    assert Dropout(0.999999)(x).isfinite().all()


def test_forward_is_a_pre_norm_transformer_with_a_causal_mask():
    """The same weights in torch's TransformerEncoderLayer, which is given the mask explicitly."""
    torch.manual_seed(0)
    model = ProjectionModel(ModelConfig(model="discrete", **SMALL)).eval()
    features, va, history = example()
    activity = model.voice_activity(va) + model.history(history)
    normed = (activity - activity.mean(-1, keepdim=True)) / (
        activity.var(-1, correction=0, keepdim=True) + 1e-5
    ).sqrt()
    x = model.feature(features) + normed * model.norm_activity.weight + model.norm_activity.bias
    x = x + positions(50, 16, x.device)
    for layer in model.layers:
        peer = nn.TransformerEncoderLayer(16, 2, 24, 0.0, "gelu", batch_first=True, norm_first=True).train()
        names = {
            "self_attn.in_proj_weight": "query_key_value.weight",
            "self_attn.in_proj_bias": "query_key_value.bias",
            "self_attn.out_proj.weight": "attention_out.weight",
            "self_attn.out_proj.bias": "attention_out.bias",
            "linear1.weight": "feedforward_in.weight",
            "linear1.bias": "feedforward_in.bias",
            "linear2.weight": "feedforward_out.weight",
            "linear2.bias": "feedforward_out.bias",
            "norm1.weight": "norm_attention.weight",
            "norm1.bias": "norm_attention.bias",
            "norm2.weight": "norm_feedforward.weight",
            "norm2.bias": "norm_feedforward.bias",
        }
        own = layer.state_dict()
        peer.load_state_dict({theirs: own[ours] for theirs, ours in names.items()})
        x = peer(x, src_mask=nn.Transformer.generate_square_subsequent_mask(50))
    torch.testing.assert_close(model(features, va, history), model.head(model.norm(x)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_frame_sees_no_later_frame(name):
    torch.manual_seed(1)
    model = ProjectionModel(ModelConfig(model=name, **SMALL)).eval()
    inputs = example()
    changed = tuple(torch.cat([x[:, :30], x[:, 30:] + 1], 1) for x in inputs)
    before, after = model(*inputs), model(*changed)
    assert before.shape == (2, 50, OUTPUTS[name])
    assert torch.equal(before[:, :30], after[:, :30])
    assert (before[:, 30:] != after[:, 30:]).any(-1).all()


def test_features_of_the_models_own_width_enter_unchanged():
    model = ProjectionModel(ModelConfig(**SMALL | {"input_dim": 16}))
    assert not [name for name, _ in model.named_parameters() if name.startswith("feature.")]


def test_the_papers_size():
    layer = 4 * 256 * 256 + 2 * 256 * 768 + 4 * 256 + 768 + 256 + 4 * 256
    inputs = (2 + 5 + 2) * 256 + 2 * 256
    assert sum(p.numel() for p in ProjectionModel(ModelConfig()).parameters()) == (
        4 * layer + inputs + 2 * 256 + 257 * 256
    )


@pytest.mark.parametrize("place", ["{}/a/b", "memory://checkpoints/a"])
def test_saved_and_loaded_it_says_the_same(tmp_path, place):
    folder = place.format(tmp_path)
    model = ProjectionModel(ModelConfig(model="independent", **SMALL)).eval()
    save(model, {"fold": 3}, folder)
    loaded, config = load(folder)
    usual = {
        "trunk": "mono",
        "frame_rate_hz": 100.0,
        "kernel": 1,
        "positions": "sinusoidal",
        "context_s": None,
    }
    usual |= {"activity_layer": "last", "dropout": 0.1}
    assert config["fold"] == 3 and config["model"] == SMALL | {"model": "independent"} | usual
    assert torch.equal(model(*example()), loaded(*example())) and not loaded.training


def test_config_json_says_what_load_returns(tmp_path):
    save(ProjectionModel(ModelConfig(**SMALL)), {"fold": 3, "seed": 4}, str(tmp_path))
    written = json.loads((tmp_path / "config.json").read_text())
    assert len(written.pop("sha256")) == 64 and written == load(str(tmp_path))[1]


def test_a_save_that_ends_between_its_two_files_leaves_a_model_that_can_be_used(tmp_path, monkeypatch):
    folder, write = str(tmp_path), files.write

    def full(path, content):
        if str(path).endswith("config.json"):
            raise InputError("no space")
        write(path, content)

    models = [ProjectionModel(ModelConfig(**SMALL)).eval() for _ in range(2)]
    save(models[0], {"fold": 1}, folder)
    monkeypatch.setattr(files, "write", full)
    with pytest.raises(InputError, match="no space"):
        save(models[1], {"fold": 2}, folder)
    loaded, config = load(folder)
    assert config["fold"] == 2 and torch.equal(loaded(*example()), models[1](*example()))


def forged(folder, model=SMALL, dtype=torch.float32, **config):
    """Write a checkpoint with a right checksum, whose config is as given."""
    tensors = {k: t.to(dtype) for k, t in ProjectionModel(ModelConfig(**SMALL)).state_dict().items()}
    config = {"model": model, **config}
    header = {"config": json.dumps(config | {"sha256": digest(config, tensors)})}
    files.write(f"{folder}/model.safetensors", safetensors.torch.save(tensors, header))


def refusal(folder):
    with pytest.raises(InputError) as error:
        load(str(folder))
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
    return str(error.value)


WRONG = [[], "x", None, {"size": 1}, SMALL | {"heads": 3}, SMALL | {"layers": 3}]
WRONG += [SMALL | {"model": "comparative"}, SMALL | {"width": 10**30}, SMALL | {"dropout": "x"}]


@pytest.mark.parametrize("value", WRONG)
def test_sizes_that_do_not_fit_the_weights_are_refused_in_one_line(tmp_path, value):
    forged(tmp_path, model=value)
    assert "model.safetensors" in refusal(tmp_path)


def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path):
    assert "no such file" in refusal(tmp_path / "nowhere")
    forged(tmp_path, dtype=torch.int32)
    assert "not float32" in refusal(tmp_path)
    for content in (b"", b"\x80\x04\x95pickle", safetensors.torch.save({"x": torch.zeros(1)})):
        (tmp_path / "model.safetensors").write_bytes(content)
        refusal(tmp_path)


def test_any_changed_byte_is_noticed(tmp_path):
    """Of weights, sizes, thresholds or seed: among others all of the header, where the config lies."""
    save(
        ProjectionModel(ModelConfig(**SMALL)), {"seed": 1, "thresholds": {"hold_shift": 0.25}}, str(tmp_path)
    )
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    expected = load(str(tmp_path))[1], unpack(whole)[0]
    header = 8 + int.from_bytes(whole[:8], "little")
    for at in [*range(0, header, 3), *random.Random(0).sample(range(header, len(whole)), 100)]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            model, config = load(str(tmp_path))
        except InputError:
            continue
        assert at < header and config == expected[0]  # a letter of JSON that means the same
        assert all(torch.equal(tensor, expected[1][name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("wrong", [{"model": "best"}, {"layers": 0}, {"heads": 3}, {"dropout": 1.0}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(InputError):
        ModelConfig(**SMALL | wrong)

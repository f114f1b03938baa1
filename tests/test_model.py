"""The model: against PyTorch's own transformer layers, its causality, and what is saved of it."""

import json
import math

import pytest
import torch
from torch import nn

from vap_pipeline.errors import InputError
from vap_pipeline.model import ModelConfig, ProjectionModel, load, positions, save
from vap_pipeline.projection import MODELS, OUTPUTS

SMALL = {"input_dim": 12, "width": 16, "layers": 2, "heads": 2, "feedforward": 24}


def example(frames=50, dim=12, batch=2):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(batch, frames, dim, generator=generator)
    va = (torch.rand(batch, frames, 2, generator=generator) < 0.4).float()
    return features, va, torch.rand(batch, frames, 5, generator=generator)


def test_positions_by_hand():
    expected = [[0, 1, 0, 1], [math.sin(1), math.cos(1), math.sin(0.01), math.cos(0.01)]]
    torch.testing.assert_close(positions(2, 4, torch.device("cpu")), torch.tensor(expected))


def test_forward_is_a_pre_norm_transformer_with_a_causal_mask():
    """The same weights in torch's TransformerEncoderLayer, which is given the mask explicitly."""
    torch.manual_seed(0)
    model = ProjectionModel(ModelConfig("discrete", **SMALL)).eval()
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
    model = ProjectionModel(ModelConfig(name, **SMALL)).eval()
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
    model = ProjectionModel(ModelConfig("independent", **SMALL)).eval()
    save(model, {"fold": 3}, folder)
    loaded, config = load(folder)
    assert config["fold"] == 3 and config["model"] == SMALL | {"model": "independent", "dropout": 0.1}
    assert torch.equal(model(*example()), loaded(*example())) and not loaded.training


def test_what_cannot_be_loaded_is_refused_in_one_line(tmp_path):
    def refused(config=None, weights=None, match=""):
        folder = tmp_path / "checkpoint"
        save(ProjectionModel(ModelConfig(**SMALL)), {}, str(folder))
        for name, content in (("config.json", config), ("model.safetensors", weights)):
            if content is not None:
                (folder / name).write_bytes(content)
        with pytest.raises(InputError, match=match) as error:
            load(str(folder))
        assert "\n" not in str(error.value) and str(folder) in str(error.value)

    def sizes(**changed):
        return json.dumps({"model": SMALL | changed}).encode()

    refused(config=b"", match="config.json")
    refused(config=b"[]", match="config.json")
    refused(config=b'{"model": {"size": 1}}', match="config.json")
    refused(config=sizes(heads=3), match="heads")
    refused(config=sizes(width=10**9), match="config.json")
    refused(config=sizes(width=10**6), match="not the model of config.json")  # 12 TB, not allocated
    refused(config=sizes(layers=3), match="not the model of config.json")
    refused(config=sizes(model="comparative"), match="not the model of config.json")
    refused(weights=b"", match="model.safetensors")
    refused(weights=b"\x80\x04\x95pickle", match="model.safetensors")
    with pytest.raises(InputError, match="no such file"):
        load(str(tmp_path / "nowhere"))


def test_a_changed_bit_of_the_weights_is_noticed(tmp_path):
    save(ProjectionModel(ModelConfig(**SMALL)), {}, str(tmp_path))
    weights = bytearray((tmp_path / "model.safetensors").read_bytes())
    weights[-5] ^= 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(InputError, match="damaged, or of another run"):
        load(str(tmp_path))


@pytest.mark.parametrize("wrong", [{"model": "best"}, {"layers": 0}, {"heads": 3}, {"dropout": 1.0}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(InputError):
        ModelConfig(**SMALL | wrong)

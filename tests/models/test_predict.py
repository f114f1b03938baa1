"""Predictions for a batch of windows: swapped speakers, fewer frames."""

import pytest
import torch

from vap_pipeline.artefacts.windows import CONTEXT_FRAMES
from vap_pipeline.models.network import ModelConfig, ProjectionModel
from vap_pipeline.models.predict import predict
from vap_pipeline.turn_taking.projection import MODELS, OUTPUTS


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_swapped_and_short_predictions(name):
    generator = torch.Generator().manual_seed(0)
    sizes = {"width": 16, "layers": 1, "heads": 1, "feedforward": 16}
    model = ProjectionModel(ModelConfig(model=name, input_dim=8, **sizes)).eval()
    batch = {
        "features": torch.randn(3, 1000, 8, generator=generator).half(),
        "va": (torch.rand(3, CONTEXT_FRAMES + 1200, 2, generator=generator) < 0.4).to(torch.uint8),
        "before": torch.randint(100, (3, 2), generator=generator, dtype=torch.int32),
    }
    whole = predict(model, batch)
    assert whole.va.shape == (3, 1200, 2) and whole.logits.shape == (3, 1000, OUTPUTS[name])
    assert whole.p.shape == (3, 1000, 2) and (whole.p_bc is None) == (name == "comparative")
    short = predict(model, batch, frames=300)
    torch.testing.assert_close(short.p, whole.p[:, :300])
    other = batch | {"va": batch["va"].flip(-1), "before": batch["before"].flip(-1)}
    assert torch.equal(predict(model, batch, swapped=True).p, predict(model, other).p)

"""One place that names the models."""

from vap_pipeline.models.config import ModelConfig
from vap_pipeline.models.network import ProjectionModel
from vap_pipeline.models.stereo import StereoModel

Model = ProjectionModel | StereoModel


def build(config: ModelConfig) -> Model:
    """Return the model of ``config`` with initial weights."""
    return StereoModel(config) if config.trunk == "stereo" else ProjectionModel(config)

"""All that rebuilds a model: its trunk, its objective, its frame rate and its sizes."""

from dataclasses import dataclass

from vap_pipeline.models.downsample import kernel_of
from vap_pipeline.models.layers import POSITIONS
from vap_pipeline.settings.fields import setting
from vap_pipeline.settings.train import ModelSettings
from vap_pipeline.turn_taking.projection import MODELS

TRUNKS = ("mono", "timing", "stereo")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ModelSettings):
    """All that rebuilds a network. What is None becomes the trunk's usual value.

    The trunk decides what goes in, the objective (``model``) what comes out:

    ===========  =======================================================  =======  ===========
    trunk        input                                                    rate     positions
    ===========  =======================================================  =======  ===========
    ``mono``     features of the mix, voice activity and its history      100 Hz   sinusoidal
    ``timing``   voice activity and its history                           100 Hz   sinusoidal
    ``stereo``   features of both channels                                50 Hz    ALiBi
    ===========  =======================================================  =======  ===========

    Raises:
        InputError: the trunk, the objective or the rate is unknown, or the sizes do not go together.
    """

    model: str = setting("discrete", "what the model predicts", choices=MODELS)
    input_dim: int = setting(256, "width of the features", least=1)
    trunk: str = setting("mono", "what the model is given", choices=TRUNKS)
    frame_rate_hz: float | None = setting(None, "frames a second (50 for stereo, 100 otherwise)")
    kernel: int | None = setting(None, "features that a frame is computed from (by frame rate)", least=1)
    positions: str | None = setting(None, "alibi or sinusoidal (alibi for stereo)", choices=POSITIONS)
    context_s: float | None = setting(None, "how far back attention looks (to the window's start)", above=0)
    activity_layer: str = setting(
        "last", "stereo layer that voice activity is read from", choices=("first", "last")
    )

    def __post_init__(self) -> None:
        stereo = self.trunk == "stereo"
        rate_hz = self.frame_rate_hz or (50.0 if stereo else 100.0)
        usual = {
            "frame_rate_hz": rate_hz,
            "kernel": kernel_of(rate_hz),
            "positions": "alibi" if stereo else "sinusoidal",
        }
        for name, value in usual.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        super().__post_init__()

    @property
    def rate_hz(self) -> float:
        """Frames a second."""
        assert self.frame_rate_hz is not None
        return self.frame_rate_hz

    @property
    def kernel_frames(self) -> int:
        """How many features a frame is computed from."""
        assert self.kernel is not None
        return self.kernel

    @property
    def alibi(self) -> bool:
        """Whether the positions are ALiBi."""
        return self.positions == "alibi"

    @property
    def context_frames(self) -> int | None:
        """How many frames attention looks back, the present one included; None without a limit."""
        return frames_of(self.context_s, self.rate_hz)


def frames_of(context_s: float | None, rate_hz: float) -> int | None:
    """Return a context in frames, at least one."""
    return None if context_s is None else max(1, round(context_s * rate_hz))

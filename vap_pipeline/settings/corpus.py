"""A corpus: its section of params.yaml, and where its files are."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from vap_pipeline.io.errors import InputError
from vap_pipeline.settings.events import EventSettings
from vap_pipeline.settings.fields import Location, Section, Weights, seed, setting
from vap_pipeline.settings.pretrain import PretrainSettings
from vap_pipeline.settings.train import ModelSettings, TrainSettings

NAME_PATTERN = r"\w[\w.+-]{0,99}"  # names a folder, and needs no quotes in a shell's command


@dataclass(frozen=True)
class SimulateSettings(Section):
    """The simulated telephone calls of the sample corpus."""

    NAME: ClassVar[str] = "simulate"
    conversations: int = setting(45, "conversations to simulate", least=1)
    minutes: float = setting(2.5, "length of each", above=0)
    seed: int = seed()


@dataclass(frozen=True)
class ManifestSettings(Section):
    """How the conversations are split; None stands for the default of the corpus's reader."""

    NAME: ClassVar[str] = "manifest"
    test: int | None = setting(None, "conversations for testing", least=0)
    folds: int | None = setting(None, "folds of the other conversations", least=2)
    seed: int = seed("random seed of the shuffle into folds")


@dataclass(frozen=True)
class ExtractSettings(Section):
    """The encoder of the feature store; without weights, the published checkpoint."""

    NAME: ClassVar[str] = "extract"
    backend: str = setting("native", "whose code encodes", choices=("native", "cpc_audio"))
    weights: Weights | None = setting(
        None, "a checkpoint, telephone-small, or random (the published checkpoint)"
    )
    download: bool = setting(False, "fetch the published weights where they are missing")
    seed: int = seed("random seed of random weights")


@dataclass(frozen=True)
class Corpus(Section):
    """A section of params.yaml. Everything but the name has a default.

    Raises:
        InputError: a value has the wrong type or is out of range, or the name cannot be a folder's.
    """

    name: str = setting("switchboard", "name of the corpus, and of its folders")
    reader: str | None = setting(None, "the command of vap-manifest that reads it")
    transcripts: Path | None = setting(None, "folder of transcripts, or a table of segments")
    audio: Path | None = setting(None, "folder of recordings")
    clips: Path | None = setting(None, "folder of clips of one speaker each")
    features: Location | None = setting(None, "feature store, a folder or any fsspec address")
    encoder: Path | None = setting(None, "file of the weights, which DVC watches for changes")
    models: list[str] = setting([], "models to train and compare")
    folds: list[int] = setting([], "folds to train and compare")
    simulate: SimulateSettings = field(default_factory=SimulateSettings)
    manifest: ManifestSettings = field(default_factory=ManifestSettings)
    extract: ExtractSettings = field(default_factory=ExtractSettings)
    pretrain: PretrainSettings = field(default_factory=PretrainSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    events: EventSettings = field(default_factory=EventSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(NAME_PATTERN, self.name):
            raise InputError(
                f"a corpus cannot be called {self.name!r}; use letters, digits, '.', '_', '+' and '-', "
                "and no spaces"
            )

    @property
    def manifest_folder(self) -> Path:
        """Folder of ``conversations.csv`` and ``voice_activity.parquet``."""
        return Path("data_manifest", self.name)

    @property
    def transcripts_folder(self) -> Path:
        """Folder of the transcripts."""
        return self.transcripts or Path("data", self.name, "transcripts")

    @property
    def audio_folder(self) -> Path:
        """Folder that the audio paths of the manifest start from."""
        return self.audio or Path("data", self.name, "audio")

    @property
    def clips_folder(self) -> Path:
        """Folder of the clips."""
        return self.clips or Path("data", self.name, "clips")

    @property
    def store(self) -> str:
        """The feature store."""
        return self.features or f"data/{self.name}/features.zarr"

    def checkpoint(self, model: str, fold: int) -> str:
        """Folder of the checkpoint of a model trained without ``fold``."""
        return f"checkpoints/{self.name}/{model}/fold-{fold}"

    def scores(self, model: str, fold: int) -> str:
        """File of the scores of that checkpoint."""
        return f"scores/{self.name}/{model}/fold-{fold}.parquet"

    @property
    def report_folder(self) -> Path:
        """Folder of the report."""
        return Path("reports", self.name)

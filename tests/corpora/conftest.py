"""The complete ms98 release, unpacked once."""

import tarfile
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ms98(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ms98")
    with tarfile.open(shared / "swb_ms98_transcriptions.tar.xz") as archive:
        for member in archive:
            if member.name.endswith("-word.text"):
                target = folder / Path(member.name).name
                target.write_bytes(archive.extractfile(member).read())  # type: ignore[union-attr]
    return folder

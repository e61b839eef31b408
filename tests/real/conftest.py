"""What the tests of the real pair share: its projector, and each model once a file."""

from pathlib import Path

import pytest

from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from tests.real.pair import LibraryPair, library_pair, loaded_pair, pair_folder, write_projector


@pytest.fixture(scope="session")
def projector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Refuses by name where the pair is not: a real test is never skipped for want of its files."""
    pair_folder()
    return write_projector(tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="module")
def backbone(projector: Path) -> TowerAndDecoder:
    """Returns the project's pair in float32."""
    return loaded_pair(projector)


@pytest.fixture(scope="module")
def library(projector: Path) -> LibraryPair:
    """Returns transformers' pair in float32."""
    return library_pair(projector)

"""The fetched pair is the one that the shipped projector was aligned between; one bit of its tower more is not."""

import shutil
from pathlib import Path

import pytest

from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.configuration.paths import EMBEDDED
from lightning_m2pt.errors import BadInputError
from tests.real.pair import IMAGE_SIZE, pair_folder
from tests.support.stored_backbone import change_bytes

pytestmark = pytest.mark.real

SHIPPED = EMBEDDED / "smollm2_dinov2" / "projector" / "model.safetensors"


def test_the_shipped_projector_goes_with_the_fetched_pair_alone(tmp_path: Path) -> None:
    vision, language = (pair_folder() / part for part in ("vision", "language"))
    TowerAndDecoder(str(vision), str(language), str(SHIPPED), image_size=IMAGE_SIZE).check_files()
    shutil.copytree(vision, tmp_path / "vision")
    change_bytes("model.safetensors", lambda content: content[:-1] + bytes([content[-1] ^ 1]))(tmp_path / "vision")
    with pytest.raises(BadInputError, match="was aligned with other weights"):
        TowerAndDecoder(str(tmp_path / "vision"), str(language), str(SHIPPED), image_size=IMAGE_SIZE).check_files()

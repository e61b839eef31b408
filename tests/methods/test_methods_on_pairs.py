"""Every method that reaches into a tower or a projector, on pairs whose towers are not open_clip's."""

from pathlib import Path

import pytest
import torch

from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.testing.method_contract import method_contract
from tests.methods.test_every_method import METHODS, START_AS_FROZEN
from tests.support.towers.stored_pairs import store_pair, stored_pair

REACHING = (
    "m2pt", "vpt", "vpt shallow", "lora with tower", "layernorm with tower", "full", "projector",
    "lora and visual prompts", "aprompt and visual prompts",
)  # fmt: skip
FAST = [("siglip", "m2pt")]


@pytest.mark.parametrize(
    ("tower", "name"),
    [
        pytest.param(tower, name, marks=() if (tower, name) in FAST else pytest.mark.slow)
        for tower in ("clip", "siglip", "dinov2", "timm with registers")
        for name in REACHING
    ],
)
def test_methods_keep_the_contract_on_every_kind_of_tower(tmp_path: Path, tower: str, name: str) -> None:
    store_pair(tmp_path, tower)

    def small(dtype: torch.dtype) -> TowerAndDecoder:
        backbone = stored_pair(tmp_path, str(dtype).removeprefix("torch."))
        backbone.load()
        return backbone

    method_contract(METHODS[name], small, starts_as_frozen=name in START_AS_FROZEN)

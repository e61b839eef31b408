"""Every method that reaches into a tower or a projector, on pairs whose towers are not open_clip's."""

from pathlib import Path

import pytest
import torch

from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.testing.method_contract import method_contract
from tests.methods.test_every_method import METHODS, START_AS_FROZEN
from tests.support.towers.small import IMAGE
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


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_keys_of_prompts_behind_trained_norms_are_those_of_rows_in_the_sequence(tmp_path: Path, dtype: str) -> None:
    """Trained norms are float32 in a tower of any type."""
    store_pair(tmp_path)
    pixels, found = torch.randn(2, 3, IMAGE, IMAGE, generator=torch.Generator().manual_seed(2)), {}
    for path in ("token", "prefix"):
        backbone = stored_pair(tmp_path, dtype)
        backbone.load()
        prompts = M2PT(3, 0, interaction=False, visual_rows_to_text="none", init="normal", init_std=1.0, path=path)
        method = Combined([prompts, LayerNormTuning(language=False, vision=True, interaction=False)])
        method.build(backbone, torch.Generator().manual_seed(5))
        method.attach(backbone)
        found[path] = backbone.visual_rows(pixels).rows
    limit = {"float64": 1e-6, "bfloat16": 3e-2}[dtype]  # the norms are float32
    difference = (found["prefix"] - found["token"]).norm() / found["token"].norm()
    assert found["prefix"].dtype == getattr(torch, dtype)
    assert float(difference) < limit

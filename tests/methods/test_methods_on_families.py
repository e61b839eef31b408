"""Methods that reach into a layer, on decoders whose layers are not Llama's: fused projections, more norms, caps."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.testing.method_contract import method_contract
from tests.methods.test_every_method import METHODS, START_AS_FROZEN
from tests.support.models.decoders import of_family

REACHING = (
    "m2pt", "ptum prefix", "aprompt", "lora", "adapter", "layernorm", "full", "adapter, lora, norms"
)  # fmt: skip
WIDE: dict[str, dict[str, Any]] = {family: {"sliding_window": 4096} for family in ("gemma2", "gemma3")}
FAST = [("phi3", "aprompt")]


@pytest.mark.parametrize(
    ("family", "name"),
    [
        pytest.param(family, name, marks=() if (family, name) in FAST else pytest.mark.slow)
        for family in ("phi3", "phi3's longrope", "gemma", "gemma2", "gemma3", "olmo2", "qwen3")
        for name in REACHING
    ],
)
def test_methods_keep_the_contract_on_every_kind_of_layer(tmp_path: Path, family: str, name: str) -> None:
    """No window hides a row here, and no word is padding: either would leave tensors without a gradient, rightly."""

    def small(dtype: torch.dtype) -> OpenClipLlama:
        return of_family(tmp_path, family, dtype, pad_token_id=None, **WIDE.get(family, {}))

    method_contract(METHODS[name], small, starts_as_frozen=name in START_AS_FROZEN)

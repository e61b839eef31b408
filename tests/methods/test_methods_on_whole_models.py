"""Every method keeps its contract on whole models of transformers, or names what the family refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.methods.adapter import Adapter
from lightning_m2pt.methods.aprompt import APrompt
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.full import Full
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from lightning_m2pt.testing.method_contract import method_contract
from tests.support.whole_models import idefics3_config, llava_config, onevision_config, write_whole_model

METHODS: dict[str, Callable[[], Method]] = {
    "prompts": lambda: M2PT(3, 2, visual_rows_to_text="none"),
    "prompts of one layer": lambda: M2PT(
        3, 2, visual_depth="shallow", textual_depth="shallow", visual_rows_to_text="none"
    ),
    "prompts behind CLS": lambda: M2PT(
        3, 2, visual_position="after_cls", visual_layers=[1, 2], visual_rows_to_text="none"
    ),
    "low rank": lambda: Lora(2, vision=True),
    "everything": Full,
    "norms": lambda: LayerNormTuning(vision=True),
    "adapters": lambda: Adapter(4),
    "learned keys": lambda: PrefixTuning(2),
    "queries": APrompt,
}
CONFIGS: dict[str, Callable[[], dict[str, Any]]] = {
    "llava": llava_config,
    "onevision": onevision_config,
    "idefics3": idefics3_config,
}


def kept(folder: Path, name: str, make: Callable[[], Method]) -> None:
    write_whole_model(folder, CONFIGS[name]())

    def built(dtype: torch.dtype) -> VisionLanguageModel:
        backbone = VisionLanguageModel(str(folder), dtype=str(dtype).removeprefix("torch."))
        backbone.language_model = backbone.files.load(dtype)
        backbone.finish()
        return backbone

    method_contract(make, built)


@pytest.mark.parametrize("rows", ["official", "all"])
def test_prompt_rows_through_the_connector(tmp_path: Path, rows: Any) -> None:
    kept(tmp_path, "llava", lambda: M2PT(3, 2, visual_rows_to_text=rows))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CONFIGS)
def test_every_method_keeps_its_contract(tmp_path: Path, name: str, method: str) -> None:
    kept(tmp_path, name, METHODS[method])

"""Folders in PEFT's layout, written without PEFT."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lightning_m2pt.backbones.embedded import embedded_backbone

SHAPE = embedded_backbone().shape
LENGTH = 3
KEY_WIDTH = SHAPE.text_key_value_heads * SHAPE.text_head_width
PREFIX: dict[str, Any] = {
    "peft_type": "PREFIX_TUNING",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "somewhere/language",
    "num_virtual_tokens": LENGTH,
    "num_layers": SHAPE.text_layers,
    "num_attention_heads": SHAPE.text_key_value_heads,
    "num_transformer_submodules": 1,
    "token_dim": KEY_WIDTH,
    "prefix_projection": False,
    "inference_mode": True,
}
"""PEFT's words for a prefix of the embedded ``testbed``."""
PROMPT: dict[str, Any] = {**PREFIX, "peft_type": "PROMPT_TUNING", "token_dim": SHAPE.text_width}
LORA: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "somewhere/language",
    "r": 2,
    "lora_alpha": 4,
    "lora_dropout": 0.1,
    "target_modules": ["q_proj", "up_proj"],
    "bias": "none",
    "init_lora_weights": True,
    "megatron_core": "megatron.core",
    "inference_mode": True,
}
SIZES = {
    "self_attn.q_proj": (SHAPE.text_width, SHAPE.text_width),
    "mlp.up_proj": (SHAPE.text_width, SHAPE.text_mlp_width),
}
BEFORE_LAYERS = "base_model.model.model.layers"


def low_rank_tensors(begin: str = BEFORE_LAYERS, layers: int = SHAPE.text_layers, rank: int = 2) -> dict[str, Tensor]:
    """Returns pairs of matrices for two linear layers of each block."""
    drawn = torch.Generator().manual_seed(0)
    found: dict[str, Tensor] = {}
    for layer in range(layers):
        for name, (inside, outside) in SIZES.items():
            found[f"{begin}.{layer}.{name}.lora_A.weight"] = torch.randn(rank, inside, generator=drawn)
            found[f"{begin}.{layer}.{name}.lora_B.weight"] = torch.randn(outside, rank, generator=drawn)
    return found


def prefix_tensors() -> dict[str, Tensor]:
    """Returns the one tensor of a prefix."""
    return {"prompt_embeddings": torch.ones(LENGTH, SHAPE.text_layers * 2 * KEY_WIDTH)}


def write_peft(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Writes both files and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(dict(tensors), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder

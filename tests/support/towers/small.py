"""Tiny random vision towers of transformers, as their classes build them, and pictures for them."""

from typing import Any

import torch
from torch import Tensor, nn

IMAGE, PATCH, WIDTH, LAYERS, HEADS = 16, 4, 24, 4, 3
PATCHES = (IMAGE // PATCH) ** 2
SIZES = {
    "hidden_size": WIDTH,
    "intermediate_size": 40,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "image_size": IMAGE,
    "patch_size": PATCH,
}
REGISTERS = 2
DINO = {"layerscale_value": 0.7, "mlp_ratio": 2, "attention_probs_dropout_prob": 0.3, "hidden_dropout_prob": 0.3}
KINDS: dict[str, dict[str, Any]] = {
    "clip_vision_model": {"hidden_act": "quick_gelu", "projection_dim": 8, "attention_dropout": 0.3},
    "siglip_vision_model": {"vision_use_head": False},
    "siglip2_vision_model": {"vision_use_head": False, "num_patches": PATCHES},
    "dinov2": DINO,
    "dinov2's gates": {**DINO, "use_swiglu_ffn": True},
    "dinov2_with_registers": {**DINO, "num_register_tokens": REGISTERS},
    "idefics3_vision": {},
}
"""By ``model_type``: what is said beside the sizes. What could drop, does not: a tower stays in evaluation mode."""

ROTATED: dict[str, dict[str, Any]] = {
    "dinov3_vit": {"num_register_tokens": REGISTERS, "layerscale_value": 0.7, "attention_dropout": 0.3}
}
"""Blocks that read more than rows and a mask."""


def small_tower(kind: str, attention: str, dtype: torch.dtype = torch.float64) -> Any:
    """Returns a tower with random weights, none of them one or zero."""
    from transformers import CONFIG_MAPPING, AutoModel
    from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionTransformer

    name = kind.partition("'")[0]
    config = CONFIG_MAPPING[name](**SIZES, **{**KINDS, **ROTATED}[kind])
    config._attn_implementation = attention
    torch.manual_seed(0)
    tower = (
        Idefics3VisionTransformer(config)
        if name == "idefics3_vision"
        else AutoModel.from_config(config, trust_remote_code=False)
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return tower.to(dtype).eval()


def blocks_of(tower: Any) -> list[nn.Module]:
    """Returns a tower's blocks."""
    return list(tower.encoder.layer if hasattr(tower.encoder, "layer") else tower.encoder.layers)


def rows_in_front(kind: str) -> int:
    """Returns how many rows stand in front of the patches."""
    return int(kind.startswith(("clip", "dinov2"))) + REGISTERS * kind.endswith("with_registers")


def pictures(kind: str, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Returns what a tower is called with for two pictures; SigLIP-2's second one is smaller, and so padded."""
    generator = torch.Generator().manual_seed(2)
    if not kind.startswith("siglip2"):
        return {"pixel_values": torch.randn(2, 3, IMAGE, IMAGE, generator=generator, dtype=torch.float64).to(dtype)}
    pixels = torch.randn(2, PATCHES, 3 * PATCH**2, generator=generator, dtype=torch.float64).to(dtype)
    seen = torch.ones(2, PATCHES, dtype=torch.long)
    seen[1, 12:] = 0
    return {"pixel_values": pixels, "pixel_attention_mask": seen, "spatial_shapes": torch.tensor([[4, 4], [3, 4]])}

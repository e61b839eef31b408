"""Small configurations of every proven architecture, and of some that no list names.

Windows are shorter than a picture's rows, heads of odd sizes, sublayers parallel, rotations partial.
"""

from pathlib import Path
from typing import Any

import torch

from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.testing.random_backbone import random_backbone

WINDOW = 6
"""Shorter than the rows of a picture."""
SLIDING = {"sliding_window": WINDOW, "use_sliding_window": True}
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
GEMMA = {"hidden_act": "gelu_pytorch_tanh", "head_dim": 12, "query_pre_attn_scalar": 10}
BY_LAYER_TYPE = {
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 50.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 5.0},
    }
}
LONGROPE = {
    "original_max_position_embeddings": 100,
    "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [4.0, 5.0, 6.0, 7.0]},
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 16}
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("llama", "Llama", {"head_dim": 12}),
    "mistral": ("mistral", "Mistral", {"sliding_window": None, "head_dim": 12}),
    "mistral's window": ("mistral", "Mistral", {"sliding_window": WINDOW}),
    "qwen2": ("qwen2", "Qwen2", {}),
    "qwen2's windows": ("qwen2", "Qwen2", {**SLIDING, "layer_types": MIXED}),
    "qwen3": ("qwen3", "Qwen3", {"head_dim": 12}),
    "qwen3's windows": ("qwen3", "Qwen3", {**SLIDING, "layer_types": MIXED, "head_dim": 8}),
    "smollm3": ("smollm3", "SmolLM3", {"no_rope_layers": [1, 0, 1]}),
    "granite": (
        "granite",
        "Granite",
        {"embedding_multiplier": 3, "attention_multiplier": 0.2, "residual_multiplier": 0.5, "logits_scaling": 2.0},
    ),
    "gemma2": ("gemma2", "Gemma2", {**GEMMA, "sliding_window": WINDOW, "layer_types": MIXED}),
    "gemma2's caps": (
        "gemma2",
        "Gemma2",
        {**GEMMA, "sliding_window": 4096, "attn_logit_softcapping": 0.5, "final_logit_softcapping": 0.5},
    ),
    "gemma": ("gemma", "Gemma", {"hidden_act": "gelu", "head_dim": 12}),
    "gemma3": (
        "gemma3_text",
        "Gemma3",
        {**GEMMA, **BY_LAYER_TYPE, "sliding_window": WINDOW, "final_logit_softcapping": 0.5, "layer_types": MIXED},
    ),
    "gemma3 as older files say it": (
        "gemma3_text",
        "Gemma3",
        {**GEMMA, "sliding_window": WINDOW, "sliding_window_pattern": 2, "rope_theta": 50.0,
         "rope_local_base_freq": 5.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    ),
    "olmo2": ("olmo2", "Olmo2", {}),
    "phi3": ("phi3", "Phi3", {"partial_rotary_factor": 0.5}),
    "phi3's window": ("phi3", "Phi3", {"sliding_window": WINDOW, "hidden_size": 32}),
    "phi3's longrope": ("phi3", "Phi3", LONGROPE),
    "yarn": ("llama", "Llama", {"rope_scaling": YARN, "rope_theta": 100.0}),
    "dynamic": ("llama", "Llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
}  # fmt: skip


def of_family(folder: Path, name: str, dtype: torch.dtype = torch.float64, **changes: Any) -> OpenClipLlama:
    """Returns a loaded backbone with a small decoder of this family, with ``changes`` of its configuration."""
    kind, architecture, keys = FAMILIES[name]
    named = {"model_type": kind, "architectures": [f"{architecture}ForCausalLM"], "pad_token_id": 0}
    return random_backbone(folder, dtype, language={**named, **keys, **changes})


UNLISTED: dict[str, tuple[str, dict[str, Any]]] = {
    "starcoder2": (
        "Starcoder2ForCausalLM",
        {"sliding_window": 6, "use_bias": True, "hidden_act": "gelu_pytorch_tanh"},
    ),
    "stablelm": (
        "StableLmForCausalLM",
        {"partial_rotary_factor": 0.5, "use_parallel_residual": True, "qk_layernorm": True},
    ),
    "cohere": ("CohereForCausalLM", {"logit_scale": 0.3, "use_qk_norm": True, "tie_word_embeddings": True}),
    "helium": ("HeliumForCausalLM", {"head_dim": 8}),
    "glm": ("GlmForCausalLM", {"head_dim": 8, "partial_rotary_factor": 0.5, "attention_bias": True}),
    "olmo3": (
        "Olmo3ForCausalLM",
        {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    "nemotron": ("NemotronForCausalLM", {"hidden_act": "relu2", "head_dim": 8}),
}


def unlisted(name: str, **changes: Any) -> dict[str, Any]:
    """Returns the keys of a language model's ``config.json`` that make it this architecture."""
    architecture, keys = UNLISTED[name]
    return {"model_type": name, "architectures": [architecture], "pad_token_id": None, **keys, **changes}

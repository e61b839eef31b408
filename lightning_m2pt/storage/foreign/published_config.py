"""The configuration of a checkpoint of M2PT's published code: a Llama's, with what LLaVA keeps of pictures in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_m2pt.backbones.config_values import one_of
from lightning_m2pt.backbones.proven_forms import check_language_config

MODEL_TYPE, ARCHITECTURE = "llava_finetune", "LlavaLlamaForCausalLM"
"""What the published code registers, and its class."""
LARGE_CLIP, LARGE_CLIP_336 = "openai/clip-vit-large-patch14", "openai/clip-vit-large-patch14-336"
KNOWN_TOWERS = tuple(name.rpartition("/")[2] for name in (LARGE_CLIP, LARGE_CLIP_336))
PICTURES: dict[str, tuple[tuple[Any, ...], str]] = {
    "mm_vision_select_layer": ((-2,), "the features of layer -2 are the published ones"),
    "mm_vision_select_feature": ((None, "patch"), "the first row is dropped, as published"),
    "mm_use_im_start_end": ((None, False), "tokens around the picture are of a later LLaVA"),
    "mm_projector_type": ((None, "linear"), "the published projector is linear"),
    "image_aspect_ratio": ((None, "square"), "pictures are not padded by this backbone"),
}
OF_LLAMA = {
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("head_dim", "hidden_act", "max_position_embeddings", "rms_norm_eps", "vocab_size", "tie_word_embeddings"),
    *("rope_theta", "rope_scaling", "rope_parameters", "attention_bias", "mlp_bias", "initializer_range"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "pretraining_tp", "attention_dropout", "use_cache"),
}
"""Keys that a Llama's configuration has; the rest is LLaVA's and of its training."""


def language_config(published: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Returns the language model's own configuration.

    Args:
        published: The checkpoint's ``config.json``.
        path: The file, for messages.

    Raises:
        BadInputError: If it asks for pictures in another way than the published code, or for no proven Llama.
    """
    one_of(published, "model_type", path, (MODEL_TYPE, "llava", "llama"), "the published code knows Llama alone")
    for key, (accepted, reason) in PICTURES.items():
        one_of(published, key, path, accepted, reason)
    kept = {key: value for key, value in published.items() if key in OF_LLAMA}
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **kept}
    check_language_config(config, path)
    return config


def published_config(language: Mapping[str, Any], vision_width: int, tower: str) -> dict[str, Any]:
    """Returns what the published code needs to load a model.

    Args:
        language: The language model's configuration.
        vision_width: Width of the tower, D_vision.
        tower: Name of the tower on the hub, or its folder.
    """
    return {
        **language,
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        "mm_vision_tower": tower,
        "mm_hidden_size": vision_width,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
        "image_aspect_ratio": "square",
    }


def is_known_tower(published: Mapping[str, Any]) -> bool:
    """Tells whether the tower is one of OpenAI's large ones, whose heads and pictures are known."""
    name = published.get("mm_vision_tower")
    return isinstance(name, str) and name.rstrip("/").rpartition("/")[2] in KNOWN_TOWERS

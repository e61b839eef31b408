"""Tiny whole vision-language models of transformers, random but in the form in which such models are published."""

import json
from pathlib import Path
from typing import Any

import torch

from lightning_m2pt.testing.small_processor import CLIP_MEAN, CLIP_STD, word_tokenizer

IMAGE_TOKEN = "<image>"
TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "vocab_size": 60,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TOWER: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "image_size": 16,
    "patch_size": 4,
}
CHAT = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %} "
    "{% else %}ASSISTANT: {% for part in message['content'] %}{{ part['text'] }}{% endfor %}</s>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def llava_config(tower: str = "clip_vision_model", text: str = "llama", **keys: Any) -> dict[str, Any]:
    """Returns a LLaVA-1.5's ``config.json``; ``keys`` stand in its language model's part."""
    with_cls = tower == "clip_vision_model"
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": 59,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default" if with_cls else "full",
        "vision_config": {"model_type": tower, **TOWER, **({} if with_cls else {"vision_use_head": False})},
        "text_config": {"model_type": text, **TEXT, **keys},
    }


def onevision_config(**keys: Any) -> dict[str, Any]:
    """Returns a LLaVA-OneVision's ``config.json``, whose pictures have up to four tiles at their own size."""
    return {
        "architectures": ["LlavaOnevisionForConditionalGeneration"],
        "model_type": "llava_onevision",
        "image_token_index": 59,
        "video_token_index": 58,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": "anyres_max_2",
        "image_grid_pinpoints": [[16, 16], [16, 32], [32, 16], [32, 32], [16, 48]],
        "vision_config": {"model_type": "siglip_vision_model", "vision_use_head": False, **TOWER},
        "text_config": {"model_type": "qwen2", **TEXT, **keys},
    }


def next_config(text: str = "mistral", **keys: Any) -> dict[str, Any]:
    """Returns a LLaVA-NeXT's ``config.json``, whose pictures have a small copy and up to four tiles."""
    return {
        "architectures": ["LlavaNextForConditionalGeneration"],
        "model_type": "llava_next",
        "image_token_index": 59,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "image_grid_pinpoints": [[16, 16], [16, 32], [32, 16], [32, 32], [16, 48]],
        "vision_config": {"model_type": "clip_vision_model", **TOWER},
        "text_config": {"model_type": text, **TEXT, **keys},
    }


def idefics3_config(name: str = "idefics3", architecture: str = "Idefics3", **keys: Any) -> dict[str, Any]:
    """Returns an Idefics3's or a SmolVLM's ``config.json``: four patches of a tile become one row."""
    return {
        "architectures": [f"{architecture}ForConditionalGeneration"],
        "model_type": name,
        "image_token_id": 59,
        "scale_factor": 2,
        "vision_config": {"model_type": f"{name}_vision", **TOWER},
        "text_config": {"model_type": "llama", **TEXT, **keys},
    }


def qwen_config(**keys: Any) -> dict[str, Any]:
    """Returns a Qwen2.5-VL's ``config.json``: windows of four patches a side in all blocks of its tower but one."""
    tower = {
        "model_type": "qwen2_5_vl_vision",
        "depth": 3,
        "hidden_size": 24,
        "num_heads": 3,
        "intermediate_size": 40,
        "out_hidden_size": 32,
        "patch_size": 4,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 16,
        "fullatt_block_indexes": [1],
    }
    rotation = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    text = {key: value for key, value in TEXT.items() if key != "head_dim"}
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "image_token_id": 59,
        "video_token_id": 58,
        "vision_start_token_id": 56,
        "vision_end_token_id": 57,
        "vision_config": tower,
        "text_config": {"model_type": "qwen2_5_vl_text", **text, "rope_parameters": rotation, **keys},
        "tie_word_embeddings": False,
    }


def write_whole_model(folder: Path, config: dict[str, Any], seed: int = 0) -> Any:
    """Writes a folder as ``save_pretrained`` does, with a tokenizer of words; returns the library's model."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(seed)
    library = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    model = AutoModelForImageTextToText.from_config(library, trust_remote_code=False, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():  # the library leaves norms at one and biases at zero: random ones show more mistakes
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    tokenizer = word_tokenizer()
    grid = [f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)]
    added = ["<fake_token_around_image>", "<global-img>", *grid, "<video>", IMAGE_TOKEN]
    numbered = [f"<{number}>" for number in range(TEXT["vocab_size"] - len(added) - len(tokenizer))]
    tokenizer.add_special_tokens({"additional_special_tokens": [*numbered, *added]})
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    write_preprocessor(folder, config)
    return model.eval()


def write_preprocessor(folder: Path, config: dict[str, Any]) -> None:
    """Writes how a family prepares pictures, with the library's own image processor."""
    from transformers import (
        Idefics3ImageProcessor,
        LlavaNextImageProcessor,
        LlavaOnevisionImageProcessor,
        Qwen2VLImageProcessor,
        SmolVLMImageProcessor,
    )

    side, kind = config["vision_config"].get("image_size"), config["model_type"]
    if kind == "qwen2_5_vl":
        bounds = {"shortest_edge": 64, "longest_edge": 1024}
        Qwen2VLImageProcessor(patch_size=4, merge_size=2, temporal_patch_size=2, size=bounds).save_pretrained(folder)
    elif kind == "llava":
        write_clip_preprocessor(folder, side)
    elif kind == "llava_onevision":
        resolutions = config["image_grid_pinpoints"]
        LlavaOnevisionImageProcessor(
            size={"height": side, "width": side}, image_grid_pinpoints=resolutions
        ).save_pretrained(folder)
    elif kind == "llava_next":
        resolutions, crop = config["image_grid_pinpoints"], {"height": side, "width": side}
        LlavaNextImageProcessor(
            size={"shortest_edge": side}, crop_size=crop, image_grid_pinpoints=resolutions
        ).save_pretrained(folder)
    else:
        made = SmolVLMImageProcessor if kind == "smolvlm" else Idefics3ImageProcessor
        made(size={"longest_edge": 3 * side}, max_image_size={"longest_edge": side}).save_pretrained(folder)


def write_clip_preprocessor(folder: Path, size: int) -> None:
    """Writes how LLaVA-1.5 prepares pictures: the short side resized, the centre cropped."""
    settings = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(CLIP_MEAN),
        "image_std": list(CLIP_STD),
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))

"""Reading the files of an open_clip tower and a Llama-form model: sizes from their configurations."""

from pathlib import Path
from typing import Any

from lightning_m2pt.backbones.decoders.reference import check_decoder_config, runs_by_reference
from lightning_m2pt.backbones.decoders.rotations import end_of_positions, usable_positions
from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.backbones.towers.open_clip_config import check_tower_config


def shape_of(
    open_clip: dict[str, Any], llama: dict[str, Any], vision_file: Path, language_folder: Path
) -> BackboneShape:
    """Reads the sizes from both configurations.

    Raises:
        BadInputError: If a key is missing, wrong, or asks for what is not proven.
    """
    check_tower_config(open_clip, vision_file)
    check_decoder_config(llama, language_folder / "config.json")
    vision, preprocess = open_clip["model_cfg"]["vision_cfg"], open_clip["preprocess_cfg"]
    return BackboneShape(
        vision_layers=vision["layers"],
        vision_width=vision["width"],
        patches=(vision["image_size"] // vision["patch_size"]) ** 2,
        patch_size=vision["patch_size"],
        image_size=vision["image_size"],
        image_mean=tuple(preprocess["mean"]),
        image_std=tuple(preprocess["std"]),
        interpolation=preprocess.get("interpolation", "bicubic"),
        resize="squash" if preprocess.get("resize_mode") == "squash" else "shortest_edge",
        text_layers=llama["num_hidden_layers"],
        text_width=llama["hidden_size"],
        text_heads=llama["num_attention_heads"],
        text_key_value_heads=llama.get("num_key_value_heads") or llama["num_attention_heads"],
        text_head_width=llama.get("head_dim") or llama["hidden_size"] // llama["num_attention_heads"],
        vocabulary_size=llama["vocab_size"],
        maximum_positions=usable_positions(llama),
        end_of_positions=end_of_positions(llama),
        runs_reference=runs_by_reference(llama),
        vision_mlp_width=int(vision["width"] * (vision.get("mlp_ratio") or 4.0)),
        vision_quick_gelu=open_clip["model_cfg"].get("quick_gelu", False),
        text_mlp_width=llama["intermediate_size"],
    )

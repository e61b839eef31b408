"""What an open_clip configuration file may say: a plain vision transformer, its sizes, and how pictures are prepared.

open_clip would fetch another model from the network where a key names one, and every unknown key ends in a traceback.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lightning_m2pt.backbones.config_values import (
    bad_key,
    divisible,
    is_real,
    mapping,
    one_of,
    real_number,
    shown_value,
    whole_number,
)
from lightning_m2pt.visible_text import counted

MOST_LAYERS, MOST_WIDTH, MOST_PIXELS, MOST_RATIO = 1_000, 65_536, 8_192, 64.0
OFF = (None, False)
MODEL, VISION, TEXT, PICTURES = "model_cfg.", "model_cfg.vision_cfg.", "model_cfg.text_cfg.", "preprocess_cfg."

MODEL_KEYS = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}
IGNORED_MODEL_KEYS = {
    "custom_text", "init_logit_scale", "init_logit_bias", "nonscalar_logit_scale", "output_dict",
}  # fmt: skip
"""They concern CLIP's text tower or its loss, which are not part of the model."""
VISION_SIZES = {"image_size", "patch_size", "layers", "width", "head_width", "mlp_ratio"}
IGNORED_VISION_KEYS = {
    "pool_type", "final_ln_after_pool", "output_tokens", "patch_dropout", "attn_pooler_queries", "attn_pooler_heads",
    "timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias", "timm_drop", "timm_drop_path",
}  # fmt: skip
"""They change what stands behind the features of layer -2, training of the tower alone, or timm models."""
ANOTHER_MODEL = "open_clip would fetch another model, which is never done"
OTHER_BLOCKS = "blocks of another make are not proven on the prompt paths"
VISION_VALUES: dict[str, tuple[tuple[Any, ...], str]] = {
    "timm_model_name": ((None, ""), ANOTHER_MODEL),
    "attentional_pool": (OFF, "it is not proven"),
    "no_ln_pre": ((None, False, True), ""),
    "pos_embed_type": ((None, "learnable"), "other positions are not proven"),
    "block_type": ((None, "default"), OTHER_BLOCKS),
    **dict.fromkeys(
        ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"),
        (OFF, OTHER_BLOCKS),
    ),
    "act_kwargs": ((None, {}), "other activations are not proven"),
}
PROVEN_NUMBERS = {"ls_init_value", "norm_kwargs"}
NAMES_OF_OTHER_MODELS = ("hf_model_name", "hf_tokenizer_name", "timm_model_name")
PICTURE_KEYS = {"size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"}


def check_tower_config(open_clip: Mapping[str, Any], path: Path) -> None:
    """Looks whether an open_clip configuration describes a vision transformer whose sizes fit together.

    Args:
        open_clip: The file's content.
        path: The file, for messages.

    Raises:
        BadInputError: At the first thing that is wrong or not proven, naming its key.
    """
    model = mapping(open_clip, "model_cfg", path)
    refuse_unknown(model, MODEL_KEYS | IGNORED_MODEL_KEYS, path, MODEL)
    whole_number(model, f"{MODEL}embed_dim", path, MOST_WIDTH)
    one_of(model, f"{MODEL}quick_gelu", path, (False, True), "")
    text = mapping(model, "text_cfg", path, MODEL) if "text_cfg" in model else {}
    for key in NAMES_OF_OTHER_MODELS:
        one_of(text, f"{TEXT}{key}", path, (None, ""), ANOTHER_MODEL)
    check_vision(mapping(model, "vision_cfg", path, MODEL), path)
    check_pictures(mapping(open_clip, "preprocess_cfg", path), model["vision_cfg"]["image_size"], path)


def check_vision(vision: Mapping[str, Any], path: Path) -> None:
    """Checks the tower's own keys.

    Raises:
        BadInputError: At the first thing that is wrong or not proven.
    """
    for key, (accepted, reason) in VISION_VALUES.items():
        one_of(vision, f"{VISION}{key}", path, accepted, reason)
    refuse_unknown(vision, VISION_SIZES | set(VISION_VALUES) | PROVEN_NUMBERS | IGNORED_VISION_KEYS, path, VISION)
    # The features are those of layer -2, the input of the last block.
    whole_number(vision, f"{VISION}layers", path, MOST_LAYERS, least=2)
    width = whole_number(vision, f"{VISION}width", path, MOST_WIDTH)
    head_width = whole_number(vision, f"{VISION}head_width", path, MOST_WIDTH, default=64)
    divisible(path, f"{VISION}width", width, "head_width", head_width)
    image = whole_number(vision, f"{VISION}image_size", path, MOST_PIXELS)
    whole_number(vision, f"{VISION}patch_size", path, image)
    ratio = real_number(vision, f"{VISION}mlp_ratio", path, MOST_RATIO, default=4.0)
    if int(width * ratio) < 1:
        raise bad_key(path, f"{VISION}mlp_ratio", f"{ratio:g} leaves no row in the MLP", "a larger number")
    if vision.get("ls_init_value") is not None:
        real_number(vision, f"{VISION}ls_init_value", path, 1e6)
    if vision.get("norm_kwargs"):
        norm = mapping(vision, "norm_kwargs", path, VISION)
        refuse_unknown(norm, {"eps"}, path, f"{VISION}norm_kwargs.")
        real_number(norm, f"{VISION}norm_kwargs.eps", path, 0.1)


def check_pictures(pictures: Mapping[str, Any], image_size: int, path: Path) -> None:
    """Checks how pictures become numbers: what open_clip calls ``longest`` pads pictures, which is not done here.

    Raises:
        BadInputError: At the first thing that is wrong or not supported.
    """
    refuse_unknown(pictures, PICTURE_KEYS, path, PICTURES)
    for key in ("mean", "std"):
        values = pictures.get(key)
        fits = isinstance(values, list) and len(values) == 3 and all(is_real(value) for value in values)
        if not fits or (key == "std" and min(values) <= 0):  # type: ignore[arg-type]
            what = "this key is missing" if key not in pictures else f"{shown_value(values)} does not fit"
            raise bad_key(path, PICTURES + key, what, "three numbers" + " above 0" * (key == "std"))
    one_of(pictures, f"{PICTURES}interpolation", path, ("bicubic", "bilinear"), "")
    one_of(pictures, f"{PICTURES}resize_mode", path, (None, "shortest", "squash"), "pictures are not padded here")
    one_of(pictures, f"{PICTURES}mode", path, (None, "RGB"), "")
    sizes = (None, image_size, [image_size, image_size])
    one_of(pictures, f"{PICTURES}size", path, sizes, "pictures have the tower's image_size")


def refuse_unknown(content: Mapping[str, Any], known: Collection[str], path: Path, within: str) -> None:
    """Refuses keys nobody reads.

    Raises:
        BadInputError: If there are any: the first three and their number.
    """
    unknown = sorted(set(content) - set(known))
    if unknown:
        raise bad_key(path, within.rstrip("."), f"unknown {counted(unknown)}", "keys of a plain vision transformer")

"""What stands beside a CLIP vision tower: open_clip's configuration file, and transformers' two."""

import math
from pathlib import Path
from typing import Any

from lightning_m2pt.backbones.config_values import bad_key, one_of, real_number, whole_number
from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.backbones.towers.open_clip_config import MOST_WIDTH, check_tower_config
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.foreign.clip_layouts import TowerSizes

OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
TRANSFORMERS_CONFIG, PREPROCESSING = "config.json", "preprocessor_config.json"
INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, which transformers writes."""
EPSILON = 1e-5
"""CLIP's, and open_clip's default."""


def open_clip_config(folder: Path, sizes: TowerSizes) -> dict[str, Any]:
    """Returns open_clip's configuration of a tower whose folder is of transformers' form.

    Args:
        folder: Holds ``config.json`` and ``preprocessor_config.json``.
        sizes: Of the tower's tensors.

    Raises:
        BadInputError: If a file is missing, or says another size than the tensors, or what open_clip cannot express.
    """
    path = folder / TRANSFORMERS_CONFIG
    content = read_json(path, str(folder))
    vision = content.get("vision_config") if isinstance(content.get("vision_config"), dict) else content
    assert isinstance(vision, dict)
    known = {"image_size": sizes.image_size, "patch_size": sizes.patch_size, "num_hidden_layers": sizes.layers}
    for key, value in (known | {"hidden_size": sizes.width, "intermediate_size": sizes.mlp_width}).items():
        one_of(vision, key, path, (value,), "the tensors say so")
    one_of(vision, "hidden_act", path, ("quick_gelu", "gelu"), "open_clip knows these two")
    heads = whole_number(vision, "num_attention_heads", path, MOST_WIDTH)
    if sizes.width % heads:
        raise bad_key(path, "num_attention_heads", f"{heads} heads do not divide {sizes.width}", "a divisor")
    epsilon = real_number(vision, "layer_norm_eps", path, 0.1, default=EPSILON)
    model = tower_config(sizes, heads, vision.get("hidden_act", "quick_gelu") == "quick_gelu", epsilon)
    made = {"model_cfg": model, "preprocess_cfg": preprocess_config(folder / PREPROCESSING, sizes.image_size)}
    check_tower_config(made, path)
    return made


def tower_config(sizes: TowerSizes, heads: int, quick_gelu: bool, epsilon: float = EPSILON) -> dict[str, Any]:
    """Returns open_clip's ``model_cfg`` of a tower."""
    ratio = sizes.mlp_width / sizes.width
    while int(sizes.width * ratio) < sizes.mlp_width:  # open_clip cuts off what a division may have rounded down
        ratio = math.nextafter(ratio, math.inf)
    vision: dict[str, Any] = {
        "image_size": sizes.image_size,
        "layers": sizes.layers,
        "width": sizes.width,
        "head_width": sizes.width // heads,
        "mlp_ratio": ratio,
        "patch_size": sizes.patch_size,
    }
    if epsilon != EPSILON:
        vision["norm_kwargs"] = {"eps": epsilon}
    text = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}
    return {
        "embed_dim": sizes.projection or 1,
        "quick_gelu": quick_gelu,
        "vision_cfg": vision,
        "text_cfg": text,  # of no tensor here; open_clip wants it
    }


def preprocess_config(path: Path, image_size: int) -> dict[str, Any]:
    """Returns open_clip's ``preprocess_cfg`` of transformers' preprocessing file.

    Raises:
        BadInputError: If it is missing or asks for what open_clip's form cannot express.
    """
    content = read_json(path, str(path.parent))
    for key in ("do_resize", "do_normalize", "do_rescale"):
        one_of(content, key, path, (True,), "open_clip always does")
    size = content.get("size", image_size)
    edge = size.get("shortest_edge") if isinstance(size, dict) else size
    squashes = isinstance(size, dict) and size.get("height") == size.get("width") == image_size
    crops = content.get("do_center_crop", True)
    if not squashes and (edge != image_size or crops is not True):
        raise bad_key(path, "size", f"{size!r:.60} does not fit", f"pictures whose shorter side becomes {image_size}")
    one_of(content, "resample", path, tuple(INTERPOLATIONS), "")
    return {
        "mode": "RGB",
        "mean": content.get("image_mean"),
        "std": content.get("image_std"),
        "interpolation": INTERPOLATIONS[content.get("resample", 3)],
        "resize_mode": "squash" if squashes else "shortest",
    }


def transformers_configs(path: Path, sizes: TowerSizes) -> dict[str, dict[str, Any]]:
    """Returns transformers' two files of a tower that open_clip's file describes, by name.

    Args:
        path: open_clip's file.
        sizes: Of the tower's tensors.

    Raises:
        BadInputError: If the file describes another tower, or one that is no CLIP vision tower of transformers.
    """
    content = read_json(path, str(path.parent))
    check_tower_config(content, path)
    vision, pictures = content["model_cfg"]["vision_cfg"], content["preprocess_cfg"]
    for key in ("ls_init_value", "no_ln_pre"):
        one_of(vision, f"model_cfg.vision_cfg.{key}", path, (None, False), "transformers' CLIP has none")
    head_width = vision.get("head_width") or 64
    described = tower_config(sizes, sizes.width // head_width, False)["vision_cfg"]
    for key in ("image_size", "layers", "width", "patch_size"):
        one_of(vision, f"model_cfg.vision_cfg.{key}", path, (described[key],), "the tensors say so")
    if int(sizes.width * float(vision.get("mlp_ratio") or 4.0)) != sizes.mlp_width:
        raise bad_key(path, "model_cfg.vision_cfg.mlp_ratio", "not the tensors' ratio", str(described["mlp_ratio"]))
    edge = sizes.image_size
    squashes = pictures.get("resize_mode") == "squash"
    numbers = {name: number for number, name in INTERPOLATIONS.items()}
    return {
        TRANSFORMERS_CONFIG: {
            "architectures": ["CLIPVisionModelWithProjection"],
            "model_type": "clip_vision_model",
            "hidden_size": sizes.width,
            "intermediate_size": sizes.mlp_width,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.width // head_width,
            "num_channels": 3,
            "image_size": edge,
            "patch_size": sizes.patch_size,
            "projection_dim": sizes.projection,
            "hidden_act": "quick_gelu" if content["model_cfg"].get("quick_gelu") else "gelu",
            "layer_norm_eps": (vision.get("norm_kwargs") or {}).get("eps", EPSILON),
        },
        PREPROCESSING: {
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"height": edge, "width": edge} if squashes else {"shortest_edge": edge},
            "resample": numbers[pictures.get("interpolation") or "bicubic"],
            "do_center_crop": not squashes,
            "crop_size": {"height": edge, "width": edge},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": pictures["mean"],
            "image_std": pictures["std"],
        },
    }


def missing_layout_file(folder: Path, name: str) -> BadInputError:
    """Returns the refusal of a layout that needs a file beside the weights."""
    return BadInputError(
        f"{name} is missing, which another layout needs",
        where=str(folder),
        expected="the folder as it was published, configuration beside the weights",
    )

"""How transformers prepares pictures for a tower, from ``preprocessor_config.json``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_m2pt.backbones.config_values import bad_key, one_of, whole_number
from lightning_m2pt.backbones.foreign_code import INSTALLED_CODE_ONLY
from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.backbones.library_processor import refuse_odd_colours
from lightning_m2pt.backbones.towers.kind import KEY, PictureRule
from lightning_m2pt.backbones.towers.open_clip_config import MOST_PIXELS
from lightning_m2pt.errors import BadInputError

PICTURE_FILE = "preprocessor_config.json"
CLASSES = ("CLIPImageProcessor", "SiglipImageProcessor", "BitImageProcessor", "DINOv3ViTImageProcessor")
"""Of transformers; each makes one square of a picture."""
FORMER_CLASSES = {"CLIPFeatureExtractor": "CLIPImageProcessor"}
RESAMPLES = {2: "bilinear", 3: "bicubic"}
STEPS = ("do_resize", "do_rescale", "do_normalize")


def rule_of_library(folder: Path, side: int, *, asked: bool) -> PictureRule:
    """Reads and checks how pictures are prepared; the library's own class does it.

    Args:
        folder: With the file.
        side: Side of the pictures that the tower shall read.
        asked: Whether it was asked for, so that the file's sizes are scaled to it.

    Raises:
        BadInputError: If the file is missing, names another class, or makes pictures of another size.
    """
    path = folder / PICTURE_FILE
    content = read_json(path, KEY)
    one_of(content, "auto_map", path, *INSTALLED_CODE_ONLY["auto_map"])
    named = content.get("image_processor_type", content.get("feature_extractor_type"))
    kind = FORMER_CLASSES.get(str(named), str(named).removesuffix("Fast"))
    if kind not in CLASSES:
        raise bad_key(path, "image_processor_type", f"{named!r:.60} is not proven", " or ".join(CLASSES))
    for key in STEPS:
        one_of(content, key, path, (None, True), "the tower reads resized and normalised pictures")
    for key in ("image_mean", "image_std"):
        if content.get(key) is None:
            raise bad_key(path, key, "this key is missing", "three numbers")
    refuse_odd_colours(content, path)
    one_of(content, "resample", path, tuple(RESAMPLES), "")
    crops = content.get("do_center_crop", kind in ("CLIPImageProcessor", "BitImageProcessor"))
    made = edge(content, "crop_size" if crops else "size", path)
    if made != side and not asked:
        raise BadInputError(
            f"{path.name} makes pictures of {made} pixels, and the tower's positions are of {side}",
            where=str(path),
            expected="one size",
            hint=f"model.backbone.image_size: {made} interpolates the positions, as the library does",
        )
    resized = {"height": side, "width": side}
    if crops:
        short = content.get("size")
        short = short.get("shortest_edge") if isinstance(short, dict) else short
        length = whole_number({"shortest_edge": short}, "size.shortest_edge", path, MOST_PIXELS)
        resized = {"shortest_edge": round(length * side / made)}
    return PictureRule(
        size=side,
        mean=tuple(content["image_mean"]),
        std=tuple(content["image_std"]),
        interpolation="bilinear" if content.get("resample", 3) == 2 else "bicubic",
        resize="shortest_edge" if crops else "squash",
        library_class=kind,
        library_sizes={"size": resized, **({"crop_size": {"height": side, "width": side}} if crops else {})},
        library_settings={key: value for key, value in content.items() if key in SETTINGS},
    )


SETTINGS = (*STEPS, "do_center_crop", "do_convert_rgb", "image_mean", "image_std", "resample", "rescale_factor")
"""What of the file decides pixels, besides sizes."""


def edge(content: Mapping[str, Any], key: str, path: Path) -> int:
    """Returns the side of a square that the file names; older files write it as a number.

    Raises:
        BadInputError: If it names no square.
    """
    value = content.get(key)
    if isinstance(value, dict):
        if set(value) != {"height", "width"} or value["height"] != value["width"]:
            raise bad_key(path, key, f"{value!r:.60} is no square", "height and width, the same")
        value = value["height"]
    return whole_number({key: value}, key, path, MOST_PIXELS)

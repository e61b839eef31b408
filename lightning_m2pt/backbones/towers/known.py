"""Which kind of tower a folder holds."""

from pathlib import Path

from lightning_m2pt.backbones.config_values import bad_key, shown_value
from lightning_m2pt.backbones.foreign_code import CONFIG_FILE
from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.backbones.towers import of_open_clip, of_timm
from lightning_m2pt.backbones.towers.clip import ClipTower
from lightning_m2pt.backbones.towers.dinov2 import Dinov2RegistersTower, Dinov2Tower
from lightning_m2pt.backbones.towers.dinov3 import Dinov3Tower
from lightning_m2pt.backbones.towers.kind import KEY, Tower
from lightning_m2pt.backbones.towers.of_transformers import TransformersTower
from lightning_m2pt.backbones.towers.siglip import SiglipTower
from lightning_m2pt.errors import BadInputError

OF_TRANSFORMERS: dict[str, type[TransformersTower]] = {
    "clip_vision_model": ClipTower,
    "clip": ClipTower,
    "siglip_vision_model": SiglipTower,
    "siglip": SiglipTower,
    "dinov2": Dinov2Tower,
    "dinov2_with_registers": Dinov2RegistersTower,
    "dinov3_vit": Dinov3Tower,
}
"""By ``model_type``."""
REFUSED = {
    "siglip2_vision_model": "its pictures have sizes of their own, and a pair reads squares",
    "siglip2": "its pictures have sizes of their own, and a pair reads squares",
}
"""Architectures that a pair could be expected to take, and why it does not."""


def tower_of(folder: Path, image_size: int | None = None) -> Tower:
    """Reads and checks a tower's configuration; opens no weights.

    Args:
        folder: transformers' or timm's (``config.json``), or open_clip's (``open_clip_config.json``). Where both lie
            there, they describe one model, and transformers' is read.
        image_size: Side of the pictures; None takes the configuration's.

    Raises:
        BadInputError: If the folder holds no known tower, or its configuration is not proven.
    """
    path = folder / CONFIG_FILE
    has_open_clip = (folder / of_open_clip.CONFIG).is_file()
    if not path.is_file():
        if has_open_clip:
            return of_open_clip.OpenClipTower(folder, image_size)
        raise BadInputError(
            "there is no tower",
            where=f"{KEY}: {folder}",
            expected=f"a folder with {CONFIG_FILE} of transformers or timm, or {of_open_clip.CONFIG}",
        )
    content = read_json(path, KEY)
    kind = content.get("model_type")
    if isinstance(kind, str) and kind in OF_TRANSFORMERS:
        return OF_TRANSFORMERS[kind](folder, image_size)
    if kind is None and of_timm.ARCHITECTURE in content:
        return of_timm.TimmTower(folder, image_size)
    if kind is None and has_open_clip:
        return of_open_clip.OpenClipTower(folder, image_size)
    what = "this key is missing" if kind is None else f"{shown_value(kind)} is no proven tower"
    hint = REFUSED.get(kind, "") if isinstance(kind, str) else ""
    raise bad_key(path, "model_type", what, " or ".join(OF_TRANSFORMERS), hint)

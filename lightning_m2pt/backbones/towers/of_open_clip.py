"""open_clip's towers, as its hub folders keep them: ``open_clip_config.json`` and ``open_clip_model.safetensors``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.backbones.towers.kind import KEY, PictureRule, Tower, TowerSizes
from lightning_m2pt.backbones.towers.open_clip_config import check_tower_config
from lightning_m2pt.backbones.towers.open_clip_files import VISION_PREFIX_IN_FILE, tower_on_meta
from lightning_m2pt.backbones.weight_files import SINGLE, Stored, stored_in_folder, stored_tensors
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.prompts.prefix_path import VisionPrefixPath

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


class OpenClipTower(Tower):
    """Row 0 is CLS.

    Args:
        folder: With both files.
        image_size: None, or the configuration's: positions are not interpolated.

    Raises:
        BadInputError: If the configuration is none of a plain vision transformer, or another size is asked for.
    """

    norm_refused = "what stands behind the blocks of open_clip's towers is made for pooling"

    def __init__(self, folder: Path, image_size: int | None = None) -> None:
        self.folder = folder
        content = read_json(folder / CONFIG, KEY)
        check_tower_config(content, folder / CONFIG)
        self._model: Mapping[str, Any] = content["model_cfg"]
        vision, pictures = self._model["vision_cfg"], content["preprocess_cfg"]
        if image_size not in (None, vision["image_size"]):
            raise BadInputError(
                f"open_clip's tower reads {vision['image_size']} pixels, and its positions are not interpolated",
                where="model.backbone.image_size",
                expected=f"null or {vision['image_size']}",
            )
        self.described = {
            "vision_cfg": vision,
            "quick_gelu": self._model.get("quick_gelu", False),
            "preprocess_cfg": pictures,
        }
        self.sizes = TowerSizes(
            layers=vision["layers"],
            width=vision["width"],
            patch_size=vision["patch_size"],
            image_size=vision["image_size"],
            mlp_width=int(vision["width"] * (vision.get("mlp_ratio") or 4.0)),
            quick_gelu=self._model.get("quick_gelu", False),
            rows_in_front=1,
        )
        self.pictures = PictureRule(
            size=vision["image_size"],
            mean=tuple(pictures["mean"]),
            std=tuple(pictures["std"]),
            interpolation=pictures.get("interpolation", "bicubic"),
            resize="squash" if pictures.get("resize_mode") == "squash" else "shortest_edge",
        )

    def weights(self) -> list[Path]:
        """Returns the model's file."""
        return [self.folder / WEIGHTS]

    def on_meta(self, dtype: torch.dtype | None = None) -> Any:  # noqa: ANN401
        """Builds open_clip's tower."""
        tower = tower_on_meta(self._model)
        return tower if dtype is None else tower.to(dtype)

    def stored(self) -> Stored:
        """Leaves out the text tower."""
        tensors = stored_tensors(self.folder / WEIGHTS)
        return {name: one for name, one in tensors.items() if name.startswith(VISION_PREFIX_IN_FILE)}

    def name_in_module(self, name: str, known: Mapping[str, Any]) -> str:
        """Takes the tower's prefix away."""
        del known
        return name.removeprefix(VISION_PREFIX_IN_FILE)

    def blocks(self, module: Any) -> list[nn.Module]:  # noqa: ANN401
        """Returns the residual attention blocks."""
        return list(module.transformer.resblocks)

    def embedded(self, module: Any, pixel_values: Tensor) -> Tensor:  # noqa: ANN401
        """Returns CLS and patches, through the norm that stands before the first block."""
        return module._embeds(pixel_values)  # type: ignore[no-any-return]

    def run_block(self, block: Any, states: Tensor, named: Mapping[str, Any]) -> Tensor:  # noqa: ANN401
        """Runs a block."""
        return block(states, **named)  # type: ignore[no-any-return]

    def norm(self, module: Any) -> nn.Module:  # noqa: ANN401
        """Returns the norm that stands before pooling."""
        return module.ln_post  # type: ignore[no-any-return]

    def run(self, module: Any, pixel_values: Tensor) -> object:  # noqa: ANN401
        """Runs open_clip's forward pass."""
        return module(pixel_values)

    def prefix_path(self) -> VisionPrefixPath:
        """Their attention has no interface: it is computed with the blocks' own weights."""
        return VisionPrefixPath()

    def unused(self, used_blocks: int, *, normed: bool) -> tuple[str, ...]:
        """Leaves out later blocks, the last norm and CLIP's projection."""
        del normed
        later = tuple(f"transformer.resblocks.{number}." for number in range(used_blocks, self.sizes.layers))
        return (*later, "ln_post.", "proj")

    def uncounted(self) -> tuple[str, ...]:
        """CLIP's projection is no part of a LLaVA model."""
        return ("proj",)


def weights_beside(folder: Path) -> list[Path]:
    """Returns a folder's safetensors without open_clip's, which hub folders hold besides those of another library."""
    return [path for path in sorted(folder.glob("*.safetensors")) if path.name != WEIGHTS]


def stored_beside(folder: Path) -> Stored:
    """Returns the stored tensors of a folder without open_clip's.

    Raises:
        BadInputError: If files are missing, cut, left over or pickles, or an index and its shards disagree.
    """
    single = folder / SINGLE
    return stored_tensors(single) if weights_beside(folder) == [single] else stored_in_folder(folder)

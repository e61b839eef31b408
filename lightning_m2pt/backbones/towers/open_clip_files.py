"""An open_clip tower's file: what it may hold, checked from its header alone, and the tower read from it strictly."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lightning_m2pt.backbones.filling.unfilled import Unfilled
from lightning_m2pt.backbones.weight_files import (
    Stored,
    StoredTensor,
    compare_tensors,
    shapes_of,
    stored_tensors,
)

VISION_PREFIX_IN_FILE = "visual."
"""open_clip's checkpoints hold the whole CLIP model; the tower's keys start with this."""
SMALLEST_TEXT_TOWER = {"context_length": 1, "vocab_size": 1, "width": 1, "heads": 1, "layers": 1}
"""open_clip builds a text tower beside the vision tower; it is dropped again."""


def tower_on_meta(model_cfg: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Builds a tower without memory from a checked ``model_cfg``."""
    import open_clip

    vision = {key: value for key, value in model_cfg["vision_cfg"].items() if value is not None}
    quick_gelu = model_cfg.get("quick_gelu", False)
    with torch.device("meta"):
        return open_clip.CLIP(model_cfg["embed_dim"], vision, SMALLEST_TEXT_TOWER, quick_gelu).visual


def stored_tower(path: Path, tower: Any) -> Stored:  # noqa: ANN401
    """Returns a tower's stored tensors by their names in the file; they are exactly the tower's.

    Raises:
        BadInputError: If the file cannot be read, or tensors are missing, left over, or of another shape or type.
    """
    stored = stored_tensors(path)
    of_tower: dict[str, StoredTensor] = {
        name: one for name, one in stored.items() if name.startswith(VISION_PREFIX_IN_FILE)
    }
    compare_tensors({VISION_PREFIX_IN_FILE + name: shape for name, shape in shapes_of(tower).items()}, of_tower, path)
    return of_tower


def load_tower(path: Path, model_cfg: Mapping[str, Any], dtype: torch.dtype) -> Any:  # noqa: ANN401
    """Reads a tower strictly.

    Raises:
        BadInputError: If tensors are not exactly the tower's, or not finite.
    """
    return unfilled_tower(path, model_cfg, dtype).fill()


def unfilled_tower(path: Path, model_cfg: Mapping[str, Any], dtype: torch.dtype) -> Unfilled:
    """Builds what ``load_tower`` reads, without memory.

    Raises:
        BadInputError: If stored tensors are not exactly the tower's.
    """
    tower = tower_on_meta(model_cfg).to(dtype)
    stored = stored_tower(path, tower)
    return Unfilled(tower, stored, {name: name.removeprefix(VISION_PREFIX_IN_FILE) for name in stored}, dtype, path)

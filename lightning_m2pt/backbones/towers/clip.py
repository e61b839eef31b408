"""CLIP's tower of transformers: ``CLIPVisionModel``, or the one inside a whole ``CLIPModel``."""

from typing import Any

from torch import Tensor

from lightning_m2pt.backbones.towers.of_transformers import TransformersTower


class ClipTower(TransformersTower):
    """Row 0 is CLS. The norm behind the last block is CLS's alone, for the contrastive loss."""

    left_out = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")
    front_rows = 1
    norm_refused = "CLIP's last norm was trained on CLS alone"

    def embedded(self, module: Any, pixel_values: Tensor) -> Tensor:  # noqa: ANN401
        """Returns CLS and patches, through the norm that stands before the first block."""
        rows = module.embeddings(pixel_values, interpolate_pos_encoding=self._interpolates)
        return module.pre_layrnorm(rows)  # type: ignore[no-any-return]

    def unused(self, used_blocks: int, *, normed: bool) -> tuple[str, ...]:
        """Leaves out later blocks and the last norm."""
        del normed
        later = tuple(f"encoder.layers.{number}." for number in range(used_blocks, self.sizes.layers))
        return (*later, "post_layernorm.")

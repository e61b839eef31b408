"""SigLIP's tower of transformers, and SigLIP-2's for pictures of one size: alone, or inside a whole model."""

from typing import Any

from torch import Tensor

from lightning_m2pt.backbones.towers.of_transformers import TransformersTower


class SiglipTower(TransformersTower):
    """All rows are patches; there is no CLS."""

    left_out = ("text_model.", "logit_scale", "logit_bias")

    def embedded(self, module: Any, pixel_values: Tensor) -> Tensor:  # noqa: ANN401
        """Returns the patches with their positions."""
        return module.embeddings(pixel_values, interpolate_pos_encoding=self._interpolates)  # type: ignore[no-any-return]

    def unused(self, used_blocks: int, *, normed: bool) -> tuple[str, ...]:
        """Leaves out later blocks, the pooling head, and the last norm unless it is asked for."""
        later = tuple(f"encoder.layers.{number}." for number in range(used_blocks, self.sizes.layers))
        return (*later, "head.", *(() if normed else ("post_layernorm.",)))

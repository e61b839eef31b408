"""DINOv3's vision transformer of transformers, ``DINOv3ViTModel``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_m2pt.backbones.config_values import bad_key, real_number
from lightning_m2pt.backbones.towers.of_transformers import TransformersTower


class Dinov3Tower(TransformersTower):
    """Row 0 is CLS, registers stand behind it. Blocks rotate patches by their place, and no other rows."""

    prefixes = ()
    front_rows = 1
    has_registers = True
    prefix_refused = "DINOv3's blocks read rotations of their patches beside the rows, and no keys of others"

    def _check(self, config: Mapping[str, Any], path: Path) -> None:
        super()._check(config, path)
        real_number(config, "rope_theta", path, 1e15)
        real_number(config, "layerscale_value", path, 1e6)
        head_width = config["hidden_size"] // config["num_attention_heads"]
        if head_width % 4:
            what = f"{head_width} numbers a head cannot be rotated by lines and columns"
            raise bad_key(path, "num_attention_heads", what, "heads whose width is a multiple of 4")

    def name_in_module(self, name: str, known: Mapping[str, Any]) -> str:
        """Published files leave the encoder's own name out."""
        return f"model.{name}" if f"model.{name}" in known else name

    def embedded(self, module: Any, pixel_values: Tensor) -> Tensor:  # noqa: ANN401
        """Returns CLS, registers and patches."""
        return module.embeddings(pixel_values)  # type: ignore[no-any-return]

    def for_blocks(self, module: Any, pixel_values: Tensor) -> dict[str, Any]:  # noqa: ANN401
        """Returns the patches' rotations, for pictures of any size."""
        return {"position_embeddings": module.rope_embeddings(pixel_values)}

    def blocks(self, module: Any) -> list[nn.Module]:  # noqa: ANN401
        """Returns the encoder's layers."""
        return list(module.model.layer)

    def norm(self, module: Any) -> nn.Module:  # noqa: ANN401
        """Returns the norm behind the last block."""
        return module.norm  # type: ignore[no-any-return]

    def run(self, module: Any, pixel_values: Tensor) -> object:  # noqa: ANN401
        """Runs the library's forward pass."""
        return module(pixel_values)

    def give_tables(self, module: Any) -> None:  # noqa: ANN401
        """Makes the rotations' frequencies."""
        module.rope_embeddings = type(module.rope_embeddings)(module.config)

    def unused(self, used_blocks: int, *, normed: bool) -> tuple[str, ...]:
        """Leaves out later blocks, what stands for masked patches, and the last norm unless it is asked for."""
        later = tuple(f"model.layer.{number}." for number in range(used_blocks, self.sizes.layers))
        return (*later, "embeddings.mask_token", *(() if normed else ("norm.",)))

"""DINOv2's tower of transformers, ``Dinov2Model``, and the one with registers, ``Dinov2WithRegistersModel``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_m2pt.backbones.config_values import one_of, real_number
from lightning_m2pt.backbones.towers.of_transformers import TransformersTower

RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}
"""Names in published files, and the library's of today."""


class Dinov2Tower(TransformersTower):
    """Row 0 is CLS. Blocks scale what they add; positions follow any size of pictures."""

    prefixes = ("dinov2.",)
    front_rows = 1

    def _check(self, config: Mapping[str, Any], path: Path) -> None:
        super()._check(config, path)
        one_of(
            config, "use_swiglu_ffn", path, (None, False), "gates' weights lie in one tensor, which is not cut apart"
        )
        real_number(config, "mlp_ratio", path, 64.0)
        real_number(config, "layerscale_value", path, 1e6)

    def _mlp_width(self) -> int:
        return int(self.config.hidden_size * self.config.mlp_ratio)

    def name_in_module(self, name: str, known: Mapping[str, Any]) -> str:
        """Knows the names of published files."""
        renamed = name
        for old, new in RENAMED.items():
            renamed = renamed.replace(old, new)
        return super().name_in_module(renamed if name not in known else name, known)

    def embedded(self, module: Any, pixel_values: Tensor) -> Tensor:  # noqa: ANN401
        """Returns CLS and patches; the library interpolates positions itself."""
        return module.embeddings(pixel_values)  # type: ignore[no-any-return]

    def blocks(self, module: Any) -> list[nn.Module]:  # noqa: ANN401
        """Returns the encoder's layers."""
        return list(module.encoder.layer)

    def norm(self, module: Any) -> nn.Module:  # noqa: ANN401
        """Returns the norm behind the last block."""
        return module.layernorm  # type: ignore[no-any-return]

    def run(self, module: Any, pixel_values: Tensor) -> object:  # noqa: ANN401
        """Runs the library's forward pass."""
        return module(pixel_values)

    def unused(self, used_blocks: int, *, normed: bool) -> tuple[str, ...]:
        """Leaves out later blocks, what stands for masked patches, and the last norm unless it is asked for."""
        later = tuple(f"encoder.layer.{number}." for number in range(used_blocks, self.sizes.layers))
        return (*later, "embeddings.mask_token", *(() if normed else ("layernorm.",)))


class Dinov2RegistersTower(Dinov2Tower):
    """Registers stand between CLS and the patches; they never go to the connector."""

    has_registers = True

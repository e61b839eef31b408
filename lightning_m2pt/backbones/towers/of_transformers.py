"""Towers of transformers, as ``save_pretrained`` and the hub keep them: alone, or inside a whole contrastive model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.base_files import DECIDES_NOTHING, without_keys
from lightning_m2pt.backbones.config_values import divisible, one_of, real_number, whole_number
from lightning_m2pt.backbones.foreign_code import CONFIG_FILE, refuse_foreign_code
from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.backbones.proven_forms import MOST_HEADS, QUANTISED
from lightning_m2pt.backbones.towers.kind import KEY, Tower, TowerSizes
from lightning_m2pt.backbones.towers.of_open_clip import stored_beside, weights_beside
from lightning_m2pt.backbones.towers.open_clip_config import MOST_LAYERS, MOST_PIXELS, MOST_WIDTH
from lightning_m2pt.backbones.towers.picture_rules import rule_of_library
from lightning_m2pt.backbones.weight_files import Stored
from lightning_m2pt.errors import BadInputError

POSITION_TABLE = "position_ids"
"""The numbers 0, 1, ... of positions: older checkpoints keep them, the library does not."""
VISION = "vision_config"
ACTIVATIONS = ("quick_gelu", "gelu", "gelu_pytorch_tanh")


class TransformersTower(Tower):
    """Base class of towers that are classes of transformers.

    Args:
        folder: With ``config.json``, safetensors and ``preprocessor_config.json``.
        image_size: Side of the pictures; another one than the configuration's lets positions be interpolated. None:
            the configuration's.

    Attributes:
        prefixes: Beginnings that a tensor's name may have in files beside the one it has in the library today.
        left_out: Beginnings of names of a whole model's other tensors.
        front_rows: Rows in front of the patches, registers left aside.
        has_registers: Whether the configuration says how many registers stand behind them.
    """

    prefixes: ClassVar[tuple[str, ...]] = ("vision_model.",)
    left_out: ClassVar[tuple[str, ...]] = ()
    front_rows: ClassVar[int] = 0
    has_registers: ClassVar[bool] = False

    def __init__(self, folder: Path, image_size: int | None = None) -> None:
        self.folder = folder
        refuse_foreign_code(folder, KEY)
        path = folder / CONFIG_FILE
        content = read_json(path, KEY)
        for key in ("quantization_config", "compression_config"):
            one_of(content, key, path, (None,), QUANTISED)
        inner: Mapping[str, Any] = content[VISION] if isinstance(content.get(VISION), dict) else content
        self.described = without_keys(dict(inner), DECIDES_NOTHING)
        self._check_bounds(inner, path)
        self.config = self._library_config()
        self._check(self.config.to_dict(), path)
        self.sizes = self._sizes()
        side = self.sizes.image_size if image_size is None else image_size
        self._interpolates = side != self.sizes.image_size
        if image_size is not None and image_size % self.sizes.patch_size:
            raise BadInputError(
                f"{image_size} pixels are no multiple of a patch of {self.sizes.patch_size}",
                where="model.backbone.image_size",
                expected=f"a multiple of {self.sizes.patch_size}",
            )
        self.pictures = rule_of_library(folder, side, asked=image_size is not None)
        # The class too: its own defaults and the order of its steps decide pixels.
        of_pictures = {"class": self.pictures.library_class, **self.pictures.library_settings}
        self.described |= {"pictures": {**of_pictures, **self.pictures.library_sizes}}

    def _check_bounds(self, content: Mapping[str, Any], path: Path) -> None:
        """Looks whether what is built without asking further has a size; the library's defaults have."""
        bounds = {
            "num_hidden_layers": MOST_LAYERS,
            "hidden_size": MOST_WIDTH,
            "intermediate_size": 4 * MOST_WIDTH,
            "num_attention_heads": MOST_HEADS,
            "image_size": MOST_PIXELS,
            "patch_size": MOST_PIXELS,
            "projection_dim": MOST_WIDTH,
        }
        for key, most in bounds.items():
            if key in content:
                whole_number(content, key, path, most)

    def _library_config(self) -> Any:  # noqa: ANN401
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(str(self.folder), local_files_only=True, trust_remote_code=False)
        except Exception as error:  # its validators raise errors of their own kinds
            raise self._refused_by_library(error) from error
        return getattr(config, VISION, config)

    def _refused_by_library(self, error: Exception) -> BadInputError:
        reason = " ".join(str(error).split()) or type(error).__name__
        return BadInputError(
            f"transformers cannot build this tower: {ascii(reason)[1:-1]:.200}",
            where=str(self.folder / CONFIG_FILE),
            expected="a configuration that the library takes",
        )

    def _check(self, config: Mapping[str, Any], path: Path) -> None:
        """Looks whether the configuration, the library's defaults filled in, is a proven one whose sizes fit.

        Raises:
            BadInputError: At the first thing that is wrong or not proven.
        """
        width = whole_number(config, "hidden_size", path, MOST_WIDTH)
        whole_number(config, "num_hidden_layers", path, MOST_LAYERS)
        heads = whole_number(config, "num_attention_heads", path, MOST_HEADS)
        divisible(path, "hidden_size", width, "num_attention_heads", heads)
        image = whole_number(config, "image_size", path, MOST_PIXELS)
        whole_number(config, "patch_size", path, image)
        one_of(config, "num_channels", path, (3,), "pictures have three channels")
        one_of(config, "hidden_act", path, ACTIVATIONS, "other activations are not proven")
        real_number(config, "layer_norm_eps", path, 0.1)

    def _sizes(self) -> TowerSizes:
        config = self.config
        return TowerSizes(
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            patch_size=config.patch_size,
            image_size=config.image_size,
            mlp_width=self._mlp_width(),
            quick_gelu=config.hidden_act == "quick_gelu",
            rows_in_front=self.front_rows + (config.num_register_tokens if self.has_registers else 0),
        )

    def _mlp_width(self) -> int:
        return int(self.config.intermediate_size)

    def weights(self) -> list[Path]:
        """Returns the folder's safetensors."""
        return weights_beside(self.folder)

    def on_meta(self, dtype: torch.dtype | None = None) -> Any:  # noqa: ANN401
        """Builds the library's class for the configuration."""
        from transformers import AutoModel

        try:
            with torch.device("meta"):
                return AutoModel.from_config(self.config, dtype=dtype, trust_remote_code=False)
        except Exception as error:  # whatever the library's code meets
            raise self._refused_by_library(error) from error

    def stored(self) -> Stored:
        """Leaves out what a whole model has besides, and tables that follow from the configuration."""
        return {
            name: one
            for name, one in stored_beside(self.folder).items()
            if not name.startswith(self.left_out) and not name.endswith(f"embeddings.{POSITION_TABLE}")
        }

    def name_in_module(self, name: str, known: Mapping[str, Any]) -> str:
        """Takes a beginning away that the library's tower alone does not have."""
        candidates = [name, *(name.removeprefix(prefix) for prefix in self.prefixes)]
        return next((candidate for candidate in candidates if candidate in known), name)

    def blocks(self, module: Any) -> list[nn.Module]:  # noqa: ANN401
        """Returns the encoder's layers."""
        return list(module.encoder.layers)

    def run_block(self, block: Any, states: Tensor, named: Mapping[str, Any]) -> Tensor:  # noqa: ANN401
        """Runs a block without a mask: no row is padding."""
        return block(states, None, **named)  # type: ignore[no-any-return]

    def norm(self, module: Any) -> nn.Module:  # noqa: ANN401
        """Returns the norm behind the last block."""
        return module.post_layernorm  # type: ignore[no-any-return]

    def run(self, module: Any, pixel_values: Tensor) -> object:  # noqa: ANN401
        """Runs the library's forward pass."""
        return module(pixel_values, interpolate_pos_encoding=self._interpolates)

    def give_tables(self, module: nn.Module) -> None:
        """Makes the numbers of positions."""
        for part in module.modules():
            table = dict(part.named_buffers(recurse=False)).get(POSITION_TABLE)
            if table is not None and table.is_meta:
                numbers = torch.arange(table.shape[-1]).expand(table.shape)
                part.register_buffer(POSITION_TABLE, numbers, persistent=False)

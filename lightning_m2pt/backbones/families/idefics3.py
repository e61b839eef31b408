"""Idefics3 and SmolVLM: a SigLIP tower over tiles, patches joined by a pixel shuffle; every tile is a placeholder's."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_m2pt.backbones.config_values import bad_key, divisible, whole_number
from lightning_m2pt.backbones.connected_rows import ConnectedRows
from lightning_m2pt.backbones.families.family import TiledFamily, TowerForm, module_at, rows_given_to
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inputs.picture_map import PictureMap
from lightning_m2pt.inputs.picture_rules.idefics3 import Idefics3Tiles
from lightning_m2pt.inputs.picture_rules.rules import PictureRules

MOST_JOINED = 64


class Idefics3(TiledFamily):
    """``Idefics3ForConditionalGeneration``, which SmolVLM's first models are too."""

    architecture = "Idefics3ForConditionalGeneration"
    model_type = "idefics3"
    tower, connector, decoder = "model.vision_model", "model.connector", "model.text_model"
    towers: tuple[str, ...] = ("idefics3_vision",)
    raw_rows_refused = "the connector joins neighbouring patches of a square, in which a prompt row has no place"

    def check(self, content: Mapping[str, Any], path: Path) -> None:
        """Takes a tower whose lines of patches the pixel shuffle divides."""
        tower = content["vision_config"]
        joined = whole_number(content, "scale_factor", path, MOST_JOINED, default=2)
        side = divisible(path, "vision_config.image_size", tower["image_size"], "patch_size", tower["patch_size"])
        if side % joined:
            raise bad_key(path, "scale_factor", f"{joined} does not divide a line of {side} patches", "a divisor")

    def tower_form(self, config: Any) -> TowerForm:  # noqa: ANN401
        """All blocks, and the norm behind them."""
        tower = config.vision_config
        patches = (tower.image_size // tower.patch_size) ** 2
        return TowerForm(
            used_blocks=tower.num_hidden_layers,
            has_cls=False,
            patches=patches,
            rows_behind_connector=patches // config.scale_factor**2,
            image_size=tower.image_size,
        )

    def picture_rules(self, config: Any, image_processor: Any, tokenizer: Any) -> PictureRules:  # noqa: ANN401
        """Tiles line by line, each between tokens that name it, then a small copy of the picture."""
        rows = self.tower_form(config).rows_behind_connector
        return Idefics3Tiles(image_processor, tokenizer, config.vision_config.image_size, rows)

    def picture_map(self, config: Any, size: tuple[int, ...] | None) -> PictureMap:  # noqa: ANN401
        """Tiles that the picture was brought to the size of, then the small copy."""
        whole, (rows, columns) = super().picture_map(config, size), size or (0, 0)
        if not rows:
            return whole
        (square,), side = whole.tiles, whole.height
        tiles = [
            replace(square, top=row * side, left=column * side) for row in range(rows) for column in range(columns)
        ]
        tiles.append(replace(square, cell_height=square.cell_height * rows, cell_width=square.cell_width * columns))
        places = torch.cat([tile.joined(config.scale_factor).cells() for tile in tiles])
        return PictureMap(rows * side, columns * side, tuple(tiles), places, len(tiles), len(tiles) - 1)

    def tower_states(self, model: Any, pixel_values: Tensor) -> Tensor:  # noqa: ANN401
        """Runs the library's own way to image features up to its connector.

        Raises:
            BadInputError: If a tile is all zeros, which the library leaves out as padding.
        """
        tiles = pixel_values[None]
        states = rows_given_to(module_at(model, self.connector), lambda: model.get_image_features(pixel_values=tiles))
        if len(states) != len(pixel_values):
            raise BadInputError(
                "all numbers of a picture's tile are zero, which this family's model takes for padding",
                where="model.backbone",
                expected="pictures as the model's image processor makes them",
            )
        return states

    def placed(
        self,
        model: Any,  # noqa: ANN401
        rows: Tensor,
        spans: Sequence[Span],
        picture_sizes: Tensor | None,
    ) -> ConnectedRows:
        """Every tile is one placeholder's; joined patches are patches."""
        return ConnectedRows.of_alike(rows, [Span.PATCH] * rows.shape[1])


class SmolVLM(Idefics3):
    """``SmolVLMForConditionalGeneration``, of SmolVLM2: the same model under other names."""

    architecture = "SmolVLMForConditionalGeneration"
    model_type = "smolvlm"
    towers = ("smolvlm_vision",)

"""LLaVA-OneVision: a SigLIP tower over tiles of a picture, laid out as a grid with a row at every line's end."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_m2pt.backbones.config_values import bad_key, shown_value
from lightning_m2pt.backbones.connected_rows import ConnectedRows
from lightning_m2pt.backbones.families.family import TiledFamily, TowerForm, module_at, rows_given_to
from lightning_m2pt.backbones.families.llava import LANGUAGE, VISION_TOWER, check_features, features_form
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inputs.picture_map import PictureMap
from lightning_m2pt.inputs.picture_rules.llava_onevision import LlavaOnevisionTiles
from lightning_m2pt.inputs.picture_rules.rules import PictureRules
from lightning_m2pt.inputs.picture_rules.tiles_of_grids import TilesOfGrids

MOST_TILES = "anyres_max_"
"""What ``vision_aspect_ratio`` begins with; the most tiles of a picture at its own size follow."""


class LlavaOnevision(TiledFamily):
    """``LlavaOnevisionForConditionalGeneration``. A picture's sizes are its tiles, its height and its width."""

    architecture = "LlavaOnevisionForConditionalGeneration"
    model_type = "llava_onevision"
    tower, connector, decoder = "model.vision_tower", "model.multi_modal_projector", "model.language_model"
    towers: tuple[str, ...] = ("siglip_vision_model",)
    renamed = (*VISION_TOWER, *LANGUAGE, ("image_newline", "model.image_newline"))
    raw_rows_refused = "a picture's tiles are laid out as one grid of patches, in which a prompt row has no place"

    def check(self, content: Mapping[str, Any], path: Path) -> None:
        """Takes one feature layer and sizes of pictures as the family writes them."""
        check_features(content, path, layer=-1, strategy="full")
        ratio = content.get("vision_aspect_ratio", "anyres_max_9")
        if not (isinstance(ratio, str) and ratio.startswith(MOST_TILES) and ratio.removeprefix(MOST_TILES).isdigit()):
            raise bad_key(path, "vision_aspect_ratio", f"{shown_value(ratio)} is not supported", f"{MOST_TILES}N")

    def tower_form(self, config: Any) -> TowerForm:  # noqa: ANN401
        """Blocks up to the feature layer; the last norm stands behind them."""
        return features_form(config)

    def picture_tokens(self, config: Any) -> tuple[int, ...]:  # noqa: ANN401
        """Returns the tokens of pictures and of videos."""
        return config.image_token_id, config.video_token_id

    def picture_rules(self, config: Any, image_processor: Any, tokenizer: Any) -> PictureRules:  # noqa: ANN401
        """A small copy of the picture, then tiles of it; in a sample of several pictures one tile of each."""
        tower = config.vision_config
        return LlavaOnevisionTiles(
            image_processor,
            tower.image_size,
            tower.image_size // tower.patch_size,
            config.image_grid_pinpoints,
            int(config.vision_aspect_ratio.removeprefix(MOST_TILES)),
        )

    def tiles_of_grids(self, config: Any) -> TilesOfGrids:  # noqa: ANN401
        """Returns how pictures become grids of tiles."""
        tower, most = config.vision_config, int(config.vision_aspect_ratio.removeprefix(MOST_TILES))
        return TilesOfGrids(tower.image_size, tower.patch_size, config.image_grid_pinpoints, most)

    def picture_map(self, config: Any, size: tuple[int, ...] | None) -> PictureMap:  # noqa: ANN401
        """The small copy, then tiles of the padded picture."""
        if size is None or size[0] == 1:
            return super().picture_map(config, None)
        _, height, width = size
        return self.tiles_of_grids(config).map(width, height)

    def packing(self, config: Any) -> dict[str, Any]:  # noqa: ANN401
        """Returns what else the library's layout of tiles asks for."""
        return {"vision_aspect_ratio": config.vision_aspect_ratio}

    def tower_states(self, model: Any, pixel_values: Tensor) -> Tensor:  # noqa: ANN401
        """Runs the library's own way to image features up to its projector; which tiles belong together comes later."""
        no_sizes = torch.empty(0, 2, dtype=torch.long)

        def run() -> object:
            return model.get_image_features(
                pixel_values=pixel_values, image_sizes=no_sizes, vision_feature_select_strategy="full"
            )

        return rows_given_to(module_at(model, self.connector), run)

    def placed(
        self,
        model: Any,  # noqa: ANN401
        rows: Tensor,
        spans: Sequence[Span],
        picture_sizes: Tensor | None,
    ) -> ConnectedRows:
        """Lets the library lay out every picture's tiles: a small whole one, then the grid without its padding."""
        if picture_sizes is None:  # every picture is one tile, whatever its size was
            picture_sizes = torch.ones(len(rows), 3, dtype=torch.long)
        del spans  # raw prompt rows are refused: all are patches
        tiles, sizes = picture_sizes[:, 0].tolist(), picture_sizes[:, 1:3]
        pictures, _ = model.model.pack_image_features(
            rows.split(tiles), sizes, image_newline=model.model.image_newline, **self.packing(model.config)
        )
        names = torch.cat([self.spans_of_picture(model.config, size) for size in picture_sizes.tolist()])
        return ConnectedRows(torch.cat(pictures), names.to(rows.device), [len(picture) for picture in pictures])

    def spans_of_picture(self, config: Any, size: Sequence[int]) -> Tensor:  # noqa: ANN401
        """Returns the span of every row of a picture: the small copy's, then lines that a learned row ends."""
        tiles, height, width = size
        grids = self.tiles_of_grids(config)
        if tiles == 1:
            return torch.tensor([Span.PATCH] * grids.side**2 + [Span.LINE_END])
        lines, length = grids.laid_out(width, height)
        return torch.tensor([Span.PATCH] * grids.side**2 + ([Span.PATCH] * length + [Span.LINE_END]) * lines)

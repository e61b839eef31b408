"""LLaVA-NeXT (LLaVA-1.6): a CLIP tower over tiles of every picture, laid out as LLaVA-OneVision's, none left out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typing_extensions import override

from lightning_m2pt.backbones.families.llava import check_features
from lightning_m2pt.backbones.families.llava_onevision import LlavaOnevision
from lightning_m2pt.inputs.picture_rules.llava_next import LlavaNextTiles
from lightning_m2pt.inputs.picture_rules.rules import PictureRules
from lightning_m2pt.inputs.picture_rules.tiles_of_grids import TilesOfGrids


class LlavaNext(LlavaOnevision):
    """``LlavaNextForConditionalGeneration``. A picture's sizes are its tiles, its height and its width."""

    architecture = "LlavaNextForConditionalGeneration"
    model_type = "llava_next"
    towers = ("clip_vision_model", "siglip_vision_model")

    @override
    def check(self, content: Mapping[str, Any], path: Path) -> None:
        check_features(content, path, layer=-2, strategy="default")

    @override
    def picture_tokens(self, config: Any) -> tuple[int, ...]:
        return (config.image_token_id,)

    @override
    def picture_rules(self, config: Any, image_processor: Any, tokenizer: Any) -> PictureRules:
        tower = config.vision_config
        side = tower.image_size // tower.patch_size
        return LlavaNextTiles(image_processor, tower.image_size, side, config.image_grid_pinpoints)

    @override
    def tiles_of_grids(self, config: Any) -> TilesOfGrids:
        return TilesOfGrids(
            config.vision_config.image_size, config.vision_config.patch_size, config.image_grid_pinpoints
        )

    @override
    def packing(self, config: Any) -> dict[str, Any]:
        return {"vision_feature_select_strategy": config.vision_feature_select_strategy}

"""Qwen2.5-VL: pictures of about their own size, a tower with windows, a decoder whose positions have three axes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.config_values import bad_key, divisible, one_of, shown_value, whole_number
from lightning_m2pt.backbones.connected_rows import ConnectedRows
from lightning_m2pt.backbones.families.family import Family, TowerForm, module_at
from lightning_m2pt.backbones.towers.open_clip_config import MOST_PIXELS
from lightning_m2pt.inputs.batch import Batch, Span
from lightning_m2pt.inputs.picture_map import Grid, PictureMap
from lightning_m2pt.inputs.picture_rules.qwen_vl import QwenVlGrid
from lightning_m2pt.inputs.picture_rules.rules import PictureRules
from lightning_m2pt.prompts.rotary_axes import coded

TOLD_OF = 8
"""Rows of a line, and lines, of the picture that sizes are told of."""
INVENTED_LINES, MOST_INVENTED = 2, 32
MOST_MERGED = 16
NO_WINDOW = "windows are not proven with positions on three axes"


class Qwen25Vl(Family):
    """``Qwen2_5_VLForConditionalGeneration``. A picture's sizes are the library's grid: 1, lines and columns."""

    architecture = "Qwen2_5_VLForConditionalGeneration"
    model_type = "qwen2_5_vl"
    tower, blocks, connector, decoder = "model.visual", "blocks", "model.visual.merger", "model.language_model"
    towers = ("qwen2_5_vl_vision",)
    renamed = (("visual.", "model.visual."), ("model.", "model.language_model."))
    raw_rows_refused = "the connector joins neighbouring patches of a picture, in which a prompt row has no place"
    visual_prompts_refused = "most blocks of its tower see windows of patches alone, and a prompt row stands in none"
    has_three_axes = True
    has_gated_tower = True

    @override
    def check(self, content: Mapping[str, Any], path: Path) -> None:
        tower, text = content["vision_config"], content["text_config"]
        merged = whole_number(tower, "vision_config.spatial_merge_size", path, MOST_MERGED)
        whole_number(tower, "vision_config.window_size", path, MOST_PIXELS, least=merged * tower["patch_size"])
        width = tower["hidden_size"] // tower["num_heads"]
        divisible(path, "vision_config: a head's width", width, "pairs on two axes", 4)
        one_of(tower, "vision_config.is_causal", path, (None, False), "every patch of a window sees every other")
        if tower["out_hidden_size"] != text["hidden_size"]:
            what = f"{shown_value(tower['out_hidden_size'])} is not the language model's width, {text['hidden_size']}"
            raise bad_key(path, "vision_config.out_hidden_size", what, "the same width")

    @override
    def text_as_proven(self, text: dict[str, Any], path: Path) -> dict[str, Any]:
        rotation = dict(text["rope_parameters"])
        sections = rotation.pop("mrope_section", None)
        if rotation.get("type") == "mrope":  # its name once; the library calls it the default with sections
            del rotation["type"]
        half = text["hidden_size"] // text["num_attention_heads"] // 2
        if not (isinstance(sections, list | tuple) and len(sections) == 3 and sum(sections) == half):
            what = f"{shown_value(sections)} is not how {half} pairs are shared out"
            raise bad_key(path, "rope_parameters.mrope_section", what, f"three numbers that are {half} together")
        one_of(text, "use_sliding_window", path, (None, False), NO_WINDOW)
        kept = {key: value for key, value in text.items() if key not in {"sliding_window", "max_window_layers"}}
        return {**kept, "model_type": "qwen2", "rope_parameters": rotation}

    @override
    def vision_as_proven(self, vision: dict[str, Any]) -> dict[str, Any]:
        side = vision["patch_size"] if isinstance(vision["patch_size"], int) else 0
        names = {"num_hidden_layers": "depth", "num_attention_heads": "num_heads", "num_channels": "in_channels"}
        return {**vision, **{name: vision[own] for name, own in names.items()}, "image_size": max(side, 1)}

    @override
    def tower_form(self, config: Any) -> TowerForm:
        tower = config.vision_config
        merged = tower.spatial_merge_size
        return TowerForm(
            used_blocks=tower.depth,
            has_cls=False,
            patches=(TOLD_OF * merged) ** 2,
            rows_behind_connector=TOLD_OF**2,
            image_size=TOLD_OF * merged * tower.patch_size,
        )

    @override
    def picture_tokens(self, config: Any) -> tuple[int, ...]:
        return config.image_token_id, config.video_token_id

    @override
    def tokens_around_picture(self, config: Any) -> tuple[int, int]:
        return config.vision_start_token_id, config.vision_end_token_id

    @override
    def picture_rules(self, config: Any, image_processor: Any, tokenizer: Any) -> PictureRules:
        tower = config.vision_config
        around = self.tokens_around_picture(config)
        sides = tower.patch_size, tower.temporal_patch_size, tower.spatial_merge_size
        return QwenVlGrid(image_processor, *sides, around)

    @override
    def picture_map(self, config: Any, size: tuple[int, ...] | None) -> PictureMap:
        assert size is not None, "a picture's grid comes with its pixels"
        (_, lines, columns), patch = size, config.vision_config.patch_size
        grid = Grid(0, 0, patch, patch, lines, columns)
        rows = grid.joined(config.vision_config.spatial_merge_size).cells()
        return PictureMap(lines * patch, columns * patch, (grid,), rows)

    @override
    def shown_pixels(self, config: Any, pixels: Tensor, size: tuple[int, ...] | None) -> Tensor:
        """Lays the first frame of every patch where it lies; patches come square by square of what the merger joins."""
        assert size is not None, "a picture's grid comes with its pixels"
        tower, (_, lines, columns) = config.vision_config, size
        side, patch = tower.spatial_merge_size, tower.patch_size
        squares = pixels.reshape(
            lines // side, columns // side, side, side, -1, tower.temporal_patch_size, patch, patch
        )
        return squares[:, :, :, :, :, 0].permute(4, 0, 2, 5, 1, 3, 6).reshape(-1, lines * patch, columns * patch)

    @override
    def order_in_tower(self, config: Any, picture_sizes: Tensor) -> Tensor:
        """The library's own windows, over its own positions of patches."""
        from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

        tower, sizes = config.vision_config, picture_sizes.cpu()
        side = tower.spatial_merge_size
        squares, _ = get_vision_window_index(
            sizes, spatial_merge_size=side, window_size=tower.window_size, patch_size=tower.patch_size
        )
        down, across = get_vision_position_ids(sizes, side).unbind(dim=1)
        patches = sizes.prod(dim=1)
        number = (patches.cumsum(0) - patches).repeat_interleave(patches)
        number = number + down * sizes[:, 2].repeat_interleave(patches) + across
        ordered: Tensor = number.view(-1, side**2)[squares].flatten()
        return ordered

    @override
    def invented_pictures(self, config: Any, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Every other picture lies on its side, and all reach from one of the tower's windows into the next."""
        tower = config.vision_config
        merged = tower.spatial_merge_size
        window = tower.window_size // (merged * tower.patch_size)
        sides = INVENTED_LINES, min(window, MOST_INVENTED) + 1
        grids = [(1, *(each * merged for each in (sides if even else sides[::-1]))) for even in (1, 0) * number]
        sizes = torch.tensor(grids[:number])
        numbers = tower.in_channels * tower.temporal_patch_size * tower.patch_size**2
        return torch.randn(int(sizes.prod(dim=1).sum()), numbers, generator=generator), sizes

    @override
    def whole_model_inputs(self, model: Any, ids: Tensor, mask: Tensor, batch: Batch) -> dict[str, Tensor] | None:
        """The positions are the library's; given, they leave none behind in its model."""
        read = {
            "input_ids": ids,
            "attention_mask": mask,
            "mm_token_type_ids": (ids == model.config.image_token_id).int(),
            "image_grid_thw": batch.picture_sizes,
        }
        positions, _ = model.model.get_rope_index(**read)
        return {**read, "position_ids": positions, "pixel_values": batch.pixel_values}

    @override
    def give_tables(self, model: Any) -> None:
        tower = module_at(model, self.tower)
        tower.rotary_pos_emb = type(tower.rotary_pos_emb)(tower.config)

    @override
    def connected(
        self, model: Any, pixel_values: Tensor, picture_sizes: Tensor | None, backbone: Backbone
    ) -> ConnectedRows:
        """Runs the library's own way to image features, whose merger is the connector."""
        assert picture_sizes is not None, "a picture's grid comes with its pixels"
        merger = module_at(model, self.connector)
        if backbone.attachment.connector is not None:
            merger.forward = backbone.connect
        try:
            features = model.get_image_features(pixel_values=pixel_values, image_grid_thw=picture_sizes).pooler_output
        finally:
            if backbone.attachment.connector is not None:
                del merger.forward
        rows = torch.cat(list(features))
        names = torch.full((len(rows),), int(Span.PATCH), dtype=torch.long, device=rows.device)
        advances, within = [], []
        for _, lines, columns in (picture_sizes // module_at(model, self.tower).spatial_merge_size).tolist():
            down, across = torch.meshgrid(torch.arange(lines), torch.arange(columns), indexing="ij")
            within.append(coded(down, across).flatten())
            advances.append(torch.zeros(lines * columns, dtype=torch.long))
            advances[-1][-1] = max(lines, columns)
        counts = [len(each) for each in within]
        return ConnectedRows(
            rows, names, counts, torch.cat(advances).to(rows.device), torch.cat(within).to(rows.device)
        )

    @override
    def run_lengths(self, model: Any, tiles: Tensor, picture_sizes: Tensor | None) -> list[int]:
        assert picture_sizes is not None, "a picture's grid comes with its pixels"
        merged = module_at(model, self.tower).spatial_merge_size ** 2
        return [int(patches) // merged for patches in picture_sizes.prod(dim=1)]

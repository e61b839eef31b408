"""timm's vision transformers, as its hub folders keep them: ``config.json`` and ``model.safetensors``."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.config_values import bad_key, is_real, mapping, one_of, real_number, whole_number
from lightning_m2pt.backbones.foreign_code import CONFIG_FILE, refuse_foreign_code
from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.backbones.proven_forms import MOST_HEADS
from lightning_m2pt.backbones.towers.kind import KEY, PictureRule, Tower, TowerSizes
from lightning_m2pt.backbones.towers.of_open_clip import stored_beside
from lightning_m2pt.backbones.towers.open_clip_config import (
    MOST_LAYERS,
    MOST_PIXELS,
    MOST_RATIO,
    MOST_WIDTH,
    refuse_unknown,
)
from lightning_m2pt.backbones.weight_files import SINGLE, Stored
from lightning_m2pt.errors import BadInputError

ARCHITECTURE, ARGUMENTS, PRETRAINED = "architecture", "model_args", "pretrained_cfg"
WHOLE_ARGUMENTS = {
    "img_size": MOST_PIXELS,
    "patch_size": MOST_PIXELS,
    "embed_dim": MOST_WIDTH,
    "depth": MOST_LAYERS,
    "num_heads": MOST_HEADS,
    "num_classes": MOST_WIDTH,
    "reg_tokens": 64,
}
"""What ``model_args`` may say, and the largest of each."""
MAY_BE_NONE = ("num_classes", "reg_tokens")
SWITCHES = ("class_token", "no_embed_class", "pre_norm", "qkv_bias", "qk_norm", "dynamic_img_size")
NUMBERS = ("mlp_ratio", "init_values")
OTHER_BLOCKS = "blocks of another make are not proven on the prompt paths"
LEFT_OUT = ("head.", "fc_norm.")
"""A classifier, which is not built."""


class TimmTower(Tower):
    """CLS, if there is one, is row 0; registers stand behind it. Prompts stand in the sequence.

    Args:
        folder: With both files.
        image_size: Side of the pictures; another one than the configuration's lets positions be interpolated. None:
            the configuration's.

    Raises:
        BadInputError: If timm is not there or has no such plain vision transformer.
    """

    prefix_refused = "the attention of timm's blocks cannot be given keys beside its own"

    def __init__(self, folder: Path, image_size: int | None = None) -> None:
        self.folder = folder
        refuse_foreign_code(folder, KEY)
        path = folder / CONFIG_FILE
        content = read_json(path, KEY)
        pretrained = mapping(content, PRETRAINED, path) if PRETRAINED in content else content
        self._name = self._checked_name(content, path)
        self._arguments = self._checked_arguments(content, path)
        rule = picture_rule(pretrained, path)
        side = rule.size if image_size is None else image_size
        self._trained_size = self._arguments.get("img_size", rule.size)
        self._arguments |= {"img_size": self._trained_size, "dynamic_img_size": side != self._trained_size}
        tower = self.on_meta()
        self._check_make(tower, path)
        patch = tower.patch_embed.patch_size[0]
        if side % patch:
            raise BadInputError(
                f"{side} pixels are no multiple of a patch of {patch}",
                where="model.backbone.image_size",
                expected=f"a multiple of {patch}",
            )
        self.pictures = PictureRule(side, rule.mean, rule.std, rule.interpolation, rule.resize)
        self.described = {ARCHITECTURE: self._name, ARGUMENTS: self._arguments, "pictures": vars(self.pictures)}
        self.sizes = TowerSizes(
            layers=len(tower.blocks),
            width=tower.embed_dim,
            patch_size=patch,
            image_size=self._trained_size,
            mlp_width=tower.blocks[0].mlp.fc1.out_features,
            quick_gelu=False,
            rows_in_front=tower.num_prefix_tokens,
        )

    def _checked_name(self, content: Mapping[str, Any], path: Path) -> str:
        import timm

        name = content[ARCHITECTURE]
        # A name with a prefix would be fetched.
        if not isinstance(name, str) or not re.fullmatch(r"\w+(\.\w+)?", name) or not timm.is_model(name):
            raise bad_key(path, ARCHITECTURE, f"{name!r:.60} is no model of timm {timm.__version__}", "its name there")
        return name.partition(".")[0]

    def _checked_arguments(self, content: Mapping[str, Any], path: Path) -> dict[str, Any]:
        arguments = mapping({ARGUMENTS: {}, **content}, ARGUMENTS, path)
        known = {*WHOLE_ARGUMENTS, *SWITCHES, *NUMBERS, "global_pool", "drop_path_rate", "drop_rate"}
        refuse_unknown(arguments, known, path, f"{ARGUMENTS}.")
        for key, most in WHOLE_ARGUMENTS.items():
            if arguments.get(key) is not None:
                whole_number(arguments, f"{ARGUMENTS}.{key}", path, most, least=int(key not in MAY_BE_NONE))
        for key in SWITCHES:
            one_of(arguments, f"{ARGUMENTS}.{key}", path, (None, False, True), "")
        for key in NUMBERS:
            if arguments.get(key) is not None:
                real_number(arguments, f"{ARGUMENTS}.{key}", path, MOST_RATIO)
        deciding = {*WHOLE_ARGUMENTS, *SWITCHES, *NUMBERS} - {"num_classes", "dynamic_img_size"}
        return {key: value for key, value in arguments.items() if key in deciding and value is not None}

    def _check_make(self, tower: Any, path: Path) -> None:  # noqa: ANN401
        """Looks whether timm's name is that of a plain vision transformer.

        Raises:
            BadInputError: If not.
        """
        from timm.layers import Attention, Mlp, PatchEmbed
        from timm.models.vision_transformer import Block, VisionTransformer

        parts = [(tower, VisionTransformer), (tower.patch_embed, PatchEmbed)] if hasattr(tower, "patch_embed") else []
        parts += [pair for block in getattr(tower, "blocks", []) for pair in ((block, Block),)]
        parts += [(block.attn, Attention) for block in getattr(tower, "blocks", []) if hasattr(block, "attn")]
        parts += [(block.mlp, Mlp) for block in getattr(tower, "blocks", []) if hasattr(block, "mlp")]
        if type(tower) is not VisionTransformer or any(type(part) is not kind for part, kind in parts):
            raise bad_key(path, ARCHITECTURE, f"{self._name} is no plain vision transformer", "one", OTHER_BLOCKS)
        if tower.blocks[0].attn.gate is not None:
            raise bad_key(path, ARCHITECTURE, f"{self._name} gates its attention", "plain blocks", OTHER_BLOCKS)

    def weights(self) -> list[Path]:
        """Returns the folder's file."""
        return [self.folder / SINGLE]

    def on_meta(self, dtype: torch.dtype | None = None) -> Any:  # noqa: ANN401
        """Builds timm's model without a classifier; it fetches nothing.

        Raises:
            BadInputError: If timm refuses the arguments.
        """
        import timm

        try:
            with torch.device("meta"):
                tower = timm.create_model(self._name, pretrained=False, num_classes=0, **self._arguments)
        except Exception as error:  # whatever timm's code meets
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BadInputError(
                f"timm cannot build {self._name}: {ascii(reason)[1:-1]:.200}",
                where=str(self.folder / CONFIG_FILE),
                expected=f"{ARGUMENTS} that it takes",
            ) from error
        return tower if dtype is None else tower.to(dtype)

    def stored(self) -> Stored:
        """Leaves a classifier out."""
        return {name: one for name, one in stored_beside(self.folder).items() if not name.startswith(LEFT_OUT)}

    def name_in_module(self, name: str, known: Mapping[str, Any]) -> str:
        """Names are timm's own."""
        del known
        return name

    def blocks(self, module: Any) -> list[nn.Module]:  # noqa: ANN401
        """Returns all blocks."""
        return list(module.blocks)

    def embedded(self, module: Any, pixel_values: Tensor) -> Tensor:  # noqa: ANN401
        """Returns the rows in front and the patches, as ``forward_features`` makes them for its blocks."""
        rows = module._pos_embed(module.patch_embed(pixel_values))
        return module.norm_pre(module.patch_drop(rows))  # type: ignore[no-any-return]

    def run_block(self, block: Any, states: Tensor, named: Mapping[str, Any]) -> Tensor:  # noqa: ANN401
        """Runs a block."""
        return block(states, **named)  # type: ignore[no-any-return]

    def norm(self, module: Any) -> nn.Module:  # noqa: ANN401
        """Returns the norm behind the last block."""
        return module.norm  # type: ignore[no-any-return]

    def run(self, module: Any, pixel_values: Tensor) -> object:  # noqa: ANN401
        """Runs timm's forward pass up to pooling."""
        return module.forward_features(pixel_values)

    def unused(self, used_blocks: int, *, normed: bool) -> tuple[str, ...]:
        """Leaves out later blocks, pooling, and the last norm unless it is asked for."""
        later = tuple(f"blocks.{number}." for number in range(used_blocks, self.sizes.layers))
        return (*later, "attn_pool.", *(() if normed else ("norm.",)))


def picture_rule(pretrained: Mapping[str, Any], path: Path) -> PictureRule:
    """Returns how timm prepares pictures in evaluation.

    Raises:
        BadInputError: If a key is missing or asks for what is not done here.
    """
    within = f"{PRETRAINED}."
    for key in ("mean", "std"):
        values = pretrained.get(key)
        fits = isinstance(values, list) and len(values) == 3 and all(is_real(value) for value in values)
        if not fits or (key == "std" and min(values) <= 0):  # type: ignore[arg-type]
            raise bad_key(path, within + key, f"{values!r:.60} does not fit", "three numbers")
    size = pretrained.get("input_size")
    if not (isinstance(size, list) and len(size) == 3 and size[0] == 3 and size[1] == size[2]):
        raise bad_key(path, f"{within}input_size", f"{size!r:.60} does not fit", "[3, side, side]")
    side = whole_number({"side": size[1]}, f"{within}input_size.side", path, MOST_PIXELS)
    one_of(pretrained, f"{within}interpolation", path, ("bicubic", "bilinear"), "")
    one_of(pretrained, f"{within}crop_mode", path, (None, "center", "squash"), "pictures are not padded here")
    squashes = pretrained.get("crop_mode") == "squash"
    whole = "pictures are not made larger than what is cropped out of them"
    one_of(pretrained, f"{within}crop_pct", path, (None, 1), whole)
    interpolation = pretrained.get("interpolation", "bicubic")
    resize = "squash" if squashes else "shortest_edge"
    return PictureRule(side, tuple(pretrained["mean"]), tuple(pretrained["std"]), interpolation, resize)  # type: ignore[arg-type]

"""One CLIP vision tower, two layouts: open_clip's (OpenAI's own) and transformers'.

The numbers are the same. open_clip keeps queries, keys and values of a block in one tensor and the projection to CLIP's
space with its axes the other way round; transformers writes ``pre_layrnorm``.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.visible_text import counted

OPEN_CLIP = "visual."
"""What the tower's names begin with in open_clip's files."""
TRANSFORMERS = "vision_model."
"""What they begin with in those of transformers; ``CLIPVisionModel`` of version 5 writes them without."""
ONCE = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    **{
        f"{ours}.{kind}": f"{theirs}.{kind}"
        for ours, theirs in (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm"))
        for kind in ("weight", "bias")
    },
}
"""open_clip's name of each tensor that is there once, and transformers'."""
OF_BLOCK = {
    f"{ours}.{kind}": f"{theirs}.{kind}"
    for ours, theirs in (
        ("ln_1", "layer_norm1"),
        ("attn.out_proj", "self_attn.out_proj"),
        ("ln_2", "layer_norm2"),
        ("mlp.c_fc", "mlp.fc1"),
        ("mlp.c_proj", "mlp.fc2"),
    )
    for kind in ("weight", "bias")
}
FUSED = {"attn.in_proj_weight": "weight", "attn.in_proj_bias": "bias"}
PROJECTION, VISUAL_PROJECTION = "proj", "visual_projection.weight"
BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")
LAYER = re.compile(r"encoder\.layers\.(\d+)\.")
ONE_TOWER = "the tensors of one plain CLIP vision tower, no more and no fewer"
POSITION_IDS = "embeddings.position_ids"
"""A table of 0, 1, 2, ... that older versions of transformers keep among the weights."""


@dataclass(frozen=True)
class TowerSizes:
    """What a tower's tensors say of its sizes; heads and activation they do not tell.

    Attributes:
        width: D.
        layers: Number of blocks.
        patch_size: Side of a patch in pixels.
        image_size: Side of the picture in pixels.
        mlp_width: Rows of the MLP.
        projection: Width of CLIP's space; None if there is no projection.
    """

    width: int
    layers: int
    patch_size: int
    image_size: int
    mlp_width: int
    projection: int | None


def to_open_clip(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Returns a tower of transformers' layout in open_clip's, names beginning with ``visual.``.

    open_clip's tower always has a projection to CLIP's space, which a LLaVA model does not use. Where the source has
    none, one of zeros to a space of one dimension stands in.

    Args:
        tensors: The tower's alone, without ``vision_model.`` in front; ``visual_projection.weight`` may be there.
        source: For messages.

    Raises:
        BadInputError: If tensors are missing, left over or of shapes that do not fit together.
    """
    rest = dict(tensors)
    rest.pop(POSITION_IDS, None)
    layers = 1 + max((int(match[1]) for name in rest if (match := LAYER.match(name))), default=-1)
    names = names_of_both(layers)
    needed = [*names.values(), *(name for layer in range(layers) for name in fused_names(layer))]
    compare(needed, [name for name in rest if name != VISUAL_PROJECTION], source)
    taken = {one: rest[other] for one, other in names.items()}
    for layer in range(layers):
        for ours, kind in FUSED.items():
            parts = [rest[name] for name in fused_names(layer) if name.endswith(kind)]
            if len({tuple(part.shape) for part in parts}) != 1 or not parts[0].dim():
                raise BadInputError(
                    f"queries, keys and values of layer {layer} have different shapes", where=source, expected=ONE_TOWER
                )
            taken[f"transformer.resblocks.{layer}.{ours}"] = torch.cat(parts)
    if VISUAL_PROJECTION in rest:
        taken[PROJECTION] = rest[VISUAL_PROJECTION].T.contiguous()
    else:
        taken[PROJECTION] = torch.zeros(taken["class_embedding"].numel(), 1, dtype=taken["class_embedding"].dtype)
    return {OPEN_CLIP + name: tensor for name, tensor in taken.items()}


def to_transformers(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Returns a tower of open_clip's layout in that of transformers' ``CLIPVisionModelWithProjection``.

    Args:
        tensors: The tower's alone, without ``visual.`` in front.
        source: For messages.

    Raises:
        BadInputError: If tensors are missing or left over.
    """
    layers = number_of_blocks(tensors)
    names = names_of_both(layers)
    fused = [f"transformer.resblocks.{layer}.{name}" for layer in range(layers) for name in FUSED]
    compare([*names, *fused, PROJECTION], tensors, source)
    made = {other: tensors[one] for one, other in names.items()}
    for layer in range(layers):
        for ours, kind in FUSED.items():
            parts = tensors[f"transformer.resblocks.{layer}.{ours}"].chunk(3)
            separate = [name for name in fused_names(layer) if name.endswith(kind)]
            made |= {name: part.contiguous() for name, part in zip(separate, parts, strict=True)}
    projection = tensors[PROJECTION].T.contiguous()
    return {**{TRANSFORMERS + name: tensor for name, tensor in made.items()}, VISUAL_PROJECTION: projection}


def names_of_both(layers: int) -> dict[str, str]:
    """Returns open_clip's name and transformers' of every tensor that is one tensor in both."""
    names = dict(ONCE)
    for layer in range(layers):
        ours, theirs = f"transformer.resblocks.{layer}.", f"encoder.layers.{layer}."
        names |= {ours + one: theirs + other for one, other in OF_BLOCK.items()}
    return names


def number_of_blocks(tower: Iterable[str]) -> int:
    """Returns how many blocks the names of open_clip's layout speak of, without ``visual.`` in front."""
    return 1 + max((int(match[1]) for name in tower if (match := BLOCK.match(name))), default=-1)


def fused_names(layer: int) -> list[str]:
    """Returns transformers' names of what open_clip keeps as one tensor, queries before keys before values."""
    return [
        f"encoder.layers.{layer}.self_attn.{part}_proj.{kind}" for kind in FUSED.values() for part in ("q", "k", "v")
    ]


def compare(needed: Iterable[str], found: Iterable[str], source: str) -> None:
    """Compares names.

    Raises:
        BadInputError: If some are missing or left over.
    """
    wanted, there = list(dict.fromkeys(needed)), set(found)
    missing = [name for name in wanted if name not in there]
    left_over = sorted(there - set(wanted))
    parts = [f"{word} {counted(names)}" for word, names in (("missing", missing), ("left over", left_over)) if names]
    if parts:
        raise BadInputError(f"no plain CLIP vision tower: {'; '.join(parts)}", where=source, expected=ONE_TOWER)


def sizes_of(tower: Mapping[str, Tensor], source: str) -> TowerSizes:
    """Reads the sizes of a tower in open_clip's layout from its tensors.

    Args:
        tower: Names without ``visual.`` in front.
        source: For messages.

    Raises:
        BadInputError: If shapes do not fit together.
    """
    width, _, patch, other_patch = padded(tower["conv1.weight"].shape, 4)
    rows, _ = padded(tower["positional_embedding"].shape, 2)
    side, layers = round(max(rows - 1, 0) ** 0.5), number_of_blocks(tower)
    mlp_width = padded(tower["transformer.resblocks.0.mlp.c_fc.weight"].shape, 2)[0] if layers else 0
    shapes = expected_shapes(width, patch, rows, layers, mlp_width)
    wrong = [f"{name} {list(tower[name].shape)}" for name, shape in shapes.items() if tuple(tower[name].shape) != shape]
    if wrong or side**2 + 1 != rows or patch != other_patch or not layers:
        raise BadInputError(
            f"shapes that do not fit together: {counted(wrong) if wrong else 'patches of no square picture'}",
            where=source,
            expected=ONE_TOWER,
        )
    projection = padded(tower[PROJECTION].shape, 2)[1] if PROJECTION in tower else None
    return TowerSizes(width, layers, patch, side * patch, mlp_width, projection)


def expected_shapes(width: int, patch: int, rows: int, layers: int, mlp_width: int) -> dict[str, tuple[int, ...]]:
    """Returns what the shapes of a tower in open_clip's layout must be, by name; the projection's is free."""
    norm = {"weight": (width,), "bias": (width,)}
    shapes: dict[str, tuple[int, ...]] = {
        "class_embedding": (width,),
        "conv1.weight": (width, 3, patch, patch),
        "positional_embedding": (rows, width),
        **{f"{name}.{kind}": shape for name in ("ln_pre", "ln_post") for kind, shape in norm.items()},
    }
    block: dict[str, tuple[int, ...]] = {
        **{f"{name}.{kind}": shape for name in ("ln_1", "ln_2") for kind, shape in norm.items()},
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "attn.out_proj.bias": (width,),
        "mlp.c_fc.weight": (mlp_width, width),
        "mlp.c_fc.bias": (mlp_width,),
        "mlp.c_proj.weight": (width, mlp_width),
        "mlp.c_proj.bias": (width,),
    }
    for layer in range(layers):
        shapes |= {f"transformer.resblocks.{layer}.{name}": shape for name, shape in block.items()}
    return shapes


def padded(shape: Any, length: int) -> tuple[int, ...]:  # noqa: ANN401
    """Returns a shape of a fixed number of axes; what is not there is -1, which fits nothing."""
    return (*shape, *[-1] * length)[:length]

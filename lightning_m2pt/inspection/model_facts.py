"""What a frozen model is and takes, from its configuration alone: nothing of its weights is read.

The model is built without memory, by the class that tunes and answers with it: what is counted here is what
``m2pt params`` counts, and what is refused here is refused there.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from lightning_m2pt.backbones.library_processor import NEWER_SETTINGS, SETTINGS, LibraryProcessor
from lightning_m2pt.backbones.quantised import Quantization
from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.backbones.tokenizer_files import FAST
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.prompts.attachment import VisualRowsToText
from lightning_m2pt.tuning.answering_memory import answering_bytes
from lightning_m2pt.tuning.memory_estimate import MicroBatchSize
from lightning_m2pt.tuning.module import TuningModule, build_on_meta
from lightning_m2pt.tuning.module_memory import estimate_of
from lightning_m2pt.tuning.parameter_counts import parameter_counts

PROMPTS = 10
"""Visual and textual prompt rows a layer of what is counted as M2PT."""
QUANTIZATIONS: tuple[Quantization, ...] = ("int8", "nf4")
DTYPE: Literal["bfloat16"] = "bfloat16"


@dataclass(frozen=True)
class Load:
    """What training and answering are estimated for.

    Attributes:
        samples: Samples of a micro-batch, or questions answered at once.
        text_rows: Tokens of the longest text.
        new_tokens: Tokens of the longest answer.
        picture: Width and height of every sample's picture.
    """

    samples: int
    text_rows: int
    new_tokens: int
    picture: tuple[int, int]


@dataclass(frozen=True)
class PictureRows:
    """What a picture of one size takes.

    Attributes:
        tiles: How often the tower runs.
        patches: The tower's rows of it, CLS not counted.
        rows: Its rows in the decoder.
        tokens: The tokens that the family writes around and between the rows.
    """

    tiles: int
    patches: int
    rows: int
    tokens: int


def whole_model_facts(folder: Path, load: Load) -> dict[str, Any]:
    """Returns what a whole vision-language model is and takes, as JSON values.

    Args:
        folder: Its folder.
        load: What memory is estimated for.

    Raises:
        BadInputError: If its configuration asks for what is refused.
    """
    module = on_meta(folder, None)
    backbone = module.backbone
    assert isinstance(backbone, VisionLanguageModel)
    taken = picture_rows(backbone, load.picture)
    config, family, sizes = backbone.files.config, backbone.family, shape_facts(backbone.shape)
    # A tower that takes pictures of any size has no size of its own.
    without = ("patches", "image_size") if family.has_three_axes else ()
    vision_sizes = {key: value for key, value in sizes["vision"].items() if key not in without}
    vision = numbers_of(backbone.language_model.get_submodule(family.tower))
    connector = numbers_of(backbone.projector)
    if family.connector.startswith(f"{family.tower}."):
        vision -= connector
    total = backbone.base_parameters()
    return {
        "kind": "vision-language model",
        "architecture": family.architecture,
        "runs": "reference" if backbone.shape.runs_reference else "fast",
        "vision": {"model_type": config.vision_config.model_type, **vision_sizes},
        "language": {"model_type": config.text_config.model_type, **sizes["language"]},
        "picture": {
            "size": list(load.picture),
            "rows_of_a_tile": None if family.has_three_axes else backbone.form.rows_behind_connector,
            **(asdict(taken) if taken is not None else {}),
        },
        "parameters": {
            "vision": vision,
            "connector": connector,
            "language": total - vision - connector,
            "total": total,
        },
        "m2pt": tuning_facts(module),
        "memory": {DTYPE: memory_facts(module, load, taken)}
        | {quantization: memory_facts(packed, load, taken) for quantization, packed in packed_modules(folder)},
    }


def on_meta(folder: Path, quantization: Quantization | None) -> TuningModule:
    """Returns a model with M2PT on it, built without memory.

    Where the family takes no raw prompt row through its connector, the method sends none; where its tower takes no
    prompts, the method has textual ones alone.

    Raises:
        BadInputError: If the model's configuration asks for what is refused, or it cannot be packed in this way.
    """
    backbone = VisionLanguageModel(str(folder), dtype=DTYPE, quantization=quantization)
    choice: VisualRowsToText = "none" if backbone.shape.raw_rows_refused else "official"
    visual = 0 if backbone.shape.visual_prompts_refused else PROMPTS
    module = TuningModule(backbone, M2PT(visual, PROMPTS, visual_rows_to_text=choice))
    module.check()
    build_on_meta(module)
    return module


def packed_modules(folder: Path) -> Iterator[tuple[Quantization, TuningModule]]:
    """Yields a model once for each way in which its layers can be packed."""
    for quantization in QUANTIZATIONS:
        with suppress(BadInputError):  # its layers have no numbers for it
            yield quantization, on_meta(folder, quantization)


def shape_facts(shape: BackboneShape) -> dict[str, dict[str, int]]:
    """Returns the sizes of a tower and a decoder."""
    return {
        "vision": {
            "blocks_used": shape.vision_layers - 1,
            "width": shape.vision_width,
            "patches": shape.patches,
            "patch_size": shape.patch_size,
            "image_size": shape.image_size,
        },
        "language": {
            "layers": shape.text_layers,
            "width": shape.text_width,
            "heads": shape.text_heads,
            "key_value_heads": shape.text_key_value_heads,
            "head_width": shape.text_head_width,
            "vocabulary": shape.vocabulary_size,
            "positions": shape.maximum_positions,
        },
    }


def numbers_of(module: nn.Module) -> int:
    """Returns how many numbers a module has, tied ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def tuning_facts(module: TuningModule) -> dict[str, Any]:
    """Returns what M2PT would train, in percent as the paper counts."""
    counted = parameter_counts(module.method.parameter_parts(), module.backbone.base_parameters())
    return {
        "rows": PROMPTS,
        "trained": counted["trained"],
        "percent": counted["percent"],
        "parts": {part["name"]: part["trained"] for part in counted["parts"]},
    }


def picture_rows(backbone: VisionLanguageModel, size: tuple[int, int]) -> PictureRows | None:
    """Returns what a picture takes; None where the folder has no tokenizer or no settings of the image processor.

    Raises:
        BadInputError: If the files are there and do not fit the model, or the family takes no picture of this size.
    """
    folder = backbone.folder
    if not (folder / FAST).is_file() or not any((folder / name).is_file() for name in (SETTINGS, NEWER_SETTINGS)):
        return None
    processor = backbone.processor()
    assert isinstance(processor, LibraryProcessor)
    rules = processor.rules
    size_known = rules.checked_sizes([size], "command line: --size")[0]
    layout = rules.layout(size_known)
    tokens, tiles = len(layout.token_ids) - layout.placeholders, rules.tiles(size_known)
    if len(rules.tile_shape()) == 1:  # a picture of its own size, patch by patch
        return PictureRows(1, tiles, sum(layout.rows), tokens)
    return PictureRows(tiles, tiles * backbone.shape.patches, sum(layout.rows), tokens)


def memory_facts(module: TuningModule, load: Load, taken: PictureRows | None) -> dict[str, int]:
    """Returns estimates of bytes: training with activations kept and recomputed, and answering.

    Args:
        module: Built without memory.
        load: What is estimated for.
        taken: What a picture takes; None counts one tile.
    """
    shape, attachment = module.backbone.shape, module.method.attachment(frozenset())
    supervised = load.samples * load.text_rows
    patches = shape.patches if taken is None else taken.patches
    tiles = patches if shape.tiles_are_patches else 1 if taken is None else taken.tiles
    in_decoder = shape.connected_patches if taken is None else taken.rows + taken.tokens
    estimate = estimate_of(module, MicroBatchSize(load.samples, load.text_rows, supervised, tiles, in_decoder))
    in_front = (
        in_decoder
        + attachment.rows_beside_patches(has_cls=shape.vision_rows_in_front > 0)
        + attachment.rows_before_text()
    )
    rows = in_front + load.text_rows + load.new_tokens
    size: int = getattr(torch, module.backbone.dtype_name).itemsize
    return {
        "weights": estimate.weights,
        "training": estimate.total(recomputes=False),
        "training_recomputed": estimate.total(recomputes=True),
        "answering": answering_bytes(shape, estimate.weights, size, load.samples, rows, patches),
    }

"""Attention as arrays: one safetensors file of a sample, and a JSON file that names every column."""

import json
from typing import Any

from torch import Tensor

from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inputs.picture_map import PictureMap
from lightning_m2pt.inspection.activation import column_activation
from lightning_m2pt.inspection.named_maps import LayerAttention
from lightning_m2pt.inspection.samples import ShownSample, Side, numbered_names


def attention_arrays(sample: ShownSample) -> bytes:
    """Returns a safetensors file with, for both sides, every layer of the decoder and the tower.

    ``SIDE.language.LAYER`` and ``SIDE.vision.LAYER`` are (H, R, C) probabilities, the rows those of the last R columns;
    where the tower reads several tiles they are ``SIDE.vision_TILE.LAYER``. ``.activation`` behind it is (C,), the mean
    over heads and rows, and ``.activation_without_prompt_rows`` the same over all rows but the prompts' own.
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    for side in sample.sides:
        for part, layers in parts_of(side).items():
            for layer in layers:
                name = f"{side.name}.{part}.{layer.layer}"
                tensors[name] = layer.probabilities.contiguous()
                tensors[f"{name}.activation"] = column_activation(layer)
                tensors[f"{name}.activation_without_prompt_rows"] = column_activation(layer, "content")
    content: bytes = save(tensors)
    return content


def attention_names(sample: ShownSample) -> str:
    """Returns JSON: question and answers, span and text of every layer's columns, and where patches lie in pictures."""
    sides: dict[str, Any] = {}
    for side in sample.sides:
        sides[side.name] = {"answer": side.answer, "predicts": side.predicts}
        for part, layers in parts_of(side).items():
            sides[side.name][part] = {
                str(layer.layer): columns_of(layer, side.tokens if part == "language" else None) for layer in layers
            }
    question = sample.question
    head = {"set": sample.question.set_name, "id": question.id, "question": question.text, "target": question.target}
    pictures = [places_of(picture) for picture in sample.sides[0].attention.pictures]
    return json.dumps({**head, "pictures": pictures, "sides": sides}, indent=1) + "\n"


def parts_of(side: Side) -> dict[str, tuple[LayerAttention, ...]]:
    """Returns the layers of the decoder and of the tower, tile by tile where there are several."""
    tiles = side.attention.vision
    if len(tiles) < 2:
        return {"language": side.attention.language, "vision": tiles[0] if tiles else ()}
    return {"language": side.attention.language, **{f"vision_{number}": each for number, each in enumerate(tiles)}}


def places_of(picture: PictureMap) -> dict[str, Any]:
    """Returns where the decoder's patches and every tile's lie, each as top, left, bottom, right in pixels."""
    return {
        "height": picture.height,
        "width": picture.width,
        "language_patches": picture.rows.tolist(),
        "tiles": [tile.cells().tolist() for tile in picture.tiles],
    }


def columns_of(layer: LayerAttention, words: tuple[str, ...] | None) -> dict[str, list[str]]:
    """Returns spans and texts of a layer's columns; a layer without prompts lacks those at the front.

    Args:
        layer: The layer.
        words: Of the decoder's fullest layer; None for the tower's, whose columns are no tokens.
    """
    spans = [Span(number).name.lower() for number in layer.spans.tolist()]
    words = numbered_names(layer.spans) if words is None else words
    return {"spans": spans, "tokens": list(words[len(words) - len(spans) :])}

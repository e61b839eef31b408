"""Attention as arrays: one safetensors file of a sample, and a JSON file that names every column."""

import json
from typing import Any

from torch import Tensor

from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inspection.activation import column_activation
from lightning_m2pt.inspection.attention import LayerAttention
from lightning_m2pt.inspection.samples import ShownSample, Side


def attention_arrays(sample: ShownSample) -> bytes:
    """Returns a safetensors file with, for both sides, every layer of the decoder and the tower.

    ``SIDE.language.LAYER`` and ``SIDE.vision.LAYER`` are (H, R, C) probabilities, the rows those of the last R columns;
    ``.activation`` behind it is (C,), the mean over heads and rows, and ``.activation_without_prompt_rows`` the same
    over all rows but the prompts' own.
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
    """Returns JSON: question and answers, and for every layer the span and the text of its columns."""
    sides: dict[str, Any] = {}
    for side in sample.sides:
        sides[side.name] = {"answer": side.answer, "predicts": side.predicts}
        for part, layers in parts_of(side).items():
            words = side.tokens if part == "language" else side.vision_tokens
            sides[side.name][part] = {str(layer.layer): columns_of(layer, words) for layer in layers}
    question = sample.question
    head = {"set": sample.question.set_name, "id": question.id, "question": question.text, "target": question.target}
    return json.dumps({**head, "sides": sides}, indent=1) + "\n"


def parts_of(side: Side) -> dict[str, tuple[LayerAttention, ...]]:
    """Returns the layers of decoder and tower."""
    return {"language": side.attention.language, "vision": side.attention.vision[0]}


def columns_of(layer: LayerAttention, words: tuple[str, ...]) -> dict[str, list[str]]:
    """Returns spans and texts of a layer's columns; a layer without prompts lacks those at the front."""
    spans = [Span(number).name.lower() for number in layer.spans.tolist()]
    return {"spans": spans, "tokens": list(words[len(words) - len(spans) :])}

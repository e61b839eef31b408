"""What a backbone's modules are called in the model of transformers that others load.

That model is the whole one, which reads pictures as well, or its language model alone. A backbone that the library has
as one model keeps it under the library's own names; CLIP, a linear layer and a language model become a LLaVA.
"""

from typing import Any, Literal, TypeAlias

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.language_model import model_on_meta
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.foreign.clip_layouts import names_of_both
from lightning_m2pt.storage.foreign.llava.described import CONNECTOR, DECODER, FIRST_OF_CONNECTOR, HEAD, TOWER
from lightning_m2pt.storage.foreign.llava.described import on_meta as llava_on_meta

Extent: TypeAlias = Literal["whole", "language"]
"""The whole model, or its language model alone."""
OUR_LANGUAGE, OUR_TOWER, OUR_PROJECTOR = "language_model.", "vision_tower.", "projector"
"""What a backbone's names begin with; a model that the library has as one stands under the first of them."""
OF_LANGUAGE = "m2pt export peft ... --on language: an adapter for its language model alone"
"""What can be made of a pair, whichever command it was that wanted one model."""
INNER = "model."
"""Stands before everything but the head in a language model of transformers."""


def refuse_other_extent(backbone: Backbone, extent: Extent) -> None:
    """Refuses a model that there is no such class of.

    Raises:
        BadInputError: If a pair of a tower and a language model shall be one, or the language model of one be alone.
    """
    if extent == "whole" and not isinstance(backbone, OpenClipLlama | VisionLanguageModel):
        raise BadInputError(
            f"transformers has no one model for {type(backbone).__name__}",
            where="model.backbone",
            expected="a CLIP of open_clip, a linear projector and a language model; or a whole model's folder",
            hint=OF_LANGUAGE if isinstance(backbone, TowerAndDecoder) else "",
        )
    if extent == "language" and not isinstance(backbone, OpenClipLlama | TowerAndDecoder):
        raise BadInputError(
            f"the language model of {type(backbone).__name__} lies in no folder of its own",
            where="command line: --on",
            expected="whole",
        )


def library_model_on_meta(backbone: Backbone, extent: Extent) -> Any:  # noqa: ANN401  (transformers' model)
    """Builds the library's model without memory.

    Args:
        backbone: Not loaded; of a kind that there is such a model of.
        extent: Which model.
    """
    if isinstance(backbone, VisionLanguageModel):
        return backbone.files.on_meta(backbone.dtype)
    if isinstance(backbone, OpenClipLlama) and extent == "whole":
        return llava_on_meta(backbone)
    assert isinstance(backbone, OpenClipLlama | TowerAndDecoder)
    return model_on_meta(backbone.language_folder, backbone.dtype)


def connector_name(backbone: Backbone) -> str:
    """Returns where the whole model keeps its connector."""
    return backbone.family.connector if isinstance(backbone, VisionLanguageModel) else CONNECTOR


def module_in_library(backbone: Backbone, place: str, extent: Extent) -> str | None:
    """Returns the library's name of one of a backbone's modules; None if that model has none.

    Args:
        backbone: Not necessarily built.
        place: The module's name in the backbone, such as ``language_model.model.layers.0.mlp.up_proj``.
        extent: In which model.
    """
    if isinstance(backbone, VisionLanguageModel):
        return place.removeprefix(OUR_LANGUAGE)
    if place.startswith(OUR_LANGUAGE):
        inside = place.removeprefix(OUR_LANGUAGE)
        if extent == "language" or inside == HEAD:
            return inside
        return f"{DECODER}.{inside.removeprefix(INNER)}"
    if extent == "language":
        return None
    if place == OUR_PROJECTOR:
        return FIRST_OF_CONNECTOR
    names = names_of_both(backbone.shape.vision_layers)
    other = names.get(f"{place.removeprefix(OUR_TOWER)}.weight")
    return None if other is None else f"{TOWER}.{other.removesuffix('.weight')}"


def place_of(backbone: Backbone, component: Literal["vision", "language"], name: str) -> str:
    """Returns a tensor's or module's name in a backbone.

    Args:
        backbone: Not necessarily built.
        component: What it is a part of.
        name: Its name there, as methods' tensors have it.
    """
    in_language = component == "language" or isinstance(backbone, VisionLanguageModel)
    return f"{OUR_LANGUAGE if in_language else OUR_TOWER}{name}"

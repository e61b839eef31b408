"""From the name that a linear layer has in somebody's model to the layer of a base.

The same decoder is called ``model.language_model.layers`` in a LLaVA of transformers, ``language_model.model.layers``
in an older one, and ``model.layers`` alone or in LLaVA's own code. So a layer is found by its number and what follows.
"""

import re
from dataclasses import dataclass

from torch import nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.methods.lora import LANGUAGE, PROJECTOR, VISION, linear_layers
from lightning_m2pt.storage.foreign.peft.translation import CONNECTORS, name_in_projector

VISION_STEPS = frozenset({"vision_tower", "vision_model", "visual", "vision_encoder"})
NUMBERED = re.compile(r"(?:^|\.)(?:layers|blocks|resblocks)\.(\d+(?:\.\w+)+)$", re.ASCII)
OPEN_CLIP = {"mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
"""Layers of a CLIP block in transformers, and the same in open_clip."""


@dataclass(frozen=True)
class FoundLayer:
    """A linear layer of a base.

    Attributes:
        part: The part of ``Lora`` that updates it.
        place: Its name in the backbone; None of a layer of the tower that no output depends on.
    """

    part: str
    place: str | None


class LinearLayers:
    """The linear layers of a base, findable by the names of other models.

    Args:
        backbone: Built.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.language = {numbered(place): place for place in linear_layers(backbone, "language")}
        self.vision = {numbered(place): place for place in linear_layers(backbone, "vision")}
        linear = {id(module): place for place, module in backbone.named_modules() if isinstance(module, nn.Linear)}
        self.projector = {
            f"{name}.weight".lstrip("."): linear[id(module)]
            for name, module in backbone.projector.named_modules()
            if id(module) in linear
        }
        self.unused = {numbered(place) for place in linear.values() if is_vision(place)} - set(self.vision)

    def find(self, name: str) -> FoundLayer | None:
        """Returns the layer that has this name in some model; None if this base has no such linear layer."""
        if not set(CONNECTORS).isdisjoint(name.split(".")):
            inside = name_in_projector(f"{name}.weight", self.projector)
            return None if inside is None else FoundLayer(PROJECTOR, self.projector[inside])
        key = numbered(name)
        if not is_vision(name):
            return FoundLayer(LANGUAGE, self.language[key]) if key in self.language else None
        number, _, rest = key.partition(".")
        for each in (key, f"{number}.{OPEN_CLIP.get(rest, rest)}"):
            if each in self.vision or each in self.unused:
                return FoundLayer(VISION, self.vision.get(each))
        return None


def is_vision(name: str) -> bool:
    """Tells whether a name is of a module of a vision tower."""
    return not VISION_STEPS.isdisjoint(name.split("."))


def numbered(name: str) -> str:
    """Returns a layer's number and what follows, such as ``3.mlp.up_proj``; of other modules the whole name."""
    found = NUMBERED.search(name)
    return found[1] if found else name

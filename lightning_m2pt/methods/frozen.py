"""The untouched model: nothing is trained, nothing is attached. The baseline of every table."""

from collections.abc import Set as AbstractSet

import torch
from torch import nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.methods.base import Method, Place
from lightning_m2pt.prompts.attachment import Attachment


class Frozen(Method):
    """Trains nothing; evaluating it evaluates the backbone as it was aligned."""

    name = "frozen"

    def check(self, shape: BackboneShape) -> None:
        """Works on every backbone."""

    def part_names(self) -> list[str]:
        """Returns no part."""
        return []

    def build(self, backbone: Backbone, generator: torch.Generator) -> None:
        """Makes nothing."""

    def parts(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Returns no part."""
        return {}

    def added_parameters(self) -> dict[str, int]:
        """Returns no part."""
        return {}

    def attachment(self, without: AbstractSet[str]) -> Attachment:
        """Returns the empty attachment."""
        return Attachment()

    def places(self) -> set[Place]:
        """Returns no place."""
        return set()

    def toggles(self) -> dict[str, bool | int | str]:
        """Returns the method's name alone."""
        return {"method": self.name}

    def adapter_config(self) -> dict[str, object]:
        """Returns no argument."""
        return {}

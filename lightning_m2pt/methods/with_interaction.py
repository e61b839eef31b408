"""Methods that hold each part as a module of its own, and can train the interaction layer besides."""

from collections.abc import Set as AbstractSet

from torch import nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.filling.shares import whole_copy
from lightning_m2pt.methods.base import Method, Place
from lightning_m2pt.prompts.attachment import Attachment

INTERACTION = "interaction"


class WithInteraction(Method):
    """Base class of methods whose parts are child modules named like the parts.

    Args:
        interaction: Train the projector between vision and language (a copy; the pretrained one stays).

    Attributes:
        pretrained_parts: Parts that stand in for pretrained tensors of the same size, and so add no number.
    """

    pretrained_parts: frozenset[str] = frozenset({INTERACTION})

    def __init__(self, interaction: bool) -> None:
        super().__init__()
        self.train_interaction = interaction
        self.interaction: nn.Module | None = None

    def interaction_names(self) -> list[str]:
        """Returns the interaction layer's part name, if it is trained."""
        return [INTERACTION] if self.train_interaction else []

    def interaction_places(self) -> set[Place]:
        """Returns the projector, if it is trained."""
        return {"projector"} if self.train_interaction else set()

    def build_interaction(self, backbone: Backbone) -> None:
        """Copies the pretrained projector in float32, if it is trained."""
        if self.train_interaction:
            self.interaction = whole_copy(backbone.projector)

    def parts(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Returns the tensors of the child modules; nothing before ``build``."""
        modules = dict(self.named_children())
        return {
            part: [(f"{part}.{name}", parameter) for name, parameter in modules[part].named_parameters()]
            for part in self.part_names()
            if part in modules
        }

    def added_parameters(self) -> dict[str, int]:
        """Returns all numbers but those of parts that stand in for pretrained ones."""
        return {
            part: 0 if part in self.pretrained_parts else sum(parameter.numel() for _, parameter in tensors)
            for part, tensors in self.parts().items()
        }

    def attachment(self, without: AbstractSet[str]) -> Attachment:
        """Returns the interaction layer in the projector's place."""
        return Attachment(connector=None if INTERACTION in without else self.interaction)

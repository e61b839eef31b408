"""Full fine-tuning: everything the backbone computes with is trained. The upper bound of what a testbed allows."""

from torch import nn

from lightning_m2pt.backbones.base import Backbone, BackboneShape
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.base import Place
from lightning_m2pt.methods.stand_ins import StandIns

VISION, INTERACTION, LANGUAGE = "vision", "interaction", "language"


class Full(StandIns):
    """Trains copies of all tensors that the backbone's output depends on.

    Args:
        vision: Train the vision tower up to the layer whose features are used.
        interaction: Train the projector between vision and language.
        language: Train the language model with its word embeddings and its head.
    """

    name = "full"

    def __init__(self, vision: bool = True, interaction: bool = True, language: bool = True) -> None:
        super().__init__()
        if not (vision or interaction or language):
            raise BadInputError(
                "vision, interaction and language are all false",
                where="model.method",
                expected="at least one part to train",
                hint="lightning_m2pt.methods.frozen.Frozen trains nothing",
            )
        self._is_on = {VISION: vision, INTERACTION: interaction, LANGUAGE: language}

    def check(self, shape: BackboneShape) -> None:
        """Works on every backbone."""

    def part_names(self) -> list[str]:
        """Returns the components that are switched on."""
        return [part for part, is_on in self._is_on.items() if is_on]

    def possible_parts(self) -> list[str]:
        """Returns all components, switched on or off."""
        return list(self._is_on)

    def chosen_tensors(self, backbone: Backbone) -> dict[str, dict[str, nn.Parameter]]:
        """Returns all tensors that are used, of the components that are on."""
        used = backbone.used_tensors()
        return {part: used[part] for part in self.part_names()}

    def places(self) -> set[Place]:
        """Returns all places of the components that are switched on, but prompts and sublayer outputs."""
        places: dict[str, set[Place]] = {
            VISION: {"vision tower's linear layers", "vision tower's norms", "vision tower's other tensors"},
            INTERACTION: {"projector"},
            LANGUAGE: {
                "language model's linear layers",
                "language model's norms",
                "language model's word embeddings",
                "head",
            },
        }
        return set().union(*(places[part] for part in self.part_names()))

    def toggles(self) -> dict[str, bool | int | str]:
        """Returns which components are trained."""
        return {"method": self.name, **self._is_on}

    def adapter_config(self) -> dict[str, object]:
        """Returns the constructor's arguments."""
        return dict(self._is_on)

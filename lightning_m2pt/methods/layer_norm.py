"""Tuning of norm layers alone (Zhao et al., "Tuning LayerNorm in Attention", ICLR 2024)."""

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.filling.shares import whole_copy
from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.base import Place
from lightning_m2pt.methods.stand_ins import StandIn, WithStandIns, register_parameter_at
from lightning_m2pt.methods.with_interaction import INTERACTION

LANGUAGE_NORMS, VISION_NORMS = "language_norms", "vision_norms"


class LayerNormTuning(WithStandIns):
    """Trains the norms' own tensors: gains, and biases where a norm has some (RMSNorm has none).

    Args:
        language: Train the norms of the language model, the last one before its head included.
        vision: Train the norms of the vision tower up to the layer whose features are used.
        interaction: Train the projector between vision and language.
    """

    name = "layernorm"
    pretrained_parts = frozenset({LANGUAGE_NORMS, VISION_NORMS, INTERACTION})

    def __init__(self, language: bool = True, vision: bool = False, interaction: bool = True) -> None:
        super().__init__(interaction)
        if not (language or vision):
            raise BadInputError(
                "language and vision are both false",
                where="model.method",
                expected="norms to train",
                hint="M2PT with both lengths 0 trains the projector alone",
            )
        self.language, self.vision = language, vision

    def check(self, shape: BackboneShape) -> None:
        """Works on every backbone."""

    def part_names(self) -> list[str]:
        """Returns the components that are switched on."""
        is_on = {LANGUAGE_NORMS: self.language, VISION_NORMS: self.vision, INTERACTION: self.train_interaction}
        return [part for part in self.possible_parts() if is_on[part]]

    def possible_parts(self) -> list[str]:
        """Returns all components, switched on or off."""
        return [LANGUAGE_NORMS, VISION_NORMS, INTERACTION]

    def build(self, backbone: Backbone, generator: torch.Generator) -> None:
        """Copies the norms in float32, each tensor under the name it has in its library's module."""
        for part, component in ((LANGUAGE_NORMS, "language"), (VISION_NORMS, "vision")):
            if part not in self.part_names():
                continue
            holder = self.new_holder(part)
            for place, norm in norms_of(backbone, component).items():
                stand_in = Float32Norm(norm)
                for name, parameter in stand_in.norm.named_parameters():
                    register_parameter_at(holder, f"{place.partition('.')[2]}.{name}", parameter)
                self._stand_ins.append(StandIn(part, place, norm, stand_in))
        self.build_interaction(backbone)

    def places(self) -> set[Place]:
        """Returns the places of the components that are switched on."""
        places: dict[str, Place] = {
            LANGUAGE_NORMS: "language model's norms",
            VISION_NORMS: "vision tower's norms",
            INTERACTION: "projector",
        }
        return {places[part] for part in self.part_names()}

    def toggles(self) -> dict[str, bool | int | str]:
        """Returns which components are trained."""
        return {"method": self.name, **self.switches()}

    def adapter_config(self) -> dict[str, object]:
        """Returns the constructor's arguments."""
        return {"language": self.language, "vision": self.vision, "interaction": self.train_interaction}


class Float32Norm(nn.Module):
    """A trained copy of a norm that computes in float32 whatever the frozen model's type is.

    Args:
        norm: The pretrained norm.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = whole_copy(norm)

    def forward(self, states: Tensor) -> Tensor:
        """Maps (..., D) to (..., D) of the same type."""
        return self.norm(states.float()).to(states.dtype)  # type: ignore[no-any-return]


def norms_of(backbone: Backbone, component: str) -> dict[str, nn.Module]:
    """Returns the norm layers of a component that its output depends on, by name.

    Args:
        backbone: Its used tensors say which layers matter.
        component: ``vision`` or ``language``.
    """
    places = dict.fromkeys(place.rpartition(".")[0] for place in backbone.used_tensors()[component])
    modules = {place: backbone.get_submodule(place) for place in places}
    return {place: module for place, module in modules.items() if is_norm(module)}


def is_norm(module: nn.Module) -> bool:
    """Tells whether a module is a LayerNorm or one of transformers' own classes of norms."""
    return isinstance(module, nn.LayerNorm) or "Norm" in type(module).__name__

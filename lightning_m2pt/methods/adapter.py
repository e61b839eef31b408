"""Bottleneck adapters (Houlsby et al., ICML 2019) behind the frozen sublayers of the language model.

Written here: the library of this name asks for a transformers release before 5.
"""

from collections.abc import Set as AbstractSet
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.methods.argument_checks import require_size
from lightning_m2pt.methods.base import Place
from lightning_m2pt.methods.new_tensors import new_tensors
from lightning_m2pt.methods.with_interaction import INTERACTION, WithInteraction

ADAPTERS = "adapters"
Placement: TypeAlias = Literal["attention_and_mlp", "mlp"]


class Bottleneck(nn.Module):
    """x + up(gelu(down(x))); ``up`` starts at zero, so that an untrained adapter changes nothing.

    Args:
        width: D.
        size: Width of the bottleneck.
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, size)
        self.up = nn.Linear(size, width)

    def initialise(self, generator: torch.Generator) -> None:
        """Draws ``down`` as torch's linear layers start; ``up`` and both biases are zero."""
        with torch.no_grad():
            bound = self.down.in_features**-0.5
            self.down.weight.uniform_(-bound, bound, generator=generator)
            for tensor in (self.down.bias, self.up.weight, self.up.bias):
                tensor.zero_()

    def forward(self, states: Tensor) -> Tensor:
        """Maps (..., D) to (..., D), in float32 inside."""
        change: Tensor = self.up(nn.functional.gelu(self.down(states.to(self.down.weight.dtype))))
        return states + change.to(states.dtype)


class Adapter(WithInteraction):
    """Bottleneck adapters in every decoder layer.

    Args:
        size: Width of the bottleneck.
        placement: ``attention_and_mlp``: behind both sublayers, before the residual sum (Houlsby); ``mlp``: behind
            the MLP alone (Pfeiffer et al., EACL 2021).
        interaction: Train the projector between vision and language.
    """

    name = "adapter"

    def __init__(self, size: int = 16, placement: Placement = "attention_and_mlp", interaction: bool = True) -> None:
        super().__init__(interaction)
        require_size("size", size, 1)
        self.size = size
        self.placement: Placement = placement
        self.adapters: nn.ModuleDict | None = None
        self._handles: list[RemovableHandle] = []

    def check(self, shape: BackboneShape) -> None:
        """Works on every backbone."""

    def part_names(self) -> list[str]:
        """Returns the components that are switched on."""
        return [ADAPTERS, *self.interaction_names()]

    def possible_parts(self) -> list[str]:
        """Returns all components, switched on or off."""
        return [ADAPTERS, INTERACTION]

    def build(self, backbone: Backbone, generator: torch.Generator) -> None:
        """Makes the adapters of every layer in float32."""
        shape, sublayers = backbone.shape, ["attention", "mlp"] if self.placement == "attention_and_mlp" else ["mlp"]
        with new_tensors(backbone) as is_meta:
            self.adapters = nn.ModuleDict(
                {
                    f"{layer}_{sublayer}": Bottleneck(shape.text_width, self.size)
                    for layer in range(shape.text_layers)
                    for sublayer in sublayers
                }
            )
        if not is_meta:
            for bottleneck in self.adapters.values():
                bottleneck.initialise(generator)  # type: ignore[operator]
        self.build_interaction(backbone)

    def may_start_without_gradient(self) -> set[str]:
        """Returns everything in front of ``up``: while that is zero, nothing reaches it."""
        return {name for name, _ in self.parts().get(ADAPTERS, []) if ".down." in name}

    def inject(self, backbone: Backbone, without: AbstractSet[str]) -> None:
        """Hooks the outputs of the sublayers."""
        self.restore(backbone)
        if self.adapters is None or ADAPTERS in without:
            return
        for name, bottleneck in self.adapters.items():
            layer, _, sublayer = name.partition("_")
            place = backbone.sublayer(int(layer), "attention" if sublayer == "attention" else "mlp")
            self._handles.append(place.register_forward_hook(adapter_hook(bottleneck)))

    def restore(self, backbone: Backbone) -> None:
        """Takes the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def places(self) -> set[Place]:
        """Returns the outputs of sublayers, and the projector if it is trained."""
        return {"language model's sublayer outputs", *self.interaction_places()}

    def toggles(self) -> dict[str, bool | int | str]:
        """Returns the bottleneck's width and which components are trained."""
        return {
            "method": self.name,
            "size": self.size,
            "placement": self.placement,
            INTERACTION: self.train_interaction,
        }

    def adapter_config(self) -> dict[str, object]:
        """Returns the constructor's arguments."""
        return {"size": self.size, "placement": self.placement, "interaction": self.train_interaction}


def adapter_hook(bottleneck: nn.Module) -> Any:  # noqa: ANN401  (torch's hook type is a union of call signatures)
    """Returns a forward hook that sends a module's output, or the first of its outputs, through an adapter."""

    def hook(_module: nn.Module, _arguments: Any, output: Any) -> Any:  # noqa: ANN401
        return (bottleneck(output[0]), *output[1:]) if isinstance(output, tuple) else bottleneck(output)

    return hook

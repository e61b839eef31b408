"""Tensors and modules of a method that stand in for pretrained ones while it is attached; the frozen base stays."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from torch import nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.methods.with_interaction import WithInteraction


@dataclass
class StandIn:
    """One place in the backbone and the two tensors, or modules, that can stand there.

    Attributes:
        part: The method's part that is trained in the replacement.
        place: Name inside the backbone, such as ``language_model.model.layers.0.mlp.up_proj``.
        original: The pretrained tensor, or the library's module.
        replacement: What the method puts there; tied places share one.
    """

    part: str
    place: str
    original: nn.Parameter | nn.Module
    replacement: nn.Parameter | nn.Module


class WithStandIns(WithInteraction):
    """Base class of methods whose tensors or modules take the place of the backbone's."""

    def __init__(self, interaction: bool) -> None:
        super().__init__(interaction)
        self._stand_ins: list[StandIn] = []

    def new_holder(self, part: str) -> nn.Module:
        """Makes the module that holds a part's tensors under the names they have in their library's modules."""
        holder = nn.Module()
        self.add_module(part, holder)
        return holder

    def inject(self, backbone: Backbone, without: AbstractSet[str]) -> None:
        """Puts the replacements in; where a part is knocked out the originals return."""
        for stand_in in self._stand_ins:
            if stand_in.part in without:
                restore_original(backbone, stand_in)
            else:
                replace_at(backbone, stand_in.place, stand_in.replacement)

    def restore(self, backbone: Backbone) -> None:
        """Puts the originals back."""
        for stand_in in self._stand_ins:
            restore_original(backbone, stand_in)


def replace_at(backbone: Backbone, place: str, what: nn.Parameter | nn.Module) -> None:
    """Lets a tensor or a module stand at a place of the backbone."""
    parent, _, name = place.rpartition(".")
    setattr(backbone.get_submodule(parent), name, what)


def restore_original(backbone: Backbone, stand_in: StandIn) -> None:
    """Lets the original stand at its place again.

    It is no part of any module while the replacement stands there, so moves to another device pass it by: it follows
    here.
    """
    original, replacement = stand_in.original, stand_in.replacement
    device = next(replacement.parameters()).device if isinstance(replacement, nn.Module) else replacement.device
    if isinstance(original, nn.Module):
        original.to(device)
    elif original.device != device:
        original.data = original.data.to(device)
    replace_at(backbone, stand_in.place, original)


def register_parameter_at(holder: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Registers a parameter under a dotted name, with an empty module for every step of it.

    Args:
        holder: An ``nn.Module`` that computes nothing.
        name: Such as ``model.layers.0.mlp.up_proj.weight``.
        parameter: The tensor.
    """
    *steps, last = name.split(".")
    for step in steps:
        inner = dict(holder.named_children()).get(step)
        if inner is None:
            inner = nn.Module()
            holder.add_module(step, inner)
        holder = inner
    holder.register_parameter(last, parameter)

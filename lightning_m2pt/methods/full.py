"""Full fine-tuning: everything the backbone computes with is trained. The upper bound of what a testbed allows.

The frozen base stays: trained are float32 copies, which stand in for the backbone's own tensors while attached.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import torch
from torch import nn

from lightning_m2pt.backbones.base import Attachment, Backbone, BackboneShape
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.base import Method

VISION, INTERACTION, LANGUAGE = "vision", "interaction", "language"


@dataclass
class Swap:
    """One place in the backbone and the two tensors that can stand there.

    Attributes:
        part: The method's part that trains the copy.
        place: Name of the tensor inside the backbone, such as ``projector.weight``.
        original: The pretrained tensor.
        copy: The trained tensor of the same shape, in float32; tied places share one.
    """

    part: str
    place: str
    original: nn.Parameter
    copy: nn.Parameter


class Full(Method):
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
        self._swaps: list[Swap] = []
        self._word_embedding: set[str] = set()

    def check(self, shape: BackboneShape) -> None:
        """Works on every backbone."""

    def part_names(self) -> list[str]:
        """Returns the components that are switched on."""
        return [part for part, is_on in self._is_on.items() if is_on]

    def possible_parts(self) -> list[str]:
        """Returns all components, switched on or off."""
        return list(self._is_on)

    def build(self, backbone: Backbone, generator: torch.Generator) -> None:
        """Copies the used tensors in float32, each under the name it has in its library's module."""
        used = backbone.used_tensors()
        word_embedding = backbone.token_embedding().weight
        for part in self.part_names():
            holder = nn.Module()
            self.add_module(part, holder)
            copies: dict[int, nn.Parameter] = {}
            for place, original in used[part].items():
                if id(original) not in copies:  # a head tied to the word embeddings stays tied
                    copy = nn.Parameter(original.detach().to(torch.float32, copy=True))
                    copies[id(original)] = copy
                    name = place.partition(".")[2]
                    hold(holder, name, copy)
                    if original is word_embedding:
                        self._word_embedding.add(f"{part}.{name}")
                self._swaps.append(Swap(part, place, original, copies[id(original)]))

    def parts(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Returns the copies; nothing before ``build``."""
        return {
            part: [(f"{part}.{name}", parameter) for name, parameter in holder.named_parameters()]
            for part, holder in self.named_children()
        }

    def added_parameters(self) -> dict[str, int]:
        """Nothing is added: every copy stands in for a pretrained tensor of the same size."""
        return dict.fromkeys(self.parts(), 0)

    def may_start_without_gradient(self) -> set[str]:
        """Returns the word embeddings: only rows of words that occur in the first step have a gradient."""
        return self._word_embedding

    def attachment(self, without: AbstractSet[str]) -> Attachment:
        """Returns the empty attachment: the copies stand inside the backbone's own modules."""
        return Attachment()

    def attach(self, backbone: Backbone, without: AbstractSet[str] = frozenset()) -> None:
        """Puts the copies in the place of the pretrained tensors, which return where a part is knocked out.

        Raises:
            BadInputError: If ``without`` names a part the method does not have.
        """
        super().attach(backbone, without)
        for swap in self._swaps:
            put_tensor(backbone, swap, swap.original if swap.part in without else swap.copy)

    def detach(self, backbone: Backbone) -> None:
        """Puts the pretrained tensors back: afterwards the backbone is bit-identical to before."""
        super().detach(backbone)
        for swap in self._swaps:
            put_tensor(backbone, swap, swap.original)

    def toggles(self) -> dict[str, bool | int | str]:
        """Returns which components are trained."""
        return {"method": self.name, **self._is_on}

    def adapter_config(self) -> dict[str, object]:
        """Returns the constructor's arguments."""
        return dict(self._is_on)


def hold(holder: nn.Module, name: str, parameter: nn.Parameter) -> None:
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


def put_tensor(backbone: Backbone, swap: Swap, tensor: nn.Parameter) -> None:
    """Lets a library's module compute with this tensor.

    The original is no part of any module while its copy stands in, so moves to another device pass it by: it follows
    here.
    """
    if tensor is swap.original and tensor.device != swap.copy.device:
        tensor.data = tensor.data.to(swap.copy.device)
    module_name, _, name = swap.place.rpartition(".")
    setattr(backbone.get_submodule(module_name), name, tensor)

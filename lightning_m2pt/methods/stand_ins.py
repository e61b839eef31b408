"""Methods that train copies of pretrained tensors: the frozen base stays, float32 copies stand in while attached."""

from abc import abstractmethod
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import torch
from torch import nn

from lightning_m2pt.backbones.base import Attachment, Backbone
from lightning_m2pt.methods.base import Method


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


class StandIns(Method):
    """Base class of methods whose trained tensors take the place of pretrained ones of the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self._swaps: list[Swap] = []
        self._word_embedding: set[str] = set()

    @abstractmethod
    def chosen_tensors(self, backbone: Backbone) -> dict[str, dict[str, nn.Parameter]]:
        """Returns by part the tensors that are trained, by their name in the backbone: ``projector.weight``."""

    def build(self, backbone: Backbone, generator: torch.Generator) -> None:
        """Copies the chosen tensors in float32, each under the name it has in its library's module."""
        word_embedding = backbone.token_embedding().weight
        for part, tensors in self.chosen_tensors(backbone).items():
            holder = nn.Module()
            self.add_module(part, holder)
            copies: dict[int, nn.Parameter] = {}
            for place, original in tensors.items():
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
        """Returns the word embeddings, if trained: only rows of words that occur in the first step have a gradient."""
        return self._word_embedding

    def attachment(self, without: AbstractSet[str]) -> Attachment:
        """Returns the empty attachment: the copies stand inside the backbone's own modules."""
        return Attachment()

    def put_in(self, backbone: Backbone, without: AbstractSet[str]) -> None:
        """Puts the copies in the place of the pretrained tensors, which return where a part is knocked out."""
        for swap in self._swaps:
            put_tensor(backbone, swap, swap.original if swap.part in without else swap.copy)

    def take_out(self, backbone: Backbone) -> None:
        """Puts the pretrained tensors back."""
        for swap in self._swaps:
            put_tensor(backbone, swap, swap.original)


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

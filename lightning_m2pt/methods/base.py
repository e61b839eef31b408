"""The method contract: a method owns what it trains, attaches it to a backbone and takes it away again."""

import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.parameter_part import ParameterPart
from lightning_m2pt.prompts.attachment import Attachment

Place: TypeAlias = Literal[
    "pixels",
    "visual prompts",
    "textual prompts",
    "projector",
    "head",
    "vision tower's linear layers",
    "vision tower's norms",
    "vision tower's other tensors",
    "language model's linear layers",
    "language model's norms",
    "language model's word embeddings",
    "language model's sublayer outputs",
]
"""Where a method changes a backbone; two methods that change the same place cannot be combined."""


class Method(nn.Module, ABC):
    """Base class of everything that adapts a frozen backbone.

    What is trained = saved = counted = optimised = exported is exactly ``parts()``; ``trained_parameters`` enforces it.
    Constructors take configuration only; ``build`` makes tensors once the backbone's modules exist.

    Attributes:
        built_shapes: The shape of each trained tensor as it was built, before a strategy could share it out; None
            until the module has built it.
        later_arguments: Arguments of the constructor that came later than runs and adapters there are, with their
            defaults: at those a run's name and an adapter are as if they were not there.
        hints: By argument, what to do where an adapter has another value of it than is asked for.
        prompt_names: Which of its parts are prompts: rows, keys and values or pixels beside what the model has.
    """

    name: str
    later_arguments: ClassVar[Mapping[str, object]] = MappingProxyType({})
    hints: ClassVar[Mapping[str, str]] = MappingProxyType({})
    prompt_names: ClassVar[AbstractSet[str]] = frozenset()
    built_shapes: dict[str, tuple[int, ...]] | None = None

    @abstractmethod
    def check(self, shape: BackboneShape) -> None:
        """Raises BadInputError if the method cannot work on a backbone of this shape."""

    def check_words(self, backbone: Backbone) -> None:
        """Raises BadInputError if a text among the arguments cannot be read; needs the tokenizer and no weights."""
        return

    @abstractmethod
    def part_names(self) -> list[str]:
        """Returns the keys of ``parts()`` before anything is built."""

    def possible_parts(self) -> list[str]:
        """Returns the parts the method could train with other arguments."""
        return self.part_names()

    def prompt_parts(self) -> list[str]:
        """Returns the trained parts that are prompts, which ``prompt_first_steps`` of a schedule begins with."""
        return [part for part in self.part_names() if part in self.prompt_names]

    def switches(self) -> dict[str, bool]:
        """Returns for every possible part whether it is trained, as it is configured."""
        return {part: part in self.part_names() for part in self.possible_parts()}

    @abstractmethod
    def build(self, backbone: Backbone, generator: torch.Generator) -> None:
        """Makes the method's tensors; on meta backbones they are meta tensors."""

    @abstractmethod
    def parts(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Returns the trained tensors by part, each with its name inside this module."""

    def named_tensors(self) -> dict[str, nn.Parameter]:
        """Returns the trained tensors of all parts by their names."""
        return {name: parameter for tensors in self.parts().values() for name, parameter in tensors}

    @abstractmethod
    def added_parameters(self) -> dict[str, int]:
        """Returns by part how many of the trained numbers the untouched model does not have."""

    @abstractmethod
    def attachment(self, without: AbstractSet[str]) -> Attachment:
        """Returns what is put into the backbone when the parts in ``without`` are knocked out."""

    @abstractmethod
    def places(self) -> set[Place]:
        """Returns where this method changes a backbone, as it is configured."""

    @abstractmethod
    def toggles(self) -> dict[str, bool | int | str]:
        """Returns the components an ablation switches, as they are configured."""

    @abstractmethod
    def adapter_config(self) -> dict[str, object]:
        """Returns the arguments that rebuild this method (JSON values), later ones where they are not at defaults."""

    def rows_before_text(self) -> int:
        """Returns how many learned rows, keys or values stand before the decoder's first real row."""
        return 0

    def rows_beside_patches(self) -> int:
        """Returns how many rows of an image go through the connector besides its patches."""
        return 0

    def dead_rows(self) -> dict[str, list[int]]:
        """Returns for each tensor name the rows (dimension -2) that can never receive a gradient, by declaration."""
        return {}

    def still_numbers(self) -> dict[str, tuple[int, str]]:
        """Returns by tensor name how many numbers never move whatever their gradient is, and what they are."""
        return {}

    def may_start_without_gradient(self) -> set[str]:
        """Returns names of tensors whose gradient may be zero, in rows or as a whole, at the first step.

        For word embeddings, of which only the words of the first batch move, and for low-rank pairs of which one
        factor starts at zero and so stops the other's gradient for one step. The backward pass must still reach them.
        """
        return set()

    def frozen_bytes(self) -> int:
        """Returns the bytes of frozen tensors of the method's own, once it is built; usually none."""
        return 0

    def kept_factor(self) -> float:
        """Returns how many times what its places say the method keeps for the backward pass, as an upper bound."""
        return 1.0

    def kept_weight_bytes(self) -> dict[str, int]:
        """Returns the bytes of matrices that the backward pass needs whatever the batch, once it is built.

        They are by the layer of the backbone in which they are: recomputed, one layer's are there at a time.
        """
        return {}

    def attach(self, backbone: Backbone, without: AbstractSet[str] = frozenset()) -> None:
        """Puts the method into the backbone.

        Raises:
            BadInputError: If ``without`` names a part the method does not have.
        """
        self.check_knock_out(without)
        backbone.release_hooks()  # a part that is knocked out must not live on in the hooks of an earlier pass
        self.inject(backbone, without)
        backbone.attachment = self.attachment(without)
        backbone.attachment.knocked_out = frozenset(without)
        if backbone.runs_in_lockstep:
            backbone.attachment.path = "token"
        backbone.attached_method = weakref.ref(self)  # a plain reference would make it a part of the backbone

    def inject(self, backbone: Backbone, without: AbstractSet[str]) -> None:
        """Changes the library's own modules: replacements, hooks; calling it again with other parts is allowed."""
        return

    def restore(self, backbone: Backbone) -> None:
        """Gives the library's modules back as they were: undoes ``inject``."""
        return

    def check_knock_out(self, without: AbstractSet[str]) -> None:
        """Compares parts to knock out with the method's; needs nothing built.

        Raises:
            BadInputError: If the method does not have one of them.
        """
        unknown = sorted(set(without) - set(self.part_names()))
        if unknown:
            raise BadInputError(
                f"{self.name} has no part {unknown[0]!r} to knock out",
                where="--knock-out",
                expected=" or ".join(self.part_names()) or "nothing: this method trains nothing",
            )

    def detach(self, backbone: Backbone) -> None:
        """Takes the method away: afterwards the backbone is bit-identical to before."""
        backbone.attachment = Attachment()
        backbone.attached_method = None
        backbone.release_hooks()
        self.restore(backbone)

    def parts_outside(self) -> set[str]:
        """Returns the parts that stand outside of the model, in the pictures that it is shown; usually none."""
        return set()

    def parameter_parts(self) -> list[ParameterPart]:
        """Returns what is trained, counted part by part."""
        dead_rows, added, table = self.dead_rows(), self.added_parameters(), []
        still, outside = self.still_numbers(), self.parts_outside()
        for part, tensors in self.parts().items():
            dead = [(name, row, parameter) for name, parameter in tensors for row in dead_rows.get(name, [])]
            unmoved = [still[name] for name, _ in tensors if name in still]
            table.append(
                ParameterPart(
                    name=part,
                    parameters=sum(parameter.numel() for _, parameter in tensors),
                    added=added[part],
                    dead=sum(parameter.shape[-1] for _, _, parameter in dead) + sum(number for number, _ in unmoved),
                    dead_names=[f"{name} row {row}" for name, row, _ in dead] + [what for _, what in unmoved],
                    is_outside=part in outside,
                )
            )
        return table

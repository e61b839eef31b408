"""Several methods at once on one backbone, such as LoRA in the language model and visual prompts in the tower."""

from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import fields

import torch
from torch import nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.base import Method, Place
from lightning_m2pt.prompts.attachment import Attachment


class Combined(Method):
    """Attaches methods that change different places of a backbone.

    Args:
        methods: At least two, none twice. Two that change the same place are refused with its name.
    """

    def __init__(self, methods: list[Method]) -> None:
        super().__init__()
        names = [method.name for method in methods]
        if len(methods) < 2 or len(set(names)) < len(names):
            raise BadInputError(
                f"{', '.join(names) or 'no method'}",
                where="model.method.methods",
                expected="two or more methods, each once",
            )
        self.members = nn.ModuleDict({method.name: method for method in methods})
        refuse_overlap(methods)
        self.name = "+".join(names)

    def methods(self) -> list[Method]:
        """Returns the combined methods in order."""
        return [member for member in self.members.values() if isinstance(member, Method)]

    def check(self, shape: BackboneShape) -> None:
        """Checks every method.

        Raises:
            BadInputError: If one cannot work on a backbone of this shape.
        """
        for method in self.methods():
            method.check(shape)

    def check_words(self, backbone: Backbone) -> None:
        """Reads the texts of every method.

        Raises:
            BadInputError: If one cannot be read.
        """
        for method in self.methods():
            method.check_words(backbone)

    def part_names(self) -> list[str]:
        """Returns the parts of all methods."""
        return [part for method in self.methods() for part in method.part_names()]

    def possible_parts(self) -> list[str]:
        """Returns the parts that any of the methods could train."""
        return list(dict.fromkeys(part for method in self.methods() for part in method.possible_parts()))

    def prompt_parts(self) -> list[str]:
        """Returns the prompts of all methods."""
        return [part for method in self.methods() for part in method.prompt_parts()]

    def build(self, backbone: Backbone, generator: torch.Generator) -> None:
        """Makes every method's tensors, one after the other from one generator."""
        for method in self.methods():
            method.build(backbone, generator)

    def parts(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Returns the trained tensors of all methods."""
        return {
            part: [(f"members.{method.name}.{name}", parameter) for name, parameter in tensors]
            for method in self.methods()
            for part, tensors in method.parts().items()
        }

    def added_parameters(self) -> dict[str, int]:
        """Returns what every method adds."""
        return {part: number for method in self.methods() for part, number in method.added_parameters().items()}

    def dead_rows(self) -> dict[str, list[int]]:
        """Returns the dead rows of all methods."""
        return {
            f"members.{method.name}.{name}": rows
            for method in self.methods()
            for name, rows in method.dead_rows().items()
        }

    def still_numbers(self) -> dict[str, tuple[int, str]]:
        """Returns the numbers of all methods that never move."""
        return {
            f"members.{method.name}.{name}": still
            for method in self.methods()
            for name, still in method.still_numbers().items()
        }

    def parts_outside(self) -> set[str]:
        """Returns those of all methods."""
        return set().union(*(method.parts_outside() for method in self.methods()))

    def may_start_without_gradient(self) -> set[str]:
        """Returns the late starters of all methods."""
        return {
            f"members.{method.name}.{name}" for method in self.methods() for name in method.may_start_without_gradient()
        }

    def frozen_bytes(self) -> int:
        """Sums over the methods."""
        return sum(method.frozen_bytes() for method in self.methods())

    def kept_factor(self) -> float:
        """Returns the largest."""
        return max(method.kept_factor() for method in self.methods())

    def kept_weight_bytes(self) -> dict[str, int]:
        """Sums over the methods, layer by layer."""
        found: Counter[str] = Counter()
        for method in self.methods():
            found.update(method.kept_weight_bytes())
        return dict(found)

    def attachment(self, without: AbstractSet[str]) -> Attachment:
        """Returns one attachment with everything that a method sets; places are disjoint, so nothing is set twice."""
        merged, untouched = Attachment(), Attachment()
        for method in self.methods():
            part = method.attachment(without)
            for field in fields(Attachment):
                value = getattr(part, field.name)
                if value != getattr(untouched, field.name):
                    setattr(merged, field.name, value)
        return merged

    def inject(self, backbone: Backbone, without: AbstractSet[str]) -> None:
        """Puts every method in."""
        for method in self.methods():
            method.inject(backbone, without)

    def restore(self, backbone: Backbone) -> None:
        """Takes every method out, the last first."""
        for method in reversed(self.methods()):
            method.restore(backbone)

    def places(self) -> set[Place]:
        """Returns the places of all methods."""
        return set().union(*(method.places() for method in self.methods()))

    def rows_before_text(self) -> int:
        """Sums over the methods."""
        return sum(method.rows_before_text() for method in self.methods())

    def rows_beside_patches(self) -> int:
        """Sums over the methods."""
        return sum(method.rows_beside_patches() for method in self.methods())

    def toggles(self) -> dict[str, bool | int | str]:
        """Returns the components of all methods; a part is on if one of them trains it."""
        toggles: dict[str, bool | int | str] = {"method": self.name}
        for method in self.methods():
            for key, value in method.toggles().items():
                if key in method.part_names() or (key != "method" and key not in self.possible_parts()):
                    toggles[key] = value
        return {**dict.fromkeys((part for part in self.possible_parts()), False), **toggles}

    def adapter_config(self) -> dict[str, object]:
        """Returns every method's arguments behind its name."""
        return {method.name: method.adapter_config() for method in self.methods()}


def refuse_overlap(methods: list[Method]) -> None:
    """Refuses methods that change the same place.

    Raises:
        BadInputError: Naming the first two and the place.
    """
    owner: dict[Place, str] = {}
    for method in methods:
        for place in sorted(method.places()):
            if place in owner:
                raise BadInputError(
                    f"{owner[place]} and {method.name} both change the backbone's {place}",
                    where="model.method.methods",
                    expected="methods that change different places",
                    hint="switch that part off in one of them, such as interaction: false",
                )
            owner[place] = method.name

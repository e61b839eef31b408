"""A projector's file: linear, or LLaVA's layers with GELU between them; which one, its tensors' names tell."""

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from lightning_m2pt.backbones.filling.unfilled import Unfilled
from lightning_m2pt.backbones.weight_files import Shape, Stored, compare_tensors, stored_tensors
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.visible_text import counted

PREFIXES = ("model.mm_projector.", "mm_projector.", "model.multi_modal_projector.", "multi_modal_projector.")
"""Under which training checkpoints of LLaVA and whole models of transformers keep it."""
LINEAR = re.compile(r"(weight|bias)")
NUMBERED = re.compile(r"(\d+)\.(weight|bias)")
"""LLaVA's ``mlp2x_gelu``, a sequence: ``0``, then an activation without tensors, then ``2``."""
NAMED = re.compile(r"linear_(\d+)\.(weight|bias)")
"""transformers' form of the same."""
MOST_LAYERS = 8


@dataclass(frozen=True)
class ProjectorFile:
    """A projector as its file describes it.

    Attributes:
        path: The file.
        layers: How many linear layers it has.
        has_bias: Whether they add something.
        stored: Its tensors, by their names in the file.
        names: For each the name in the module.
        widths: Rows that each layer returns, the last one's among them.
    """

    path: Path
    layers: int
    has_bias: bool
    stored: Stored
    names: dict[str, str]
    widths: tuple[int, ...]

    def on_meta(self, vision_width: int, text_width: int, dtype: torch.dtype | None = None) -> nn.Module:
        """Builds the projector without memory.

        Args:
            vision_width: Numbers of a row of the tower.
            text_width: Numbers of a row of the decoder.
            dtype: Type of its weights; None takes torch's.
        """
        widths = [vision_width, *self.widths[:-1], text_width]
        with torch.device("meta"):
            linear = [nn.Linear(given, made, bias=self.has_bias, dtype=dtype) for given, made in pairwise(widths)]
            if len(linear) == 1:
                return linear[0]
            return nn.Sequential(*[part for each in linear for part in (nn.GELU(), each)][1:])

    def check(self, vision_width: int, text_width: int) -> None:
        """Compares the file with what stands at both its ends.

        Raises:
            BadInputError: If it belongs to another tower or decoder.
        """
        module = self.on_meta(vision_width, text_width)
        wanted: dict[str, Shape] = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        compare_tensors(wanted, {self.names[name]: one for name, one in self.stored.items()}, self.path)

    def load(self, vision_width: int, text_width: int, dtype: torch.dtype) -> nn.Module:
        """Reads the projector strictly.

        Raises:
            BadInputError: If it belongs to another tower or decoder, or is not finite.
        """
        return self.unfilled(vision_width, text_width, dtype).fill()  # type: ignore[no-any-return]

    def unfilled(self, vision_width: int, text_width: int, dtype: torch.dtype) -> Unfilled:
        """Builds what ``load`` reads, without memory.

        Raises:
            BadInputError: If the file belongs to another tower or decoder.
        """
        self.check(vision_width, text_width)
        module = self.on_meta(vision_width, text_width, dtype)
        return Unfilled(module, self.stored, self.names, dtype, self.path)


def described_projector(path: Path) -> ProjectorFile:
    """Reads a projector's header.

    Raises:
        BadInputError: If the file cannot be read or holds no projector of these forms.
    """
    stored = stored_tensors(path)
    prefix = next((each for each in PREFIXES if stored and all(name.startswith(each) for name in stored)), "")
    shorter = {name: name.removeprefix(prefix) for name in stored}
    for form, step in ((NUMBERED, 2), (NAMED, 1)):
        if shorter and all(form.fullmatch(name) for name in shorter.values()):
            numbers = sorted({int(form.fullmatch(name)[1]) for name in shorter.values()})  # type: ignore[index]
            first = 0 if form is NUMBERED else 1
            if numbers == list(range(first, first + step * len(numbers), step)) and 1 < len(numbers) <= MOST_LAYERS:
                places = {number: 2 * place for place, number in enumerate(numbers)}
                return of_layers(path, stored, {name: placed(short, form, places) for name, short in shorter.items()})
    if shorter and "weight" in shorter.values() and all(LINEAR.fullmatch(name) for name in shorter.values()):
        return of_layers(path, stored, shorter)
    raise BadInputError(
        f"this is no projector: {counted(sorted(stored))}" if stored else "it holds no tensor",
        where=str(path),
        expected="weight and bias; or 0.weight, 0.bias, 2.weight, 2.bias (LLaVA); or linear_1.*, linear_2.*",
    )


def placed(name: str, form: re.Pattern[str], places: dict[int, int]) -> str:
    """Returns a tensor's name in a sequence of linear layers with activations between them."""
    match = form.fullmatch(name)
    assert match is not None
    return f"{places[int(match[1])]}.{match[2]}"


def of_layers(path: Path, stored: Stored, names: dict[str, str]) -> ProjectorFile:
    """Describes a projector of known names.

    Raises:
        BadInputError: If a weight is no matrix.
    """
    weights = [(own, stored[name].shape) for name, own in names.items() if own.endswith("weight")]
    weights.sort(key=lambda each: (len(each[0]), each[0]))  # 10.weight stands behind 2.weight
    if any(len(shape) != 2 for _, shape in weights):
        raise BadInputError("a weight is no matrix", where=str(path), expected="linear layers")
    has_bias = any(own.endswith("bias") for own in names.values())
    return ProjectorFile(path, len(weights), has_bias, stored, names, tuple(shape[0] for _, shape in weights))

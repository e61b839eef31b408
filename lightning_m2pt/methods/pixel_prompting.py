"""Prompting in pixels: VP (Bahng et al., 2022), EVP (Wu et al., TMLR 2024), TVP's prompt (Zhang et al., CVPR 2024).

A border of learned pixels is put on top of every picture or around it; nothing inside the model changes. They are
arguments, not classes: VP is ``overlay`` in ``normalised`` space from a normal start, EVP and TVP are ``shrink`` in
``pixels`` from zeros.
"""

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.base import Method, Place
from lightning_m2pt.methods.new_tensors import new_tensors
from lightning_m2pt.prompts.attachment import Attachment
from lightning_m2pt.prompts.pixel_prompt import PUBLISHED_BORDER, Clip, Compose, PixelPrompt, Space, border_width

PIXEL_PROMPT = "pixel_prompt"


class PixelPrompting(Method):
    """Learned pixels on top of every picture or around it; the model itself stays as it is.

    Args:
        border: Width of the border as a share of the picture's side, rounded to whole pixels; published are 30 of 224.
        compose: ``overlay`` adds the border on top of the whole picture; ``shrink`` makes the picture smaller and puts
            the border around it.
        space: ``pixels``: learned numbers are pixels in 0..1 before normalisation, the same for every model;
            ``normalised``: behind it, in units of the channels' deviations.
        fill: Colour of the border of a shrunk picture before the prompt is added: red, green and blue in 0..1.
        clip: ``none``, as published, hands on numbers that no picture has; ``unit`` clips to 0..1; ``eight_bits`` also
            rounds to the 256 levels of a PNG. Both in training and in evaluation.
        init_std: Deviation of the normal distribution that the border starts from; 0 starts it at zeros.
    """

    name = "pixel_prompt"
    prompt_names = frozenset({PIXEL_PROMPT})
    hints: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"clip": "m2pt transfer --prompt RUN --to EXPERIMENT, on the same base as well, has rows that are clipped"}
    )

    def __init__(
        self,
        border: float = PUBLISHED_BORDER,
        compose: Compose = "overlay",
        space: Space = "pixels",
        fill: tuple[float, float, float] = (0.0, 0.0, 0.0),
        clip: Clip = "none",
        init_std: float = 0.0,
    ) -> None:
        super().__init__()
        refuse_wrong_numbers(border, fill, init_std)
        if compose == "overlay" and any(fill):
            raise BadInputError(
                "a colour for the border of a shrunk picture, and the picture is not shrunk",
                where="model.method.fill",
                expected="compose: shrink, or no fill",
            )
        self.border, self.init_std = border, init_std
        self.fill = fill[0], fill[1], fill[2]
        self.compose: Compose = compose
        self.space: Space = space
        self.clip: Clip = clip
        self.pixel_prompt: PixelPrompt | None = None

    def check(self, shape: BackboneShape) -> None:
        """Compares the border with the picture that the tower reads.

        Raises:
            BadInputError: If it is no pixel wide, or the tower reads no pictures of one size.
        """
        if shape.tiles_are_patches:
            raise BadInputError(
                "this backbone takes no pixel prompt: its pictures have grids of their own, and come in patches",
                where="model.method",
                expected="a backbone that reads pictures, or tiles, of one size",
            )
        border_width(shape.image_size, self.border)

    def check_pictures(self, side: int, made: Sequence[int]) -> None:
        """Compares the pictures that are made with those that the tower reads, whose size the prompt has.

        Args:
            side: Side of the picture that the tower reads.
            made: Shape of one picture, or tile, as the base's processor makes it.

        Raises:
            BadInputError: If it is another one.
        """
        if tuple(made) != (3, side, side):
            raise BadInputError(
                f"the base makes pictures of {tuple(made)}, and a pixel prompt for it has (3, {side}, {side}) numbers",
                where="model.backbone",
                expected="a base whose processor makes pictures of its image_size",
            )

    def part_names(self) -> list[str]:
        """Returns the prompt."""
        return [PIXEL_PROMPT]

    def build(self, backbone: Backbone, generator: torch.Generator) -> None:
        """Makes the prompt in float32, for the size and normalisation of the backbone's pictures."""
        normalisation = backbone.pixel_normalisation()
        with new_tensors(backbone) as is_meta:
            self.pixel_prompt = PixelPrompt(
                backbone.shape.image_size,
                self.border,
                normalisation,
                self.compose,
                self.space,
                self.fill,
                self.clip,
            )
            if not is_meta and self.init_std:
                self.pixel_prompt.initialise(self.init_std, generator)

    def parts(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Returns the whole square; nothing before ``build``."""
        prompt = self.pixel_prompt
        return {} if prompt is None else {PIXEL_PROMPT: [(f"{PIXEL_PROMPT}.delta", prompt.delta)]}

    def still_numbers(self) -> dict[str, tuple[int, str]]:
        """Returns the square inside the border, which stays 0 and is not read."""
        prompt = self.pixel_prompt
        if prompt is None:
            return {}
        return {f"{PIXEL_PROMPT}.delta": (prompt.delta.numel() - prompt.moving, "the inside of pixel_prompt.delta")}

    def parts_outside(self) -> set[str]:
        """Returns the prompt."""
        return {PIXEL_PROMPT}

    def added_parameters(self) -> dict[str, int]:
        """Returns all numbers: they are added outside the model."""
        return {part: sum(each.numel() for _, each in tensors) for part, tensors in self.parts().items()}

    def attachment(self, without: AbstractSet[str]) -> Attachment:
        """Returns the prompt; knocked out, pictures are neither prompted nor shrunk."""
        return Attachment(pixel_prompt=None if PIXEL_PROMPT in without else self.pixel_prompt)

    def places(self) -> set[Place]:
        """Returns the pixels."""
        return {"pixels"}

    def toggles(self) -> dict[str, bool | int | str]:
        """Returns how a picture is composed."""
        return {
            "method": self.name,
            **self.switches(),
            "compose": self.compose,
            "space": self.space,
            "clip": self.clip,
        }

    def adapter_config(self) -> dict[str, object]:
        """Returns the constructor's arguments that decide the tensors and the numbers."""
        return {
            "border": self.border,
            "compose": self.compose,
            "space": self.space,
            "fill": list(self.fill),
            "clip": self.clip,
        }


def refuse_wrong_numbers(border: float, fill: tuple[float, ...], init_std: float) -> None:
    """Refuses what no picture could have.

    Raises:
        BadInputError: If the border is no share below a half, a colour is none, or the deviation is negative.
    """
    if not 0.0 < border < 0.5:
        raise BadInputError(
            f"{border:g} of a picture's side is no border",
            where="model.method.border",
            expected="a share above 0 and below 0.5",
        )
    if len(fill) != 3 or not all(0.0 <= each <= 1.0 for each in fill):
        raise BadInputError(
            f"{list(fill)} is no colour",
            where="model.method.fill",
            expected="red, green and blue, each in 0..1",
        )
    if not 0.0 <= init_std < math.inf:
        raise BadInputError(f"{init_std:g} is no deviation", where="model.method.init_std", expected="0 or more")

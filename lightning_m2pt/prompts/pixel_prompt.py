"""A visual prompt in the picture itself: a border of learned pixels, on top of the picture or around it.

``overlay`` adds the border on top of the whole picture (VP: Bahng et al., "Exploring Visual Prompts for Adapting
Large-Scale Models", 2022), ``shrink`` makes the picture smaller and puts the border around it (EVP: Wu et al., TMLR
2024; TVP: Zhang et al., CVPR 2024). Learned numbers are pixels in 0..1 before normalisation (EVP, TVP), which are the
same for every model, or behind it, in units of the channels' deviations (VP).
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from lightning_m2pt.errors import BadInputError

Compose: TypeAlias = Literal["overlay", "shrink"]
Space: TypeAlias = Literal["pixels", "normalised"]
Clip: TypeAlias = Literal["none", "unit", "eight_bits"]
Interpolation: TypeAlias = Literal["nearest", "bilinear"]

MOVES = "moves"
"""Attribute of a trained parameter: a bool mask, on the CPU, of the numbers that may move; without it all may."""
PUBLISHED_BORDER = 30 / 224
"""30 of 224 pixels, as VP, EVP and TVP have it."""
LEVELS = 255


class PixelPrompt(nn.Module):
    """Learned pixels around or on top of every picture, or on each tile of a picture that is read in tiles.

    The whole square is one parameter, as the published checkpoint has it. Its interior is read as 0 and never moves,
    but has a gradient: the published rule takes the norm of the whole square's.

    Args:
        side: Side S of the square picture that the tower reads.
        border: Width of the border as a share of the side, above 0 and below 0.5.
        normalisation: Means and deviations of the channels, (3, 1, 1) float32 each.
        compose: ``overlay`` or ``shrink``.
        space: ``pixels``: numbers of 0..1 before normalisation; ``normalised``: behind it.
        fill: Colour of the border of a shrunk picture, red, green and blue in 0..1.
        clip: ``none`` hands on numbers that no picture has; ``unit`` clips to 0..1; ``eight_bits`` also rounds to the
            256 levels of a PNG. Clipped numbers have no gradient; rounding lets it pass.

    Attributes:
        width: Width of the border in pixels.
        delta: (3, S, S) float32, the learned numbers.
        mask: (1, S, S) bool, where the border is.
    """

    mask: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        side: int,
        border: float,
        normalisation: tuple[Tensor, Tensor],
        compose: Compose = "overlay",
        space: Space = "pixels",
        fill: Sequence[float] = (0.0, 0.0, 0.0),
        clip: Clip = "none",
    ) -> None:
        super().__init__()
        self.side, self.width = side, border_width(side, border)
        self.compose, self.space, self.clip = compose, space, clip
        self.fill = tuple(fill)
        self.delta = nn.Parameter(torch.zeros(3, side, side, dtype=torch.float32))
        setattr(self.delta, MOVES, self.border_mask())
        mean, std = (each.detach().float().view(3, 1, 1) for each in normalisation)
        device = self.delta.device
        for name, constant in (("mask", self.border_mask()), ("mean", mean), ("std", std)):
            self.register_buffer(name, constant.clone().to(device), persistent=False)

    @property
    def moving(self) -> int:
        """How many of the 3 * S * S numbers the border has."""
        return 3 * (self.side**2 - (self.side - 2 * self.width) ** 2)

    def border_mask(self) -> Tensor:
        """Returns (1, S, S) bool on the CPU, true in the border."""
        mask = torch.ones(1, self.side, self.side, dtype=torch.bool, device="cpu")
        mask[:, self.width : -self.width, self.width : -self.width] = False
        return mask

    def initialise(self, std: float, generator: torch.Generator) -> None:
        """Draws the border from a normal distribution around 0, or leaves it at 0 where the deviation is 0.

        Args:
            std: The deviation, in the prompt's own space.
            generator: Draws the whole square; the interior is left out afterwards.
        """
        drawn = std * torch.randn(self.delta.shape, generator=generator)
        with torch.no_grad():
            self.delta.copy_(drawn.where(self.border_mask(), torch.zeros(())))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Puts the prompt into normalised pictures.

        ``overlay`` of zeros gives the very numbers it is given, with ``eight_bits`` up to rounding.

        Args:
            pixel_values: (B, 3, S, S), normalised.

        Returns:
            (B, 3, S, S), normalised, in float32 or wider.

        Raises:
            BadInputError: If the pictures are of another size.
        """
        if pixel_values.shape[-3:] != self.delta.shape:
            raise BadInputError(
                f"a prompt of {self.side} x {self.side} pixels, and a picture of {tuple(pixel_values.shape[-3:])}",
                where="model.method",
                expected="pictures of the size that the prompt was made for",
            )
        given = pixel_values.to(torch.promote_types(pixel_values.dtype, torch.float32))
        delta = self.learned()
        if self.compose == "overlay" and self.clip == "none":
            return given + (delta / self.std if self.space == "pixels" else delta)
        in_pixels = delta if self.space == "pixels" else delta * self.std
        pixels = given * self.std + self.mean
        if self.compose == "shrink":
            return (self.clipped(self.shrunk(pixels) + in_pixels) - self.mean) / self.std
        change = torch.where(self.mask, self.clipped(pixels + in_pixels) - pixels, in_pixels)
        return given + change / self.std

    def learned(self) -> Tensor:
        """Returns (3, S, S): the border, and 0 inside whatever is stored there; the gradient is the whole square's."""
        inside = torch.where(self.mask, self.delta.detach(), torch.zeros_like(self.delta)) - self.delta.detach()
        return self.delta + inside

    def shrunk(self, pixels: Tensor) -> Tensor:
        """Makes pictures smaller by the border's width on each side, which is filled with one colour.

        The picture that the tower would read is resized (bicubic, antialiased), and not, as published, the original.

        Args:
            pixels: (B, 3, S, S) in 0..1.
        """
        inner = self.side - 2 * self.width
        small = nn.functional.interpolate(pixels, size=(inner, inner), mode="bicubic", antialias=True)
        colour = torch.tensor(self.fill, dtype=pixels.dtype, device=pixels.device).view(3, 1, 1)
        whole = colour.expand_as(pixels).clone()
        end = self.width + inner
        whole[:, :, self.width : end, self.width : end] = small.clamp(0, 1)  # bicubic overshoots; no picture does
        return whole

    def clipped(self, pixels: Tensor) -> Tensor:
        """Clips and rounds pixels as ``clip`` says."""
        if self.clip == "none":
            return pixels
        unit = pixels.clamp(0, 1)
        if self.clip == "unit":
            return unit
        return unit + (torch.round(unit.detach() * LEVELS) / LEVELS - unit.detach())


def border_width(side: int, border: float) -> int:
    """Returns the width of a border in whole pixels.

    Args:
        side: Side of the picture.
        border: Share of the side.

    Raises:
        BadInputError: If it is no pixel wide, or leaves no picture inside.
    """
    width = round(border * side)
    if width < 1 or side - 2 * width < 1:
        what = "less than a pixel" if width < 1 else "all of it"
        raise BadInputError(
            f"a border of {border:g} of a picture of {side} x {side} pixels is {what}",
            where="model.method.border",
            expected=f"a share of the side of which {1 / side:.3g} is a pixel, below 0.5",
        )
    return width


def resized_delta(delta: Tensor, side: int, interpolation: Interpolation = "bilinear") -> Tensor:
    """Returns a prompt for pictures of another size; not antialiased, which would blur a narrow border.

    Args:
        delta: (3, S, S).
        side: The other side T. T = S gives the same numbers.
        interpolation: How it is resized.

    Returns:
        (3, T, T). Where the border ends follows from rounding; a prompt reads its own border alone.
    """
    if side == delta.shape[-1]:
        return delta.clone()
    corners = None if interpolation == "nearest" else False
    return nn.functional.interpolate(delta[None], size=(side, side), mode=interpolation, align_corners=corners)[0]


def refuse_other_normalisation(space: Space, own: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> None:
    """Refuses a prompt behind the normalisation of one base on a base with another one.

    Args:
        space: The prompt's.
        own: Means and deviations of the base it was trained on.
        other: Those of the base it shall be used on.

    Raises:
        BadInputError: If the prompt is in units of deviations that are not the other base's.
    """
    same = all(torch.equal(*(each.flatten().float() for each in pair)) for pair in zip(own, other, strict=True))
    if space == "pixels" or same:
        return
    means, deviations = (tuple(round(each, 4) for each in values.flatten().tolist()) for values in other)
    raise BadInputError(
        "the prompt is in units of its own base's deviations, and this base normalises pictures otherwise",
        where="model.method.space",
        expected=f"a base with its means and deviations; this one has {means} and {deviations}",
        hint="train it with space: pixels, which is the same on every base",
    )

"""A pixel prompt as pictures: its numbers around middle grey, and a picture as the tower reads it with the prompt."""

import io
from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor

from lightning_m2pt.prompts.pixel_prompt import PixelPrompt

SHOWN_SIDE = 384
"""Smaller pictures are enlarged, each pixel as a square of several, up to about this side."""


def numbers_of_prompt(prompt: PixelPrompt) -> dict[str, Any]:
    """Returns what a picture would not tell of a prompt: its numbers are in 0..1 of a pixel, or in deviations.

    Args:
        prompt: The prompt; what is stored inside the border is not read, and does not count.
    """
    values = border_of(prompt).double()
    return {
        "side": prompt.side,
        "border": prompt.width,
        "compose": prompt.compose,
        "space": prompt.space,
        "clip": prompt.clip,
        "norm": float(values.norm()),
        "mean": float(values.mean()),
        "deviation": float(values.std(correction=0)),
        "largest": float(values.abs().max()),
    }


def border_of(prompt: PixelPrompt) -> Tensor:
    """Returns (N,) the numbers of the border, on the CPU."""
    delta = prompt.delta.detach().cpu()
    return delta[prompt.border_mask().expand_as(delta)]


def prompt_picture(prompt: PixelPrompt) -> bytes:
    """Returns a PNG of the prompt alone: 0 is middle grey, and the largest number, in pixels, black or white.

    Args:
        prompt: The prompt.
    """
    delta = prompt.learned().detach().cpu()
    in_pixels = delta if prompt.space == "pixels" else delta * prompt.std.cpu()
    largest = float(in_pixels.abs().max())
    return png_of(0.5 + in_pixels / (2 * largest) if largest else torch.full_like(in_pixels, 0.5))


def prompted_picture(prompt: PixelPrompt, pixels: Tensor) -> tuple[bytes, float]:
    """Returns a PNG of a picture with the prompt, clipped to what can be shown, and the share of numbers that were.

    Args:
        prompt: The prompt.
        pixels: (3, S, S), normalised.
    """
    with torch.no_grad():
        shown = (prompt(pixels[None].to(prompt.delta.device))[0] * prompt.std + prompt.mean).cpu()
    rounding = 1e-4  # normalised and back, black and white are not met to the last bit
    outside = ((shown < -rounding) | (shown > 1 + rounding)).double().mean()
    return png_of(shown), float(outside)


def png_of(pixels: Tensor) -> bytes:
    """Returns (3, S, S) numbers of 0..1 as a PNG, enlarged by a whole factor if they are few."""
    levels = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    times = max(1, SHOWN_SIDE // levels.shape[0])
    file = io.BytesIO()
    Image.fromarray(numpy.kron(levels, numpy.ones((times, times, 1), dtype=numpy.uint8))).save(file, format="png")
    return file.getvalue()

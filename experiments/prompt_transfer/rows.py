"""What a target is shown: pictures untouched, composed without a prompt, with the prompt, and with it as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.prompt_transfer.source_prompt import random_delta
from lightning_m2pt.prompts.pixel_prompt import Clip, Compose

UNTOUCHED, COMPOSITION, PROMPT = "untouched", "composition", "prompt"
CLIPPED, EIGHT_BITS, RANDOM = "clipped", "eight_bits", "random"
MEASURED_ROWS = (PROMPT, RANDOM)
"""Rows whose features are compared with those of pictures without the prompt."""
MEANINGS = {
    UNTOUCHED: "the pictures as they are",
    COMPOSITION: "composed as the prompt says, with a prompt of zeros",
    PROMPT: "with the prompt, clipped as in its training",
    CLIPPED: "with the prompt, clipped to 0..1",
    EIGHT_BITS: "with the prompt, clipped and rounded to 256 levels",
    RANDOM: "with normal numbers of the prompt's norm",
}


@dataclass(frozen=True)
class Row:
    """One way in which the target's pictures are shown.

    Attributes:
        name: What it is called, one of ``MEANINGS``.
        delta: (3, T, T) float32, what is put into every picture.
        clip: How the composed picture is clipped.
        same_as: Name of the row of the very same pictures, whose answers count; empty if there is none.
        seed: What a random prompt was drawn with.
    """

    name: str
    delta: Tensor
    clip: Clip
    same_as: str = ""
    seed: int | None = None

    @property
    def folder(self) -> str:
        """Name of the folder of its answers; every random prompt has one of its own."""
        return self.name if self.seed is None else f"{self.name}-{self.seed}"


def rows_of(delta: Tensor, compose: Compose, clip: Clip, border: float, random_seed: int | None) -> Sequence[Row]:
    """Returns the rows of a transfer but for the untouched model, which stands first in every table.

    Args:
        delta: (3, T, T) float32, the prompt on the target.
        compose: How it is composed.
        clip: How it was clipped in training.
        border: Width of the border as a share of the side.
        random_seed: Draws a random prompt of equal norm; None leaves that row out.
    """
    # Zeros on top of a picture are the picture, bit for bit; rounding to 256 levels may change what was resized.
    is_untouched = compose == "overlay" and clip == "none"
    rows = [
        Row(COMPOSITION, torch.zeros_like(delta), clip, UNTOUCHED if is_untouched else ""),
        Row(PROMPT, delta, clip),
        Row(CLIPPED, delta, "unit", PROMPT if clip == "unit" else ""),
        Row(EIGHT_BITS, delta, "eight_bits", PROMPT if clip == "eight_bits" else ""),
    ]
    if random_seed is not None:
        rows.append(Row(RANDOM, random_delta(delta, border, random_seed), clip, seed=random_seed))
    return rows

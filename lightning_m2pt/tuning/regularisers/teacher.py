"""What judges how much a picture looks like a text: a model with a picture's and a text's side, frozen."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.base import Backbone

LARGEST_SCALE = 100.0
"""What CLIP clamps the factor of its cosines at: e to the power of ``logit_scale``, which is at most ln 100."""


class Teacher(nn.Module, ABC):
    """Maps pictures and texts into one space, in which their cosine is the score.

    It always stays in evaluation mode, frozen; gradients reach the pictures.

    Attributes:
        kind: What it is, for people.
        where: The key it goes by in messages.
    """

    kind: ClassVar[str]
    where: ClassVar[str] = "model.regularisers: task_semantics.teacher"

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode."""
        return super().train(False)

    @abstractmethod
    def check_files(self) -> None:
        """Looks at files and sizes; loads nothing.

        Raises:
            BadInputError: If something is missing or does not fit.
        """

    @abstractmethod
    def check_texts(self, texts: Iterable[str]) -> None:
        """Looks whether it reads texts whole.

        Raises:
            BadInputError: At the first that it does not.
        """

    @abstractmethod
    def build(self) -> None:
        """Loads it on the CPU, once."""

    @abstractmethod
    def content(self) -> str:
        """Returns what names its weights and all else that decides its scores, wherever its files lie."""

    @abstractmethod
    def knows(self, backbone: Backbone) -> bool:
        """Tells whether its picture's side is the tower of a loaded backbone: then it is no other model's view."""

    @abstractmethod
    def picture_features(self, pixels: Tensor) -> Tensor:
        """Maps (I, 3, S, S) pixels, of which a real picture's are 0..1, to (I, D) of norm 1, with a gradient."""

    @abstractmethod
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Maps T texts to (T, D) of norm 1, without a gradient."""

    @abstractmethod
    def scale(self) -> float:
        """Returns the factor of its cosines that it was trained with, between 1 and 100."""

    @abstractmethod
    def held_bytes(self) -> int:
        """Returns the bytes of its weights; needs nothing loaded."""

    @abstractmethod
    def kept_bytes(self, pictures: int) -> int:
        """Returns the bytes that so many pictures keep for the backward pass."""


def resized(pixels: Tensor, side: int) -> Tensor:
    """Returns pictures (I, 3, S, S) of another side, with a gradient; of the same side they are what they were."""
    if pixels.shape[-1] == side:
        return pixels
    return nn.functional.interpolate(pixels, size=(side, side), mode="bicubic", antialias=True)


def of_norm_one(features: Tensor) -> Tensor:
    """Returns rows of norm 1 in float32 or wider."""
    return nn.functional.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)

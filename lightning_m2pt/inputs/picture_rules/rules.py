"""How a family of models turns pictures into pixels and rows: the library's own image processor makes the pixels.

How many tiles and rows a picture takes follows from its size alone, so that a data set's longest sample is known before
a picture is decoded. What arithmetic says is compared with what the library made of every picture.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID
from lightning_m2pt.inputs.images import MAXIMUM_PIXELS
from lightning_m2pt.inputs.picture_layout import PictureLayout, PreparedPicture

OF_THE_LIBRARY = ("image_processor", "tokenizer")
"""What rules hold besides numbers and texts of their own."""


class PictureRules(ABC):
    """Base class.

    Args:
        image_processor: The library's, of torchvision's backend.
    """

    def __init__(self, image_processor: Any) -> None:  # noqa: ANN401
        self.image_processor = image_processor

    varies = True
    """Whether rows and tokens depend on a picture's size."""

    @abstractmethod
    def tile_shape(self) -> tuple[int, ...]:
        """Returns the shape of what is joined along the first dimension of ``Batch.pixel_values``."""

    @abstractmethod
    def sizes(self, pictures: Sequence[tuple[int, int]]) -> list[tuple[int, ...] | None]:
        """Returns what stands in ``Batch.picture_sizes`` for the pictures of one sample, of these widths and heights.

        Raises:
            BadInputError: If the family takes no picture of such a size.
        """

    @abstractmethod
    def tiles(self, size: tuple[int, ...] | None) -> int:
        """Returns how many tiles, or patches, a picture of this ``picture_sizes`` has."""

    @abstractmethod
    def layout(self, size: tuple[int, ...] | None) -> PictureLayout:
        """Returns the tokens that stand for a picture of this ``picture_sizes``."""

    @abstractmethod
    def made(self, pictures: Sequence[Image.Image]) -> list[Tensor]:
        """Returns the library's pixels (tiles, ...) of each picture of one sample."""

    def prepared(self, pictures: Sequence[Image.Image], where: str) -> list[PreparedPicture]:
        """Returns the pictures of one sample as the model reads them.

        Raises:
            BadInputError: If the family takes no picture of such a size, or the library makes something else of one
                than arithmetic says.
        """
        sizes = self.checked_sizes([picture.size for picture in pictures], where)
        found = []
        for pixels, size, picture in zip(self.made(pictures) if pictures else [], sizes, pictures, strict=True):
            expected = (self.tiles(size), *self.tile_shape())
            if tuple(pixels.shape) != expected:
                raise BadInputError(
                    f"{type(self.image_processor).__name__} makes {list(pixels.shape)} of {picture.size} pixels",
                    where=where,
                    expected=f"{list(expected)}, as follows from the model's configuration",
                    hint="take preprocessor_config.json as it was published with the model",
                )
            found.append(PreparedPicture(pixels.to(torch.float32), size, self.layout(size)))
        return found

    def layouts(self, pictures: Sequence[tuple[int, int]], where: str) -> list[PictureLayout]:
        """Returns the tokens that stand for the pictures of one sample, of these widths and heights.

        Raises:
            BadInputError: If the family takes no picture of such a size.
        """
        return [self.layout(size) for size in self.checked_sizes(pictures, where)]

    def identity(self) -> dict[str, str]:
        """Returns all that decides layouts besides the tokenizer, as texts."""
        own = {name: repr(value) for name, value in vars(self).items() if name not in OF_THE_LIBRARY}
        return {**own, "class": type(self).__qualname__, "image_processor": self.image_processor.to_json_string()}

    def checked_sizes(self, pictures: Sequence[tuple[int, int]], where: str) -> list[tuple[int, ...] | None]:
        """Returns ``sizes``; a refusal names the record."""
        try:
            return self.sizes(pictures)
        except BadInputError as error:
            raise BadInputError(error.what, where=where, expected=error.expected, hint=error.hint) from error


def one_run(rows: int, tiles: int = 1, before: Sequence[int] = (), behind: Sequence[int] = ()) -> PictureLayout:
    """Returns the layout of a picture that is one run of rows, with tokens before and behind it."""
    return PictureLayout(numpy.array([*before, IMAGE_TOKEN_ID, *behind], numpy.int32), (rows,), tiles)


def refuse_large(width: int, height: int, made: int, why: str) -> None:
    """Refuses a picture that would become very large on its way.

    Args:
        width: Of the picture.
        height: Of the picture.
        made: Pixels that it would have.
        why: What makes it large.

    Raises:
        BadInputError: If these are more than any picture may have.
    """
    if made > MAXIMUM_PIXELS:
        raise BadInputError(
            f"a picture of {width} x {height} would have {made:,} pixels {why}",
            expected=f"at most {MAXIMUM_PIXELS:,}; this model's processor does not take so long a picture",
            hint="cut the picture, or leave it out",
        )


def size_of(settings: Mapping[str, Any] | None) -> dict[str, int]:
    """Returns the library's size of pictures without what is not set."""
    return {name: int(value) for name, value in dict(settings or {}).items() if value}

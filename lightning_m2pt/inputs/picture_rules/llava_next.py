"""LLaVA-NeXT: a small copy of every picture, then tiles of it, however many pictures a sample has."""

import math
from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor
from typing_extensions import override

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.picture_rules.llava_onevision import LlavaOnevisionTiles
from lightning_m2pt.inputs.picture_rules.rules import size_of


class LlavaNextTiles(LlavaOnevisionTiles):
    """``picture_sizes`` are tiles, height, width; no grid of patches is ever made smaller.

    Args:
        image_processor: The library's.
        image_size: Side of the square that the tower reads.
        side: Rows of patches of one tile.
        resolutions: The model's ``image_grid_pinpoints``: (height, width) of every grid of tiles.

    Raises:
        BadInputError: If the image processor makes tiles of another size, or has other resolutions.
    """

    def __init__(
        self,
        image_processor: Any,  # noqa: ANN401
        image_size: int,
        side: int,
        resolutions: Sequence[Sequence[int]],
    ) -> None:
        super().__init__(image_processor, image_size, side, resolutions, most_tiles=math.inf)

    @override
    def refuse_other_tiles(self) -> None:
        made = size_of(self.image_processor.crop_size)
        short = size_of(self.image_processor.size).get("shortest_edge")
        if (made.get("height"), made.get("width"), short) != (self.image_size,) * 3:
            raise BadInputError(
                f"tiles become {made}, and the tower reads {self.image_size} x {self.image_size}",
                expected="the tower's image_size as shortest_edge of size and as height and width of crop_size",
            )

    @override
    def sizes(self, pictures: Sequence[tuple[int, int]]) -> list[tuple[int, ...] | None]:
        return [size for picture in pictures for size in super(LlavaNextTiles, self).sizes([picture])]

    @override
    def made(self, pictures: Sequence[Image.Image]) -> list[Tensor]:
        return [pixels for picture in pictures for pixels in super(LlavaNextTiles, self).made([picture])]

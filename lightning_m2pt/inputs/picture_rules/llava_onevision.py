"""LLaVA-OneVision: a small copy of the whole picture, then tiles of it at the best of the resolutions it may have.

A sample with several pictures has one tile of each, padded to a square: that is the library's rule.
"""

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor
from typing_extensions import override

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.picture_layout import PictureLayout
from lightning_m2pt.inputs.picture_rules.rules import PictureRules, one_run, refuse_large, size_of
from lightning_m2pt.inputs.picture_rules.tiles_of_grids import TilesOfGrids


class LlavaOnevisionTiles(PictureRules):
    """``picture_sizes`` are tiles, height, width.

    Args:
        image_processor: The library's.
        image_size: Side of the square that the tower reads.
        side: Rows of patches of one tile.
        resolutions: The model's ``image_grid_pinpoints``: (height, width) of every grid of tiles.
        most_tiles: The number in the model's ``vision_aspect_ratio``; infinity where it has none.

    Raises:
        BadInputError: If the image processor makes tiles of another size, or has other resolutions.
    """

    def __init__(
        self,
        image_processor: Any,  # noqa: ANN401
        image_size: int,
        side: int,
        resolutions: Sequence[Sequence[int]],
        most_tiles: float,
    ) -> None:
        super().__init__(image_processor)
        self.image_size, self.side = image_size, side
        self.resolutions = [list(resolution) for resolution in resolutions]
        self.tiles_of_grids = TilesOfGrids(image_size, image_size // side, self.resolutions, most_tiles)
        self.refuse_other_tiles()
        if [list(resolution) for resolution in image_processor.image_grid_pinpoints] != self.resolutions:
            raise BadInputError(
                "image_grid_pinpoints of the image processor are not those of the model",
                expected="the same in preprocessor_config.json and config.json",
            )

    def refuse_other_tiles(self) -> None:
        """Compares the image processor's tiles with the tower's.

        Raises:
            BadInputError: If they have another size.
        """
        made = size_of(self.image_processor.size)
        if (made.get("height"), made.get("width")) != (self.image_size, self.image_size):
            raise BadInputError(
                f"tiles become {made}, and the tower reads {self.image_size} x {self.image_size}",
                expected="the tower's image_size as height and width of size",
            )

    @override
    def tile_shape(self) -> tuple[int, ...]:
        return 3, self.image_size, self.image_size

    @override
    def sizes(self, pictures: Sequence[tuple[int, int]]) -> list[tuple[int, ...] | None]:
        if len(pictures) != 1:
            for width, height in pictures:
                refuse_large(width, height, max(width, height) ** 2, "padded to a square")
            return [(1, height, width) for width, height in pictures]
        ((width, height),) = pictures
        rows, columns = self.grid(width, height)
        return [(1 + rows * columns, height, width)]

    @override
    def tiles(self, size: tuple[int, ...] | None) -> int:
        assert size is not None
        return size[0]

    @override
    def layout(self, size: tuple[int, ...] | None) -> PictureLayout:
        assert size is not None
        tiles, height, width = size
        if tiles == 1:
            return one_run(self.side**2 + 1)
        lines, length = self.tiles_of_grids.laid_out(width, height)
        return one_run(self.side**2 + lines * (length + 1), tiles)  # a learned row ends every line

    @override
    def made(self, pictures: Sequence[Image.Image]) -> list[Tensor]:
        several = list(pictures) if len(pictures) == 1 else [list(pictures)]
        return list(self.image_processor(images=several, return_tensors="pt")["pixel_values"])

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Returns rows and columns of a picture's tiles."""
        return self.tiles_of_grids.grid(width, height)

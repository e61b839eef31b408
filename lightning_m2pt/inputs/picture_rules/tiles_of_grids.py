"""Tiles of LLaVA-NeXT and LLaVA-OneVision: a small copy of the picture, then a grid of tiles it was padded to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lightning_m2pt.inputs.picture_map import Grid, PictureMap, boxes

SHARED_ROWS = 1.1
"""Above this many times the most tiles' rows the library shrinks a picture's rows to them."""


@dataclass(frozen=True)
class TilesOfGrids:
    """What is known of every picture of a model.

    Attributes:
        image_size: Side of a tile in pixels.
        patch_size: Side of a patch.
        resolutions: The model's ``image_grid_pinpoints``: (height, width) of every grid of tiles.
        most_tiles: The number in the model's ``vision_aspect_ratio``; infinity where it has none.
    """

    image_size: int
    patch_size: int
    resolutions: Sequence[Sequence[int]]
    most_tiles: float = math.inf

    @cached_property
    def side(self) -> int:
        """Patches of a side of a tile."""
        return self.image_size // self.patch_size

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Returns rows and columns of a picture's tiles."""
        from transformers.image_processing_utils import select_best_resolution

        tall, wide = select_best_resolution((height, width), [list(each) for each in self.resolutions])
        return tall // self.image_size, wide // self.image_size

    def unpadded(self, width: int, height: int) -> tuple[range, range]:
        """Returns the lines of patches, and the patches of a line, that are left without padding around a picture.

        As ``unpad_image`` of transformers' modeling_llava_onevision.py cuts them.
        """
        rows, columns = self.grid(width, height)
        lines, length = rows * self.side, columns * self.side
        if width / height > length / lines:
            padding = (lines - int(round(height * (length / width), 7))) // 2
            return range(lines)[padding : lines - padding], range(length)
        padding = (length - int(round(width * (lines / height), 7))) // 2
        return range(lines), range(length)[padding : length - padding]

    def laid_out(self, width: int, height: int) -> tuple[int, int]:
        """Returns lines, and rows of a line, that the grid of patches becomes, the row at a line's end not counted."""
        lines, length = (len(each) for each in self.unpadded(width, height))
        ratio = math.sqrt(lines * length / (self.most_tiles * self.side**2))
        return (int(lines // ratio), int(length // ratio)) if ratio > SHARED_ROWS else (lines, length)

    def map(self, width: int, height: int) -> PictureMap:
        """Returns where everything of a picture of several tiles lies; it is shown as large as its grid has it."""
        from transformers.image_processing_utils import get_patch_output_size
        from transformers.image_utils import ChannelDimension

        rows, columns = self.grid(width, height)
        canvas, picture = (
            (rows * self.image_size, columns * self.image_size),
            torch.empty(1, height, width, device="meta"),
        )
        tall, wide = get_patch_output_size(picture, canvas, ChannelDimension.FIRST)
        top, left = (canvas[0] - tall) // 2, (canvas[1] - wide) // 2
        patch = self.patch_size, self.patch_size
        tiles = [
            Grid(row * self.image_size - top, column * self.image_size - left, *patch, self.side, self.side)
            for row in range(rows)
            for column in range(columns)
        ]
        scale = self.patch_size / self.image_size
        small = Grid(0, 0, tall * scale, wide * scale, self.side, self.side)
        own = self._boxes(width, height) - torch.tensor([top, left, top, left])
        return PictureMap(tall, wide, (small, *tiles), torch.cat([small.cells(), own]), small_copy=0)

    def _boxes(self, width: int, height: int) -> Tensor:
        """Returns the boxes, in the padded picture, of the rows that the grid of patches becomes."""
        begins, sizes = [], []
        for places, number in zip(self.unpadded(width, height), self.laid_out(width, height), strict=True):
            numbers = torch.tensor(places, dtype=torch.float64)
            begin = numbers // self.side * self.image_size + numbers % self.side * self.patch_size
            size = float(self.patch_size)
            if number != len(places):  # the library shrinks a grid evenly
                size = float(begin[-1] + self.patch_size - begin[0]) / number
                begin = begin[0] + size * torch.arange(number, dtype=torch.float64)
            begins.append(begin)
            sizes.append(size)
        return boxes(begins[0], begins[1], sizes[0], sizes[1])

"""Where the rows that a model makes of a picture lie in it: its tiles, their patches, the language model's rows."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """Cells of one size over a rectangle of a picture, in pixels of the picture as it is shown.

    Attributes:
        top: Where the first line begins. A grid may reach beyond the picture, into padding.
        left: Where the first column begins.
        cell_height: Of every cell.
        cell_width: Of every cell.
        lines: Number of lines.
        columns: Number of cells of a line.
    """

    top: float
    left: float
    cell_height: float
    cell_width: float
    lines: int
    columns: int

    def cells(self) -> Tensor:
        """Returns (lines * columns, 4) float64, line by line: top, left, bottom and right of every cell."""
        down = self.top + self.cell_height * torch.arange(self.lines, dtype=torch.float64)
        across = self.left + self.cell_width * torch.arange(self.columns, dtype=torch.float64)
        return boxes(down, across, self.cell_height, self.cell_width)

    def joined(self, side: int) -> "Grid":
        """Returns the grid whose cells are squares of so many cells a side."""
        sizes = self.cell_height * side, self.cell_width * side
        return Grid(self.top, self.left, *sizes, self.lines // side, self.columns // side)


@dataclass(frozen=True)
class PictureMap:
    """One picture and what lies where in it.

    Attributes:
        height: Of the picture as it is shown, in pixels.
        width: As ``height``.
        tiles: What the tower reads by itself, in its order, each with its patches.
        rows: (R, 4) float64 as ``Grid.cells``: the rows of the language model that patches became, in their order.
        placeholders: How many runs of rows they are.
        small_copy: The number of the tile that is a small copy of the whole picture; None where none is.
    """

    height: int
    width: int
    tiles: tuple[Grid, ...]
    rows: Tensor
    placeholders: int = 1
    small_copy: int | None = None


def boxes(down: Tensor, across: Tensor, height: float, width: float) -> Tensor:
    """Returns (L * C, 4): the boxes of one size that begin at (L,) heights and (C,) places of a line."""
    tops, lefts = torch.meshgrid(down, across, indexing="ij")
    return torch.stack([tops, lefts, tops + height, lefts + width], dim=-1).flatten(0, 1)


def one_square(size: int, patch_size: int, joined: int = 1) -> PictureMap:
    """Returns a picture that is one square tile.

    Args:
        size: Its side in pixels; what is left of it behind the last whole patch is not read.
        patch_size: Side of a patch.
        joined: Patches of a side of what becomes one row of the language model.
    """
    side = size // patch_size
    tile = Grid(0, 0, patch_size, patch_size, side, side)
    return PictureMap(size, size, (tile,), tile.joined(joined).cells())


def assembled(picture: PictureMap, tiles: Tensor) -> Tensor:
    """Returns a picture (3, height, width) put together from its tiles (T, 3, S, S) without the small copy."""
    if len(picture.tiles) == 1:
        return tiles[0]
    found = tiles.new_zeros(tiles.shape[1], picture.height, picture.width)
    for number, (grid, pixels) in enumerate(zip(picture.tiles, tiles, strict=True)):
        if number == picture.small_copy:
            continue
        top, left, (height, width) = round(grid.top), round(grid.left), pixels.shape[-2:]
        down = slice(max(top, 0), min(top + height, picture.height))
        across = slice(max(left, 0), min(left + width, picture.width))
        found[:, down, across] = pixels[:, down.start - top : down.stop - top, across.start - left : across.stop - left]
    return found


def pixel_rows(picture: PictureMap, pixel_values: Tensor) -> int:
    """Returns how many rows of ``Batch.pixel_values`` are a picture's: its tiles, or its patches by themselves."""
    if pixel_values.dim() > 2:
        return len(picture.tiles)
    return sum(tile.lines * tile.columns for tile in picture.tiles)

"""Attention laid over a picture: what rows get, spread evenly over the places that they were made of."""

import math

import numpy
import torch
from torch import Tensor

from lightning_m2pt.inputs.picture_map import PictureMap

MOST_CELLS = 192
"""Cells along a side of a map; smaller ones would not be seen."""
ROUNDING = 1e-6


def cells_of(boxes: Tensor, picture: PictureMap) -> tuple[Tensor, int, int, float]:
    """Returns places (R, 4) in the cells of a map over a picture, how many lines and columns it has, and a cell's side.

    A cell is as large as the smallest place, so that one square of patches keeps its cells.

    Args:
        boxes: (R, 4) top, left, bottom, right in the picture's pixels; R is at least 1.
        picture: The picture.
    """
    smallest = float((boxes[:, 2:] - boxes[:, :2]).min())
    side = max(smallest, max(picture.height, picture.width) / MOST_CELLS)
    lines, columns = (max(1, math.ceil(size / side - ROUNDING)) for size in (picture.height, picture.width))
    return boxes / side, lines, columns, side


def heat_map(values: Tensor, boxes: Tensor, picture: PictureMap) -> tuple[numpy.ndarray, float]:
    """Returns a map (h, w) float32 over a picture, and the side of its cells in pixels.

    Its sum is that of the values, but for what lies beyond the picture, in its padding. Where places lie above each
    other, such as a tile and a small copy of the picture, a cell has the sum of what they have there.

    Args:
        values: (R,).
        boxes: (R, 4) where each lies.
        picture: The picture.
    """
    places, lines, columns, side = cells_of(boxes, picture)
    down = shares(places[:, 0], places[:, 2], lines)
    across = shares(places[:, 1], places[:, 3], columns)
    return torch.einsum("r,rh,rw->hw", values.double(), down, across).float().numpy(), side


def shares(first: Tensor, last: Tensor, cells: int) -> Tensor:
    """Returns (R, cells): which share of each stretch between first and last (R,) lies in each cell of length 1."""
    edges = torch.arange(cells, dtype=torch.float64)
    overlap = torch.minimum(last[:, None], edges + 1) - torch.maximum(first[:, None], edges)
    return overlap.clamp(min=0) / (last - first)[:, None]

"""Where the rows that a backbone makes of a picture lie in it, by arithmetic from the picture's size."""

import math

from torch import Tensor

from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.inputs.picture_map import PictureMap, assembled, one_square


class PictureGeometry:
    """Of a backbone that reads each picture as one square tile.

    Args:
        shape: The backbone's.
    """

    def __init__(self, shape: BackboneShape) -> None:
        self._shape = shape

    def map(self, size: tuple[int, ...] | None) -> PictureMap:
        """Returns where the rows of a picture lie.

        Args:
            size: Its ``picture_sizes``; None where all pictures are alike.
        """
        del size
        return one_square(self._shape.image_size, self._shape.patch_size, math.isqrt(self._shape.joined_patches))

    def shown(self, pixels: Tensor, size: tuple[int, ...] | None) -> Tensor:
        """Returns (3, H, W), as large as the map: one picture as the tower reads it, normalised.

        Args:
            pixels: As in ``Batch``, of this picture alone.
            size: Its ``picture_sizes``; None where all pictures are alike.
        """
        return assembled(self.map(size), pixels)

    def order_in_tower(self, picture_sizes: Tensor | None) -> Tensor | None:
        """Returns (N,) for every row of the tower's blocks its number among the patches of all pictures, line by line.

        None: blocks read tiles one beside the other, and the patches of each tile stand line by line.
        """
        del picture_sizes
        return None

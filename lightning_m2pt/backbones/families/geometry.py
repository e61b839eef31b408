"""Where the rows of a whole model's pictures lie in them: its family says so."""

from typing import Any

from torch import Tensor
from typing_extensions import override

from lightning_m2pt.backbones.families.family import Family
from lightning_m2pt.backbones.picture_geometry import PictureGeometry
from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.inputs.picture_map import PictureMap


class GeometryOfFamily(PictureGeometry):
    """Of a whole model, as its family lays pictures out.

    Args:
        family: The model's.
        config: The library's configuration of the whole model.
        shape: The backbone's.
    """

    def __init__(self, family: Family, config: Any, shape: BackboneShape) -> None:  # noqa: ANN401
        super().__init__(shape)
        self._family, self._config = family, config

    @override
    def map(self, size: tuple[int, ...] | None) -> PictureMap:
        return self._family.picture_map(self._config, size)

    @override
    def shown(self, pixels: Tensor, size: tuple[int, ...] | None) -> Tensor:
        return self._family.shown_pixels(self._config, pixels, size)

    @override
    def order_in_tower(self, picture_sizes: Tensor | None) -> Tensor | None:
        return None if picture_sizes is None else self._family.order_in_tower(self._config, picture_sizes)

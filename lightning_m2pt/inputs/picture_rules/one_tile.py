"""Towers that read one square of each picture: LLaVA-1.5 and whatever has CLIP's or SigLIP's image processor."""

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor
from typing_extensions import override

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.picture_layout import PictureLayout
from lightning_m2pt.inputs.picture_rules.rules import PictureRules, one_run, refuse_large, size_of


class OneTile(PictureRules):
    """One picture, one tile, one run of rows.

    Args:
        image_processor: The library's.
        image_size: Side of the square that the tower reads.
        rows: Rows that the square becomes behind the connector.

    Raises:
        BadInputError: If the image processor makes other squares.
    """

    varies = False

    def __init__(self, image_processor: Any, image_size: int, rows: int) -> None:  # noqa: ANN401
        super().__init__(image_processor)
        self.image_size = image_size
        self._layout = one_run(rows)
        crops = bool(getattr(image_processor, "do_center_crop", False))
        made = size_of(image_processor.crop_size if crops else image_processor.size)
        if (made.get("height"), made.get("width")) != (image_size, image_size):
            raise BadInputError(
                f"pictures become {made or 'no fixed size'}, and the tower reads {image_size} x {image_size}",
                expected="the tower's image_size as height and width of crop_size, or of size where nothing is cropped",
            )

    @override
    def tile_shape(self) -> tuple[int, ...]:
        return 3, self.image_size, self.image_size

    @override
    def sizes(self, pictures: Sequence[tuple[int, int]]) -> list[tuple[int, ...] | None]:
        pads, shortest = getattr(self.image_processor, "do_pad", False), size_of(self.image_processor.size)
        for width, height in pictures:
            short, long = sorted((width, height))
            if pads:
                refuse_large(width, height, long**2, "padded to a square")
            elif "shortest_edge" in shortest:
                edge = shortest["shortest_edge"]
                refuse_large(width, height, edge * (edge * long // short), f"with a short side of {edge}")
        return [None] * len(pictures)

    @override
    def tiles(self, size: tuple[int, ...] | None) -> int:
        return 1

    @override
    def layout(self, size: tuple[int, ...] | None) -> PictureLayout:
        return self._layout

    @override
    def made(self, pictures: Sequence[Image.Image]) -> list[Tensor]:
        return [self.image_processor(images=picture, return_tensors="pt")["pixel_values"] for picture in pictures]

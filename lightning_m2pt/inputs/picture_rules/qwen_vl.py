"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: a picture keeps about its own size and is a grid of patches of its own."""

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor
from typing_extensions import override

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.picture_layout import PictureLayout
from lightning_m2pt.inputs.picture_rules.rules import PictureRules, one_run, size_of


class QwenVlGrid(PictureRules):
    """``picture_sizes`` are the library's grid: 1, lines of patches, patches of a line.

    Args:
        image_processor: The library's.
        patch_size: Side of the tower's patches.
        temporal_patch_size: Frames of the tower's patches.
        merge_size: Side of the square of patches that becomes one row.
        around: Tokens that begin and end a picture.

    Raises:
        BadInputError: If the image processor makes other patches.
    """

    def __init__(
        self,
        image_processor: Any,  # noqa: ANN401
        patch_size: int,
        temporal_patch_size: int,
        merge_size: int,
        around: tuple[int, int],
    ) -> None:
        super().__init__(image_processor)
        self.merge_size, self.around = merge_size, around
        wanted = {"patch_size": patch_size, "temporal_patch_size": temporal_patch_size, "merge_size": merge_size}
        found = {name: getattr(image_processor, name) for name in wanted}
        if found != wanted:
            raise BadInputError(f"the image processor makes {found}", expected=f"the tower's {wanted}")
        self.patch_size = patch_size
        self.pixels = 3 * temporal_patch_size * patch_size**2
        self.bounds = size_of(image_processor.size)

    @override
    def tile_shape(self) -> tuple[int, ...]:
        return (self.pixels,)

    @override
    def sizes(self, pictures: Sequence[tuple[int, int]]) -> list[tuple[int, ...] | None]:
        return [self.grid(width, height) for width, height in pictures]

    @override
    def tiles(self, size: tuple[int, ...] | None) -> int:
        assert size is not None
        return size[1] * size[2]

    @override
    def layout(self, size: tuple[int, ...] | None) -> PictureLayout:
        begin, end = self.around
        return one_run(self.tiles(size) // self.merge_size**2, self.tiles(size), (begin,), (end,))

    @override
    def made(self, pictures: Sequence[Image.Image]) -> list[Tensor]:
        return [self.image_processor(images=[picture], return_tensors="pt")["pixel_values"] for picture in pictures]

    def grid(self, width: int, height: int) -> tuple[int, int, int]:
        """Returns the grid of patches that a picture is brought to.

        Raises:
            BadInputError: If the picture is longer than the library's rule allows.
        """
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        least, most = self.bounds["shortest_edge"], self.bounds["longest_edge"]
        try:
            tall, wide = smart_resize(height, width, self.patch_size * self.merge_size, least, most)
        except ValueError as error:
            raise BadInputError(
                f"a picture of {width} x {height} is too long: {error}",
                expected="a long side of at most 200 short ones: this model's processor takes no other",
                hint="cut the picture, or leave it out",
            ) from error
        return 1, tall // self.patch_size, wide // self.patch_size

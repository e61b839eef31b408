"""Idefics3 and SmolVLM: tiles line by line, then a small copy of the picture, each between tokens that name it."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy
from PIL import Image
from torch import Tensor
from typing_extensions import override

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID
from lightning_m2pt.inputs.picture_layout import PictureLayout
from lightning_m2pt.inputs.picture_rules.rules import PictureRules, size_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LONGEST = 4096
"""The library's own limit on a side of the picture that is cut into tiles."""
AROUND, WHOLE, RUN = "<fake_token_around_image>", "<global-img>", "<image>"


class Idefics3Tiles(PictureRules):
    """``picture_sizes`` are rows and columns of tiles; both are 0 where the picture is one tile.

    Args:
        image_processor: The library's.
        tokenizer: The model's, with the family's tokens.
        image_size: Side of the square that the tower reads.
        rows: Rows that a tile becomes behind the connector.

    Raises:
        BadInputError: If the image processor makes tiles of another size, or the tokenizer has not the family's tokens.
    """

    def __init__(
        self,
        image_processor: Any,  # noqa: ANN401
        tokenizer: "PreTrainedTokenizerFast",
        image_size: int,
        rows: int,
    ) -> None:
        super().__init__(image_processor)
        self.image_size, self.rows, self.tokenizer = image_size, rows, tokenizer
        self._layouts: dict[tuple[int, int], PictureLayout] = {}
        made, picture = size_of(image_processor.max_image_size), size_of(image_processor.size)
        if made != {"longest_edge": image_size}:
            raise BadInputError(
                f"tiles become {made}, and the tower reads {image_size} x {image_size}",
                expected="the tower's image_size as longest_edge of max_image_size",
            )
        if image_processor.do_resize and "longest_edge" not in picture and not {"height", "width"} <= set(picture):
            raise BadInputError(f"the size of pictures is {picture}", expected="longest_edge, or height and width")
        vocabulary = tokenizer.get_vocab()
        missing = [token for token in (AROUND, WHOLE, RUN) if token not in vocabulary]
        if missing:
            raise BadInputError(
                f"the tokenizer has no token {missing[0]}", expected="the tokenizer that belongs to the model"
            )

    @override
    def tile_shape(self) -> tuple[int, ...]:
        return 3, self.image_size, self.image_size

    @override
    def sizes(self, pictures: Sequence[tuple[int, int]]) -> list[tuple[int, ...] | None]:
        return [self.grid(width, height) for width, height in pictures]

    @override
    def tiles(self, size: tuple[int, ...] | None) -> int:
        assert size is not None
        return size[0] * size[1] + 1

    @override
    def layout(self, size: tuple[int, ...] | None) -> PictureLayout:
        assert size is not None
        rows, columns = size
        if (rows, columns) not in self._layouts:
            self._layouts[rows, columns] = self.laid_out(rows, columns)
        return self._layouts[rows, columns]

    @override
    def made(self, pictures: Sequence[Image.Image]) -> list[Tensor]:
        return [
            self.image_processor(images=[[picture]], return_tensors="pt")["pixel_values"][0] for picture in pictures
        ]

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Returns rows and columns of a picture's tiles, as the library's resizing steps follow on each other."""
        processor, tile = self.image_processor, self.image_size
        if not processor.do_image_splitting:
            return 0, 0
        if processor.do_resize:
            width, height = self.resized(width, height)
        proportion = width / height
        if width >= height:
            width = math.ceil(width / tile) * tile
            height = math.ceil(int(width / proportion) / tile) * tile
        else:
            height = math.ceil(height / tile) * tile
            width = math.ceil(int(height * proportion) / tile) * tile
        return (height // tile, width // tile) if max(width, height) > tile else (0, 0)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Returns the size that a picture is brought to first: its long side given, the other one even."""
        size = size_of(self.image_processor.size)
        if "longest_edge" not in size:
            return size["width"], size["height"]
        long, proportion = size["longest_edge"], width / height
        if width >= height:
            width, height = long, int(long / proportion)
            height += height % 2
        else:
            width, height = int(long * proportion), long
            width += width % 2
        width, height = max(width, 1), max(height, 1)
        if max(width, height) <= LONGEST:
            return width, height
        proportion = width / height
        if width >= height:
            return LONGEST, max(int(LONGEST / proportion), 1)
        return max(int(LONGEST * proportion), 1), LONGEST

    def laid_out(self, rows: int, columns: int) -> PictureLayout:
        """Tokenises what the library's processor writes for a picture, one ``<image>`` for every run."""
        whole = f"{AROUND}{WHOLE}{RUN}{AROUND}"
        lines = "".join(
            "".join(f"{AROUND}<row_{row + 1}_col_{column + 1}>{RUN}" for column in range(columns)) + "\n"
            for row in range(rows)
        )
        text = f"{lines}\n{whole}" if rows else whole
        ids = numpy.array(self.tokenizer(text, add_special_tokens=False)["input_ids"], numpy.int32)
        ids[ids == self.tokenizer.convert_tokens_to_ids(RUN)] = IMAGE_TOKEN_ID
        tiles = rows * columns + 1
        return PictureLayout(ids, (self.rows,) * tiles, tiles)

"""What a picture becomes before the model reads it: pixels, and where its rows go among the tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from torch import Tensor

from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID


@dataclass(frozen=True)
class PictureLayout:
    """The tokens that stand for one picture.

    Attributes:
        token_ids: (L,) int32: an ``IMAGE_TOKEN_ID`` for every run of the picture's rows, and the tokens that a family
            writes around and between them.
        rows: How many rows each run has, what a method adds not counted. Empty where every picture is one run of
            ``BackboneShape.connected_patches`` rows.
        tiles: How many tiles the tower reads of it.
    """

    token_ids: numpy.ndarray
    rows: tuple[int, ...] = ()
    tiles: int = 1

    @property
    def placeholders(self) -> int:
        """Number of runs."""
        return int((self.token_ids == IMAGE_TOKEN_ID).sum())


ONE_RUN = PictureLayout(numpy.array([IMAGE_TOKEN_ID], numpy.int32))
"""Of a tower that reads one picture of one size."""


@dataclass(frozen=True)
class RunRows:
    """What a run of a picture's rows is in the language model.

    Attributes:
        patches: Rows of a run where its layout does not say how many.
        beside: Rows that a method adds to every run.
    """

    patches: int
    beside: int = 0

    def of(self, layout: PictureLayout) -> int:
        """Returns the rows and tokens that stand for a picture."""
        rows = layout.rows or (self.patches,) * layout.placeholders
        return len(layout.token_ids) + sum(rows) + len(rows) * (self.beside - 1)


SIZES_ALONE = RunRows(1)
"""Enough to sort samples by length: where all pictures have as many rows, it does not matter how many."""


@dataclass(frozen=True)
class PreparedPicture:
    """A picture as the model reads it.

    Attributes:
        pixels: (n, ...) float32: what is joined along the first dimension with other pictures' pixels.
        size: What the family has to know of it besides its pixels; None where all pictures are alike.
        layout: The tokens that stand for it.
    """

    pixels: Tensor
    size: tuple[int, ...] | None
    layout: PictureLayout


def laid_out(ids: numpy.ndarray, spans: numpy.ndarray, layouts: Sequence[PictureLayout]) -> tuple[numpy.ndarray, ...]:
    """Puts layouts in the places of pictures.

    Args:
        ids: (T,) with one ``IMAGE_TOKEN_ID`` for every picture.
        spans: (T,).
        layouts: Of every picture.

    Returns:
        Both with every picture's tokens, which all have the span of the placeholder that they replace.

    Raises:
        ValueError: If there are more or fewer pictures than placeholders.
    """
    places = numpy.flatnonzero(ids == IMAGE_TOKEN_ID)
    if len(places) != len(layouts):
        raise ValueError(f"{len(layouts)} pictures for {len(places)} placeholders")
    if all(len(layout.token_ids) == layout.placeholders == 1 for layout in layouts):
        return ids, spans
    repeats = numpy.ones(len(ids), numpy.int64)
    repeats[places] = [len(layout.token_ids) for layout in layouts]
    laid, laid_spans = numpy.repeat(ids, repeats), numpy.repeat(spans, repeats)
    begins = repeats.cumsum() - repeats
    for place, layout in zip(places, layouts, strict=True):
        laid[begins[place] : begins[place] + len(layout.token_ids)] = layout.token_ids
    return laid, laid_spans

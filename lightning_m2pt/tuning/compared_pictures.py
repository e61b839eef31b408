"""The pictures of the self-test: what towers and whole models of the libraries make of them, and where it stands.

The decoder sees the first few rows of a picture; where positions follow from its lines and columns, all of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.connected_rows import ConnectedRows
from lightning_m2pt.inputs.batch import Batch, Span
from lightning_m2pt.inputs.picture_map import pixel_rows
from lightning_m2pt.prompts.rotary_axes import on_three_axes
from lightning_m2pt.tuning.comparison import Comparison, limits_of

PICTURE_ROWS = 3
"""Rows of a picture, besides those that all pictures have alike, that the decoder sees."""


@dataclass(frozen=True)
class ComparedPictures:
    """Invented pictures.

    Attributes:
        backbone: The backbone.
        pixels: As in ``Batch``, of all of them.
        sizes: Their ``picture_sizes``.
    """

    backbone: Backbone
    pixels: Tensor
    sizes: Tensor | None

    def compare_tower(self) -> bool:
        """Compares the rows of the tower with the library's; tells if the backbone offers a pass of its library."""
        shown = self.backbone.prompted_pixels(self.pixels)
        expected = self.backbone.library_visual_rows(shown)
        if expected is None:
            return False
        _, limit = limits_of(self.backbone)
        visual = self.backbone.visual_rows(shown)
        Comparison(self.backbone, limit).refuse_difference("the vision tower", visual.rows, expected)
        return True

    def compare_assembly(self, batch: Batch) -> bool:
        """Compares what the library's whole model makes of texts with pictures up to its decoder; tells if it can.

        Rows of pictures may differ by what rounding makes of a tower; rows of tokens and positions may not.

        Args:
            batch: Whose ``pixel_values`` are the numbers of pictures.
        """
        shown = self._shown_in(batch)
        found = None if shown is None else self.backbone.library_assembled(shown)
        if shown is None or found is None:
            return False
        rows, positions = found
        ours = self.backbone.assembled(shown)
        real = ours.spans != Span.PADDING
        exactly = Comparison(self.backbone, 0.0).refuse_difference
        exactly("the number of rows", torch.tensor(real.shape[1]), torch.tensor(rows.shape[1]))
        is_picture = ours.spans == Span.PATCH
        _, limit = limits_of(self.backbone)
        compare = Comparison(self.backbone, limit).refuse_difference
        compare("what stands for pictures", ours.embeddings[is_picture], rows[is_picture])
        exactly("what stands for tokens", ours.embeddings[real & ~is_picture], rows[real & ~is_picture])
        assert ours.positions is not None
        on_axes = on_three_axes(ours.positions.expand(3, -1, -1))
        exactly("the positions of tokens and pictures", on_axes[:, real], positions[:, real])
        return True

    def positions_in(self, batch: Batch) -> Tensor | None:
        """Returns (3, B, S) the library's positions of texts with pictures, given by number; None: rows' numbers."""
        shown = self._shown_in(batch)
        found = None if shown is None else self.backbone.library_assembled(shown)
        return None if found is None else found[1]

    @contextmanager
    def by_number(self) -> Iterator[None]:
        """Lets the backbone take rows of these pictures for those whose numbers it is given in the place of pixels."""
        pictures = self.backbone.connected_rows(self.pixels, self.sizes)
        few = max(pictures.counts)
        if pictures.within is None:
            few = self.backbone.attachment.raw_prompt_rows() + PICTURE_ROWS
        begins = [sum(pictures.counts[:number]) for number in range(len(pictures.counts))]
        kept = [slice(begin, begin + min(few, count)) for begin, count in zip(begins, pictures.counts, strict=True)]

        def rows_of(numbers: Tensor, _sizes: Tensor | None = None) -> ConnectedRows:
            chosen = [kept[number] for number in numbers.long().tolist()]

            def of(values: Tensor) -> Tensor:
                return torch.cat([values[run] for run in chosen])

            return ConnectedRows(
                of(pictures.rows),
                of(pictures.spans),
                [run.stop - run.start for run in chosen],
                None if pictures.advances is None else of(pictures.advances),
                None if pictures.within is None else of(pictures.within),
            )

        self.backbone.connected_rows = rows_of  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            del self.backbone.connected_rows

    def _shown_in(self, batch: Batch) -> Batch | None:
        """Returns a batch with pixels in the place of the numbers of pictures; None where pictures have no sizes."""
        if self.sizes is None:
            return None
        geometry, chosen = self.backbone.picture_geometry(), batch.pixel_values.long().tolist()
        maps = [geometry.map(tuple(size)) for size in self.sizes.tolist()]
        pixels = self.pixels.split([pixel_rows(each, self.pixels) for each in maps])
        shown = torch.cat([pixels[number] for number in chosen])
        return replace(batch, pixel_values=shown, picture_sizes=self.sizes[chosen])

"""The pictures of a micro-batch, and the rows that they were in the decoder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.connected_rows import ConnectedRows
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.prompts.pixel_prompt import PixelPrompt


@dataclass(frozen=True)
class SeenPictures:
    """The pictures of a micro-batch after the forward pass of the loss.

    Attributes:
        backbone: The backbone.
        batch: The micro-batch, of at least one picture.
        rows: What the decoder was given of its pictures, with a gradient.
    """

    backbone: Backbone
    batch: Batch
    rows: ConnectedRows

    @cached_property
    def counts(self) -> Tensor:
        """(B,) int64: how many pictures each sample has.

        Raises:
            BadInputError: If the batch does not say it.
        """
        counts = self.batch.picture_counts
        if len(counts) != len(self.batch) or not self.batch.step_pictures:
            raise BadInputError(
                "the batches do not say how many pictures their samples and their optimizer step have",
                where="train_dataloaders",
                expected="trainer.fit(model, data) with a data module that can be tuned on",
            )
        return torch.tensor(counts, device=self.rows.rows.device)

    @cached_property
    def patches(self) -> Tensor:
        """(R,) bool: which of the rows are patches; prompts' own rows and CLS are none."""
        return self.rows.spans == Span.PATCH

    @cached_property
    def sample_of_patch(self) -> Tensor:
        """(P,) int64: the sample that each patch row belongs to."""
        batch, device = self.batch, self.rows.rows.device
        runs = ((batch.input_ids == IMAGE_TOKEN_ID) & (batch.spans != Span.PADDING)).sum(dim=1)
        of_run = torch.arange(len(batch), device=device).repeat_interleave(runs)
        return of_run.repeat_interleave(torch.tensor(self.rows.counts, device=device))[self.patches]

    def mean_of_patches(self, values: Tensor) -> Tensor:
        """Returns (B,) the mean over each sample's patch rows; 0 of a sample without a picture.

        Args:
            values: (P,), one of each patch row.
        """
        sums = values.new_zeros(len(self.batch)).index_add(0, self.sample_of_patch, values)
        numbers = torch.bincount(self.sample_of_patch, minlength=len(self.batch))
        return sums / numbers.clamp(min=1)

    def sum_over_pictures(self, of_samples: Tensor) -> Tensor:
        """Returns the sum over all pictures of what each sample's pictures have on the average, (B,)."""
        return (of_samples * self.counts).sum()

    def pixels(self) -> Tensor:
        """Returns (I, 3, S, S) of all pictures as the tower reads them, but before normalisation.

        Raises:
            RuntimeError: If no pixel prompt is attached.
        """
        prompt = self.backbone.attachment.pixel_prompt
        if prompt is None:
            raise RuntimeError("no pixel prompt is attached")
        return unnormalised(self.backbone.prompted_pixels(self.batch.pixel_values), prompt)


def unnormalised(pixel_values: Tensor, prompt: PixelPrompt) -> Tensor:
    """Returns pictures (I, 3, S, S) in the pixels, 0..1, that a prompt's backbone normalises."""
    return pixel_values * prompt.std + prompt.mean


@contextmanager
def rows_of_pictures(backbone: Backbone) -> Iterator[list[ConnectedRows]]:
    """Notes, as long as it lasts, every answer of the backbone's ``connected_rows``: the tower need not run twice."""
    connected, noted = backbone.connected_rows, []

    def noting(pixel_values: Tensor, picture_sizes: Tensor | None = None) -> ConnectedRows:
        noted.append(connected(pixel_values, picture_sizes))
        return noted[-1]

    backbone.connected_rows = noting  # type: ignore[method-assign]
    try:
        yield noted
    finally:
        del backbone.connected_rows

"""Encoded samples of different lengths to one batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from lightning_m2pt.errors import M2PTError
from lightning_m2pt.inputs.batch import IGNORED_LABEL, Batch, Span
from lightning_m2pt.inputs.processing import EncodedText


@dataclass(frozen=True)
class EncodedSample:
    """A sample ready for batching.

    Attributes:
        text: Its tokens.
        pixel_values: (I, 3, H, W) float32, its I pictures, or (3, H, W) for a single one.
        sample_id: Its name.
        tasks: The task of each of its turns.
    """

    text: EncodedText
    pixel_values: Tensor
    sample_id: str
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Collator:
    """Pads on the right and stacks; an object and no closure, so that loader workers can be started with it.

    Attributes:
        pad_token_id: Written into ``input_ids`` where a sample is shorter than the longest one.
    """

    pad_token_id: int

    def __call__(self, samples: Sequence[EncodedSample] | M2PTError) -> Batch | M2PTError:
        """Returns the samples as one batch, or the error that came in their place."""
        if isinstance(samples, M2PTError):
            return samples
        return Batch(
            pixel_values=torch.cat(
                [sample.pixel_values.view(-1, *sample.pixel_values.shape[-3:]) for sample in samples]
            ),
            input_ids=padded([sample.text.input_ids for sample in samples], self.pad_token_id),
            labels=padded([sample.text.labels for sample in samples], IGNORED_LABEL),
            spans=padded([sample.text.spans for sample in samples], Span.PADDING),
            sample_ids=[sample.sample_id for sample in samples],
            tasks=[sample.tasks for sample in samples],
        )


def padded(rows: Sequence[numpy.ndarray], value: int) -> Tensor:
    """Returns rows of different lengths as (B, T) int64, filled up on the right with ``value``."""
    longest = max(len(row) for row in rows)
    batch = numpy.full((len(rows), longest), value, numpy.int64)
    for row, target in zip(rows, batch, strict=True):
        target[: len(row)] = row
    return torch.from_numpy(batch)

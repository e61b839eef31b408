"""Encoded samples of different lengths to one batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from lightning_m2pt.errors import M2PTError
from lightning_m2pt.inputs.batch import IGNORED_LABEL, Batch, Span
from lightning_m2pt.inputs.picture_layout import PreparedPicture, laid_out
from lightning_m2pt.inputs.processing import EncodedText, Processor
from lightning_m2pt.inputs.samples import Sample


@dataclass(frozen=True)
class EncodedSample:
    """A sample ready for batching.

    Attributes:
        text: Its tokens, those of its pictures' layouts among them.
        pixel_values: As in ``Batch``, of its I pictures.
        sample_id: Its name.
        tasks: The task of each of its turns.
        picture_sizes: (I, k) int64 as in ``Batch``; None where all pictures are alike.
        pictures: I.
        answers: The text of each turn's answer.
    """

    text: EncodedText
    pixel_values: Tensor
    sample_id: str
    tasks: tuple[str, ...]
    picture_sizes: Tensor | None = None
    pictures: int = 0
    answers: tuple[str, ...] = ()


def encoded_sample(sample: Sample, text: EncodedText, processor: Processor, where: str) -> EncodedSample:
    """Reads a sample's pictures and puts it together.

    Args:
        sample: The sample.
        text: Its tokens, one for every picture.
        processor: Prepares pictures.
        where: Named in errors.

    Raises:
        BadInputError: If a picture cannot be read.
    """
    pictures = processor.pictures(sample.images, where)
    pixels, sizes = joined_pictures(pictures, processor)
    answers = tuple(turn.answer for turn in sample.turns)
    return EncodedSample(
        with_layouts(text, pictures), pixels, sample.id, sample.tasks, sizes, len(sample.images), answers
    )


def with_layouts(text: EncodedText, pictures: Sequence[PreparedPicture]) -> EncodedText:
    """Puts the tokens of pictures in the places of their placeholders."""
    return EncodedText(*laid_out(text.input_ids, text.spans, [picture.layout for picture in pictures]))


def joined_pictures(pictures: Sequence[PreparedPicture], processor: Processor) -> tuple[Tensor, Tensor | None]:
    """Returns pixels and sizes of pictures as ``Batch`` has them."""
    sizes = [picture.size for picture in pictures if picture.size is not None]
    pixels = torch.cat([picture.pixels for picture in pictures]) if pictures else processor.no_pixels()
    return pixels, torch.tensor(sizes, dtype=torch.long) if sizes else None


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
        sizes = [sample.picture_sizes for sample in samples if sample.picture_sizes is not None]
        return Batch(
            pixel_values=torch.cat([sample.pixel_values for sample in samples]),
            input_ids=padded([sample.text.input_ids for sample in samples], self.pad_token_id),
            labels=padded([sample.text.labels for sample in samples], IGNORED_LABEL),
            spans=padded([sample.text.spans for sample in samples], Span.PADDING),
            sample_ids=[sample.sample_id for sample in samples],
            tasks=[sample.tasks for sample in samples],
            picture_sizes=torch.cat(sizes) if sizes else None,
            picture_counts=[sample.pictures for sample in samples],
            answers=[sample.answers for sample in samples],
        )


def padded(rows: Sequence[numpy.ndarray], value: int) -> Tensor:
    """Returns rows of different lengths as (B, T) int64, filled up on the right with ``value``."""
    longest = max(len(row) for row in rows)
    batch = numpy.full((len(rows), longest), value, numpy.int64)
    for row, target in zip(rows, batch, strict=True):
        target[: len(row)] = row
    return torch.from_numpy(batch)

"""How many rows samples take in the language model, their pictures included; no picture is decoded for it."""

from collections.abc import Sequence

import numpy

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.picture_layout import PictureLayout, RunRows
from lightning_m2pt.inputs.processing import EncodedText, Processor
from lightning_m2pt.inputs.samples import ImageSource, Sample


def layouts_of_samples(samples: Sequence[Sample], processor: Processor) -> list[list[PictureLayout]]:
    """Returns the layouts of every sample's pictures; each file's header is read once, where sizes matter at all.

    Raises:
        BadInputError: If a picture's size has to be known and cannot be read, or the model does not take it.
    """
    known: dict[tuple[object, ...], list[PictureLayout]] = {}
    layouts = []
    for sample in samples:
        key = tuple(key_of(image) for image in sample.images)
        if key not in known:
            known[key] = processor.layouts(sample.images, f"{sample.source}: sample {sample.id}")
        layouts.append(known[key])
    return layouts


def key_of(image: ImageSource) -> object:
    """Returns what a picture's size hangs on."""
    return image.shape if isinstance(image, numpy.ndarray) else image


def rows_of_samples(
    texts: Sequence[EncodedText], layouts: Sequence[Sequence[PictureLayout]], rows: RunRows
) -> numpy.ndarray:
    """Returns (N,) int64: the rows of every sample's text and pictures.

    Args:
        texts: Their tokens, one for every picture.
        layouts: Of every sample's pictures.
        rows: What a picture's runs become.
    """
    return numpy.array(
        [
            len(text) + sum(rows.of(layout) - 1 for layout in of_sample)
            for text, of_sample in zip(texts, layouts, strict=True)
        ],
        numpy.int64,
    )


def refuse_without_positions(samples: Sequence[Sample], rows: numpy.ndarray, maximum_rows: int) -> None:
    """Refuses samples that are longer than the language model knows positions.

    Args:
        samples: The samples.
        rows: (N,) int64: the rows of each of them.
        maximum_rows: The longest sequence that the language model knows, without prompts.

    Raises:
        BadInputError: If there are any: the longest, and how many there are.
    """
    too_long = int((rows > maximum_rows).sum())
    if too_long:
        sample, longest = samples[int(rows.argmax())], int(rows.max())
        raise BadInputError(
            f"sample {sample.id} has {longest} rows with its picture"
            + "s" * (len(sample.images) > 1)
            + f" ({too_long} samples have too many)" * (too_long > 1),
            where=sample.source,
            expected=f"at most {max(0, maximum_rows)}: the language model knows no later position",
            hint="lower data.questions_per_sample or the prompts' lengths, or take a backbone with more positions",
        )

"""Which questions are answered together: batches of whole pictures, a pure function of the questions alone.

What is answered already decides nothing about a batch, so a killed evaluation goes on with the batches it began with.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lightning_m2pt.inputs.collate import joined_pictures, with_layouts
from lightning_m2pt.inputs.picture_batch import PictureBatch, picture_batch
from lightning_m2pt.inputs.picture_layout import SIZES_ALONE, PictureLayout
from lightning_m2pt.inputs.processing import EncodedText, Processor
from lightning_m2pt.inputs.samples import ImageSource, Sample


@dataclass(frozen=True)
class AskedPicture:
    """A picture and the distinct questions about it.

    Attributes:
        image: Where the picture is.
        where: The record of the first question about it, for errors.
        texts: The distinct questions.
        names: For each the names of all questions with these words.
        rows: What stands for the picture, where pictures differ in it.
    """

    image: ImageSource
    where: str
    texts: tuple[EncodedText, ...]
    names: tuple[tuple[str, ...], ...]
    rows: int = 1

    @property
    def tokens(self) -> int:
        """Tokens of all its questions, and the picture's rows."""
        return sum(map(len, self.texts)) + self.rows


def asked_pictures(
    samples: Sequence[Sample],
    texts: Sequence[EncodedText],
    layouts: Sequence[Sequence[PictureLayout]],
    keys: Sequence[str],
) -> list[AskedPicture]:
    """Returns the distinct pictures with their distinct questions, those with the most tokens first.

    Args:
        samples: Questions about one picture each, as those of evaluation sets are.
        texts: Their tokens.
        layouts: Of each sample's one picture.
        keys: A name of each sample's picture, the same for samples that show the same one.
    """
    first: dict[str, Sample] = {}
    rows: dict[str, int] = {}
    questions: dict[str, dict[bytes, tuple[EncodedText, list[str]]]] = {}
    for sample, text, (layout,), key in zip(samples, texts, layouts, keys, strict=True):
        first.setdefault(key, sample)
        rows[key] = SIZES_ALONE.of(layout)
        of_picture = questions.setdefault(key, {})
        of_picture.setdefault(text.input_ids.tobytes(), (text, []))[1].append(sample.id)
    pictures = []
    for key, of_picture in questions.items():
        distinct = of_picture.values()
        (image,) = first[key].images
        where = f"{first[key].source}: sample {first[key].id}"
        names = tuple(tuple(names) for _, names in distinct)
        pictures.append(AskedPicture(image, where, tuple(text for text, _ in distinct), names, rows[key]))
    # Pictures with the same words behind each other: what a batch's questions begin with is computed once a picture.
    return sorted(pictures, key=lambda picture: (-picture.tokens, picture.texts[0].input_ids.tobytes()))


def planned_batches(pictures: Sequence[AskedPicture], batch_size: int) -> list[list[AskedPicture]]:
    """Puts pictures together whose distinct questions are at most ``batch_size``.

    A picture with more of them is asked about in several batches.
    """
    batches: list[list[AskedPicture]] = []
    room = 0
    for picture in pictures:
        for begin in range(0, len(picture.texts), batch_size):
            part = slice(begin, begin + batch_size)
            asked = replace(picture, texts=picture.texts[part], names=picture.names[part])
            if len(asked.texts) > room:
                batches.append([])
                room = batch_size
            batches[-1].append(asked)
            room -= len(asked.texts)
    return batches


def names_of(batch: Sequence[AskedPicture]) -> list[str]:
    """Returns the names of all questions of a batch."""
    return [name for picture in batch for names in picture.names for name in names]


def read_batch(asked: Sequence[AskedPicture], processor: Processor) -> PictureBatch:
    """Reads the pictures of a planned batch, each once, and puts it together.

    Raises:
        BadInputError: If a picture cannot be read.
    """
    pictures = [processor.pictures([picture.image], picture.where)[0] for picture in asked]
    pixels, sizes = joined_pictures(pictures, processor)
    texts = [
        [with_layouts(text, [picture]) for text in of_picture.texts]
        for of_picture, picture in zip(asked, pictures, strict=True)
    ]
    return picture_batch(pixels, texts, [of_picture.names for of_picture in asked], sizes)

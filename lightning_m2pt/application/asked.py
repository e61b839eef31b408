"""What a program asks: questions and pictures of its own, checked and put together as an evaluation's are."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy
from PIL import Image

from lightning_m2pt.answering.asked_pictures import asked_pictures, planned_batches, read_batch
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.inputs.collate import Collator, encoded_sample
from lightning_m2pt.inputs.encoded_text import EncodedText
from lightning_m2pt.inputs.images import check_image, upright_rgb
from lightning_m2pt.inputs.named_templates import Template
from lightning_m2pt.inputs.picture_batch import PictureBatch
from lightning_m2pt.inputs.picture_layout import PictureLayout, RunRows
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.samples import ImageSource, Sample, Turn
from lightning_m2pt.inputs.templates import IMAGE_MARK

Picture: TypeAlias = str | os.PathLike[str] | Image.Image | numpy.ndarray
"""What a program shows: a file's path, a picture that Pillow has opened, or (H, W, 3) uint8."""


@dataclass(frozen=True)
class AskedQuestions:
    """Questions that can be asked, in the order in which they were given.

    Attributes:
        samples: Each as a sample without an answer, named by its number.
        texts: Their tokens.
        keys: A name of each one's picture, the same where the same is shown.
        layouts: The tokens that stand for each one's picture.
    """

    samples: Sequence[Sample]
    texts: Sequence[EncodedText]
    keys: Sequence[str]
    layouts: Sequence[PictureLayout]


def asked_questions(
    questions: Sequence[tuple[Picture, str]], processor: Processor, template: Template, *, is_one: bool = False
) -> AskedQuestions:
    """Looks at questions and pictures; no picture is decoded that ends as its format does.

    Args:
        questions: Pictures and texts.
        processor: The base's.
        template: What the questions are written in.
        is_one: Whether a program has asked one question, which has no number then.

    Raises:
        BadInputError: If a text is none, or cannot be asked in this template, or there is no picture.
    """
    samples, keys, layouts = [], [], []
    known: dict[str, PictureLayout] = {}
    opened: dict[int, tuple[ImageSource, str]] = {}  # the same object is decoded and hashed once
    for number, asked in enumerate(questions):
        place = "" if is_one else f"questions[{number}]: "
        if not isinstance(asked, tuple | list) or len(asked) != 2:
            raise BadInputError(
                f"{type(asked).__name__} is no picture with its question",
                where=f"questions[{number}]",
                expected="(picture, question)",
            )
        image, text = asked
        refuse_unless_question(text, f"{place}question")
        if id(image) not in opened:
            opened[id(image)] = picture_source(image, f"{place}image")
        source, key = opened[id(image)]
        if key not in known:
            check_image(source, f"{place}image")
            processor.check_picture(source, f"{place}image")
            (known[key],) = processor.layouts([source], f"{place}image")
        samples.append(Sample(str(number), source, key, (Turn(text),), ("",), f"{place}question"))
        keys.append(key)
        layouts.append(known[key])
    texts = processor.encode_all(samples, template, with_answers=False)
    return AskedQuestions(samples, texts, keys, layouts)


def refuse_unless_question(text: object, where: str) -> None:
    """Refuses what cannot be asked.

    Raises:
        BadInputError: If it is no text, is empty, or has the mark that stands for a picture.
    """
    if not isinstance(text, str):
        raise BadInputError(f"{type(text).__name__} is no question", where=where, expected="a text")
    if not text.strip():
        raise BadInputError("the question is empty", where=where, expected="a text")
    if IMAGE_MARK in text:
        raise BadInputError(
            f"{IMAGE_MARK} stands in the question",
            where=where,
            expected="a text without it: the template says where the picture goes",
        )
    refuse_half_letters(text, where)


def refuse_unless_count(value: object, where: str) -> None:
    """Refuses what is no whole number of at least one.

    Raises:
        BadInputError: Naming the argument.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadInputError(f"{value!r:.40} is no number of them", where=where, expected="a whole number, at least 1")


def refuse_half_letters(text: str, where: str) -> None:
    """Refuses halves of letters, which no tokenizer reads; Python's texts may have them.

    Raises:
        BadInputError: If there are any.
    """
    if not text.isascii() and text.encode("utf-8", "replace") != text.encode("utf-8", "surrogatepass"):
        raise BadInputError("half a letter (a lone surrogate) stands in the text", where=where, expected="Unicode text")


def refuse_beyond_positions(asked: AskedQuestions, rows: RunRows, most_rows: int, answer_tokens: int) -> None:
    """Refuses questions that the language model has no positions for.

    Args:
        asked: The questions.
        rows: What a picture's runs become.
        most_rows: The longest sequence behind the learned rows.
        answer_tokens: The longest answer that may be given.

    Raises:
        BadInputError: If there are any: the first.
    """
    for sample, text, layout in zip(asked.samples, asked.texts, asked.layouts, strict=True):
        found, room = len(text) + rows.of(layout) - 1, most_rows - answer_tokens
        if found > room:
            raise BadInputError(
                f"the question has {found:,} rows with its picture",
                where=sample.source,
                expected=f"at most {max(0, room):,}, {answer_tokens:,} for the answer behind them: the language model "
                "knows no later position",
                hint="shorten it, or lower max_new_tokens",
            )


def batches_of(
    asked: AskedQuestions, processor: Processor, batch_size: int, by_picture: bool
) -> Iterator[Batch | PictureBatch]:
    """Yields questions in the batches of an evaluation; pictures are decoded when it is their turn.

    Args:
        asked: The questions.
        processor: The base's.
        batch_size: Questions at once.
        by_picture: Whether questions share their picture's rows.

    Raises:
        BadInputError: If a picture is damaged.
    """
    if by_picture:
        layouts = [[layout] for layout in asked.layouts]
        pictures = asked_pictures(asked.samples, asked.texts, layouts, asked.keys)
        for planned in planned_batches(pictures, batch_size):
            yield read_batch(planned, processor)
        return
    order = sorted(range(len(asked.samples)), key=lambda position: -len(asked.texts[position]))
    collate = Collator(processor.pad_token_id)
    for begin in range(0, len(order), batch_size):
        chosen = [(asked.samples[position], asked.texts[position]) for position in order[begin : begin + batch_size]]
        batch = collate([encoded_sample(sample, text, processor, sample.source) for sample, text in chosen])
        assert isinstance(batch, Batch)
        yield batch


def picture_source(image: object, where: str) -> tuple[ImageSource, str]:
    """Returns where a picture is, and a name that is the same for equal ones.

    Files are the same by their path, arrays and opened pictures by their numbers.

    Args:
        image: What a program shows.
        where: Named in errors.

    Raises:
        BadInputError: If it is none of what ``Picture`` says, or an opened picture cannot be decoded.
    """
    if isinstance(image, Image.Image):
        image = numpy.asarray(upright_rgb(image, where))
    if isinstance(image, numpy.ndarray):
        content = hashlib.sha256(repr((image.shape, image.dtype.str)).encode() + image.tobytes())
        return image, f"sha256 {content.hexdigest()}"
    if not isinstance(image, str | os.PathLike) or not isinstance(os.fspath(image), str) or "\0" in os.fspath(image):
        raise BadInputError(
            f"{type(image).__name__} is no picture",
            where=where,
            expected="a file's path, a picture of Pillow, or an array (height, width, 3) of uint8",
        )
    return Path(image), os.path.realpath(image)

"""Conversations about pictures, and questions of evaluation sets, before they are tokens."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy

from lightning_m2pt.inputs.encoded_picture import EncodedPicture

ImageSource: TypeAlias = Path | EncodedPicture | numpy.ndarray
"""A picture to open: a file, a place in another file, or an array (H, W, 3) or (H, W) of uint8 (CIFAR, MNIST)."""

SET_MARK = "::"
"""What stands between a set's name and a task's, where a mixture of sets is tuned on: ``SET::TASK``."""


@dataclass(frozen=True)
class Turn:
    """One question and its answer; the answer is empty when the model shall give it."""

    question: str
    answer: str = ""


@dataclass(frozen=True)
class Sample:
    """One conversation about one image, about several or about none, or one with an image for every question.

    Attributes:
        id: Unique within its data set.
        image: Where the picture is; None: there is no picture at all.
        image_id: Name of the picture; samples that share a picture share it. Empty where there is none.
        turns: Questions and answers, in order, without any ``<image>`` mark.
        tasks: Task of every turn, for the loss of each task.
        source: ``FILE:LINE`` or ``FILE: record N`` for error messages.
        earlier_images: The pictures of all turns but the last, one each, where these are examples about other pictures
            than ``image``. Empty: every turn is about ``image``.
        further_images: Pictures that are shown behind ``image``; not beside ``earlier_images``. The first question
            shows all of them, unless ``shown_in_turns`` says otherwise.
        system: What this conversation has in the place of the template's own system text; empty leaves that.
        shown_in_turns: How many of the pictures each of the first turns shows, where they are not all in the first.
    """

    id: str
    image: ImageSource | None
    image_id: str
    turns: tuple[Turn, ...]
    tasks: tuple[str, ...]
    source: str
    earlier_images: tuple[ImageSource, ...] = ()
    further_images: tuple[ImageSource, ...] = ()
    system: str = ""
    shown_in_turns: tuple[int, ...] = ()

    @property
    def images(self) -> tuple[ImageSource, ...]:
        """All pictures, in the order in which the conversation shows them."""
        return () if self.image is None else (*self.earlier_images, self.image, *self.further_images)

    @property
    def images_of_turns(self) -> tuple[int, ...]:
        """How many pictures each of the first turns shows; turns behind them show none."""
        if self.shown_in_turns:
            return self.shown_in_turns
        return (1,) * len(self.images) if self.earlier_images else (len(self.images),)


@dataclass(frozen=True)
class Question:
    """One question of an evaluation set.

    Attributes:
        id: Unique within its set.
        subtask: MME subtask, POPE split, or empty.
        text: The question as the model reads it.
        target: The right answer in the set's own words.
        image: Where the picture is.
        image_id: Name of the picture.
        source: ``FILE:LINE`` or ``FILE: record N`` for error messages.
        references: What several people answered, where a set has more than one accepted answer.
        choices: The options of a multiple-choice question, as they stand in its text; the target is the letter of the
            right one, A for the first.
        tolerance: How far a number may be from the target, such as ``5%`` or ``0.5``; empty where none is asked for.
    """

    id: str
    subtask: str
    text: str
    target: str
    image: ImageSource
    image_id: str
    source: str
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    tolerance: str = ""

"""What sets of pictures with a class each have in common: every picture is asked the same question."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, TypeAlias

import numpy

from data_modules.benchmark import BenchmarkDataModule, TemplateName
from lightning_m2pt.configuration.paths import FilePath
from lightning_m2pt.inputs.samples import Question

LabelledPicture: TypeAlias = tuple[str, numpy.ndarray, int]
"""Where it stands, for errors; (H, W, 3) or (H, W) uint8 pixels; the number of its class."""

MAIN_OBJECT = "What is the main object in this image?"


class LabelledPictures(BenchmarkDataModule):
    """Base class of one split of such a set.

    Args:
        root: Folder of the set's files.
        template: Name of the conversation template.
        batch_size: Questions answered at once.
        max_new_tokens: Limit on an answer's tokens.
        limit: How many pictures to take, spread evenly over the set; None takes all.
        split: ``test`` or ``train``.
        question: What is asked of every picture.
    """

    rules: tuple[str, ...] = ("closed_set",)

    def __init__(
        self,
        root: FilePath,
        template: TemplateName,
        batch_size: int = 32,
        max_new_tokens: int = 50,
        limit: int | None = None,
        split: Literal["test", "train"] = "test",
        question: str = MAIN_OBJECT,
    ) -> None:
        super().__init__(root, template, batch_size, max_new_tokens, limit)
        self.split: Literal["test", "train"] = split
        self.question = question

    def numbered(self, pictures: Iterable[LabelledPicture]) -> Iterator[tuple[str, LabelledPicture]]:
        """Yields pictures with ids: their split and their number in it, from 1."""
        for number, picture in enumerate(pictures, start=1):
            yield f"{self.split}/{number}", picture

    def asked(self, pictures: Iterable[tuple[str, LabelledPicture]], classes: Sequence[str]) -> list[Question]:
        """Returns the question about every picture.

        Args:
            pictures: Pictures with their ids.
            classes: Names of the classes by number.
        """
        return [
            Question(
                id=name,
                subtask="",
                text=self.question,
                target=classes[label],
                image=image,
                image_id=name,
                source=where,
            )
            for name, (where, image, label) in pictures
        ]

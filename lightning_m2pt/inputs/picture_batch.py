"""Questions batched by picture: every distinct picture once, its questions side by side behind it.

A row of the batch is a picture. The tokens that stand before the picture are the same for all questions and kept once.
In a picture's row stand the words that all its questions begin with, once, and behind them what is each question's own,
one question after the other: rows are padded to the longest picture, not to the longest question.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy
import torch
from torch import Tensor

from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID
from lightning_m2pt.inputs.processing import EncodedText

T = TypeVar("T")

SHARED_SEGMENT = -1
"""Segment of a row that all questions of a picture see: prompts, system text, the picture, words they begin with."""

PADDING_SEGMENT = -2
"""Segment of padding."""


@dataclass
class PictureBatch:
    """Q distinct questions about I distinct pictures.

    Attributes:
        pixel_values: (I, 3, H, W) float32, normalised for the vision tower.
        before: (T,) int64 tokens before the picture, the same for all.
        tokens: (I, M) int64 the tokens behind the picture: common ones, then those of one question after another's.
        segment_ids: (I, M) int64 the question of each token, counted within its picture; ``SHARED_SEGMENT`` for common
            ones, ``PADDING_SEGMENT`` for padding.
        places: (I, M) int64 how many tokens of its question stand between the picture and each token.
        pictures: (Q,) int64 the picture of each question.
        slots: (Q,) int64 the number of each question within its picture.
        lasts: (Q,) int64 the column of each question's last token.
        sample_ids: Names of all questions asked, those with the same picture and words included.
        question_of_sample: The number of the distinct question behind each name.
    """

    pixel_values: Tensor
    before: Tensor
    tokens: Tensor
    segment_ids: Tensor
    places: Tensor
    pictures: Tensor
    slots: Tensor
    lasts: Tensor
    sample_ids: list[str]
    question_of_sample: list[int]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "PictureBatch":
        """Returns the batch with its tensors on another device (Lightning calls this)."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=non_blocking)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)

    def of_every_name(self, values: Sequence[T]) -> list[T]:
        """Returns what belongs to each name, of what belongs to each of the Q distinct questions."""
        return [values[number] for number in self.question_of_sample]

    def __len__(self) -> int:
        """Returns the number of names."""
        return len(self.sample_ids)


def picture_batch(
    pixel_values: Tensor, texts: Sequence[Sequence[EncodedText]], names: Sequence[Sequence[Sequence[str]]]
) -> PictureBatch:
    """Lays questions side by side.

    Args:
        pixel_values: (I, 3, H, W), one for each picture.
        texts: For each picture the distinct texts of its questions, without answers.
        names: For each of them the names of the questions with these words.

    Raises:
        ValueError: If a text has another number of pictures than one, or other tokens before it than the others.
    """
    before, parts = split_at_picture([text for of_picture in texts for text in of_picture])
    of_part = iter(parts)
    rows = [common_first([next(of_part) for _ in of_picture]) for of_picture in texts]
    longest = max(sum(map(len, row)) for row in rows)
    tokens, segment_ids, places = (
        numpy.full((len(rows), longest), fill, numpy.int64) for fill in (0, PADDING_SEGMENT, 0)
    )
    questions: list[tuple[int, int, int]] = []
    for picture, (common, *own) in enumerate(rows):
        end = 0
        for slot, ids in enumerate([common, *own], start=SHARED_SEGMENT):
            begin, end = end, end + len(ids)
            first = 0 if slot == SHARED_SEGMENT else len(common)
            tokens[picture, begin:end] = ids
            segment_ids[picture, begin:end] = slot
            places[picture, begin:end] = range(first, first + len(ids))
            if slot != SHARED_SEGMENT:
                questions.append((picture, slot, end - 1))
    pictures, slots, lasts = torch.tensor(questions).unbind(1)
    of_question = [of_text for of_picture in names for of_text in of_picture]
    return PictureBatch(
        pixel_values=pixel_values,
        before=torch.from_numpy(before.astype(numpy.int64)),
        tokens=torch.from_numpy(tokens),
        segment_ids=torch.from_numpy(segment_ids),
        places=torch.from_numpy(places),
        pictures=pictures,
        slots=slots,
        lasts=lasts,
        sample_ids=[name for of_text in of_question for name in of_text],
        question_of_sample=[number for number, of_text in enumerate(of_question) for _ in of_text],
    )


def split_at_picture(texts: Sequence[EncodedText]) -> tuple[numpy.ndarray, list[numpy.ndarray]]:
    """Returns the tokens before the picture, which are the same in all texts, and those behind it in each.

    Raises:
        ValueError: If they are not the same, or a text has not exactly one picture.
    """
    before, parts = None, []
    for text in texts:
        marks = numpy.flatnonzero(text.input_ids == IMAGE_TOKEN_ID)
        if len(marks) != 1:
            raise ValueError(f"a question needs exactly one picture, not {len(marks)}")
        first = text.input_ids[: marks[0]]
        before = first if before is None else before
        if not numpy.array_equal(before, first):
            raise ValueError("the tokens before the picture differ between questions")
        parts.append(text.input_ids[marks[0] + 1 :])
    assert before is not None
    return before, parts


def common_first(parts: Sequence[numpy.ndarray]) -> list[numpy.ndarray]:
    """Returns the tokens with which all parts begin, then what is left of each: at least one token."""
    shortest = min(map(len, parts)) - 1
    stacked = numpy.stack([part[:shortest] for part in parts])
    differing = numpy.flatnonzero((stacked != stacked[0]).any(axis=0))
    common = int(differing[0]) if len(differing) else shortest
    return [parts[0][:common], *(part[common:] for part in parts)]

"""Questions batched by picture: every distinct picture once, its questions side by side behind it.

A row of the batch is a picture. The tokens that stand before the pictures are the same for all questions and kept
once. In a picture's row stand its placeholders with what stands between them and the words that all its questions begin
with, once, and behind them what is each question's own, one question after the other: rows are padded to the longest
picture, not to the longest question.
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
        pixel_values: As in ``Batch``, of the I pictures.
        before: (T,) int64 tokens before the first placeholder, the same for all.
        tokens: (I, M) int64 the tokens behind them: common ones, every ``IMAGE_TOKEN_ID`` among them, then those of
            one question after another's.
        segment_ids: (I, M) int64 the question of each token, counted within its picture; ``SHARED_SEGMENT`` for common
            ones, ``PADDING_SEGMENT`` for padding.
        places: (I, M) int64 how many tokens of its question stand between ``before`` and each token.
        pictures: (Q,) int64 the picture of each question.
        slots: (Q,) int64 the number of each question within its picture.
        lasts: (Q,) int64 the column of each question's last token.
        sample_ids: Names of all questions asked, those with the same picture and words included.
        question_of_sample: The number of the distinct question behind each name.
        picture_sizes: As in ``Batch``.
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
    picture_sizes: Tensor | None = None

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
    pixel_values: Tensor,
    texts: Sequence[Sequence[EncodedText]],
    names: Sequence[Sequence[Sequence[str]]],
    picture_sizes: Tensor | None = None,
) -> PictureBatch:
    """Lays questions side by side.

    Args:
        pixel_values: As in ``Batch``, of the I pictures.
        texts: For each picture the distinct texts of its questions, without answers, its layout put in.
        names: For each of them the names of the questions with these words.
        picture_sizes: As in ``Batch``.

    Raises:
        ValueError: If a text has no picture, or the questions of a picture differ before its last placeholder.
    """
    before, parts = split_before_pictures([text for of_picture in texts for text in of_picture])
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
        picture_sizes=picture_sizes,
    )


def split_before_pictures(texts: Sequence[EncodedText]) -> tuple[numpy.ndarray, list[numpy.ndarray]]:
    """Returns the tokens that all texts begin with, up to the first placeholder of any, and what is left of each.

    Raises:
        ValueError: If a text has no picture.
    """
    ids = [text.input_ids for text in texts]
    marks = [numpy.flatnonzero(of_text == IMAGE_TOKEN_ID) for of_text in ids]
    if not all(map(len, marks)):
        raise ValueError("a question without a picture cannot share one with others")
    alike = equal_at_front(ids, min(int(places[0]) for places in marks))
    return ids[0][:alike], [of_text[alike:] for of_text in ids]


def common_first(parts: Sequence[numpy.ndarray]) -> list[numpy.ndarray]:
    """Returns the tokens with which all parts begin, then what is left of each: at least one token.

    Raises:
        ValueError: If a placeholder is among what is left.
    """
    common = equal_at_front(parts, min(map(len, parts)) - 1)
    if any((part[common:] == IMAGE_TOKEN_ID).any() for part in parts):
        raise ValueError("questions about one picture differ before its last placeholder, or end with it")
    return [parts[0][:common], *(part[common:] for part in parts)]


def equal_at_front(parts: Sequence[numpy.ndarray], most: int) -> int:
    """Returns how many of the first ``most`` tokens are the same in all parts."""
    stacked = numpy.stack([part[:most] for part in parts])
    differing = numpy.flatnonzero((stacked != stacked[0]).any(axis=0))
    return int(differing[0]) if len(differing) else most

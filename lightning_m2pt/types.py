"""What the parts of the project hand to each other: samples, batches, named spans, model outputs."""

from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import TypeAlias

import numpy
import torch
from torch import Tensor

from lightning_m2pt.stored_image import StoredImage

IGNORED_LABEL = -100
"""Label of every position that the loss leaves out (the value torch's cross-entropy ignores by default)."""

IMAGE_TOKEN_ID = -200
"""Stands in ``input_ids`` where the image's rows go (the published code's placeholder; no tokenizer uses it)."""

ImageSource: TypeAlias = Path | StoredImage | numpy.ndarray
"""A picture to open: a file, a place in a Parquet file, or an array (H, W, 3) or (H, W) of uint8 (CIFAR, MNIST)."""


class Span(IntEnum):
    """The name of what a row of a sequence is. Every row has exactly one."""

    PADDING = 0
    TEXTUAL_PROMPT = 1
    VISUAL_PROMPT = 2
    CLS = 3
    PATCH = 4
    SYSTEM = 5
    QUESTION = 6
    ANSWER = 7
    IMAGE = 8
    """The placeholder of the whole image, before the backbone puts its rows there."""
    LEARNED_KEY = 9
    """A column of attention without a row: a learned key and value in front of a decoder layer's own."""


@dataclass(frozen=True)
class Turn:
    """One question and its answer; the answer is empty when the model shall give it."""

    question: str
    answer: str = ""


@dataclass(frozen=True)
class Sample:
    """One conversation about one image, or one with an image for every question.

    Attributes:
        id: Unique within its data set.
        image: Where the picture is.
        image_id: Name of the picture; samples that share a picture share it.
        turns: Questions and answers, in order, without any ``<image>`` mark.
        tasks: Task of every turn, for the loss of each task.
        source: ``FILE:LINE`` or ``FILE: record N`` for error messages.
        earlier_images: The pictures of all turns but the last, one each, where these are examples about other pictures
            than ``image``. Empty: every turn is about ``image``.
    """

    id: str
    image: ImageSource
    image_id: str
    turns: tuple[Turn, ...]
    tasks: tuple[str, ...]
    source: str
    earlier_images: tuple[ImageSource, ...] = ()

    @property
    def images(self) -> tuple[ImageSource, ...]:
        """All pictures, in the order in which the conversation shows them."""
        return (*self.earlier_images, self.image)


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
    """

    id: str
    subtask: str
    text: str
    target: str
    image: ImageSource
    image_id: str
    source: str
    references: tuple[str, ...] = ()


@dataclass  # not frozen: Lightning's precision plug-ins convert its tensors in place
class Batch:
    """One micro-batch, padded on the right.

    Attributes:
        pixel_values: (B I, 3, H, W) float32, normalised for the vision tower: the I pictures of every sample in turn.
        input_ids: (B, T) int64, with I times ``IMAGE_TOKEN_ID`` a row; I is 1 but for questions with examples.
        labels: (B, T) int64, ``IGNORED_LABEL`` everywhere but on answers and their end tokens.
        spans: (B, T) int64, the ``Span`` of every token.
        sample_ids: B names.
        tasks: For each of the B samples the task of every turn.
        step_supervised_tokens: Supervised tokens of the whole optimizer step this micro-batch belongs to, over all
            micro-batches and ranks; 0 outside training.
    """

    pixel_values: Tensor
    input_ids: Tensor
    labels: Tensor
    spans: Tensor
    sample_ids: list[str]
    tasks: list[tuple[str, ...]]
    step_supervised_tokens: int = 0

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """Returns the batch with its tensors on another device (Lightning calls this)."""
        return replace(
            self,
            pixel_values=self.pixel_values.to(device, non_blocking=non_blocking),
            input_ids=self.input_ids.to(device, non_blocking=non_blocking),
            labels=self.labels.to(device, non_blocking=non_blocking),
            spans=self.spans.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> "Batch":
        """Returns the batch with its tensors in page-locked memory (the loader calls this on GPU machines)."""
        return replace(
            self,
            pixel_values=self.pixel_values.pin_memory(),
            input_ids=self.input_ids.pin_memory(),
            labels=self.labels.pin_memory(),
            spans=self.spans.pin_memory(),
        )

    def __len__(self) -> int:
        """Returns the number of samples."""
        return len(self.sample_ids)


@dataclass(frozen=True)
class ModelOutput:
    """What a forward pass of a backbone returns; the rows of textual prompts are taken out again.

    Attributes:
        hidden_states: (B, S, D) after the language model's final norm, in its dtype; S rows once the image's rows
            stand in the placeholder's place.
        labels: (B, S) int64, aligned with ``hidden_states`` (not shifted).
        spans: (B, S) int64, the ``Span`` of every row.
    """

    hidden_states: Tensor
    labels: Tensor
    spans: Tensor


@dataclass(frozen=True)
class TaskLoss:
    """Sum of the loss and number of supervised tokens of one task within a batch."""

    task: str
    loss_sum: float
    tokens: int


@dataclass
class ParameterPart:
    """One named part of what a method trains, for the trainable table.

    Attributes:
        name: ``visual_prompts``, ``textual_prompts``, ``interaction``, ``lm_head``, ...
        parameters: Trained numbers.
        added: Those of them that the untouched model does not have (the others stand in for pretrained ones).
        dead: Those that can never receive a gradient, by declaration.
        dead_names: What the dead ones are.
    """

    name: str
    parameters: int
    added: int
    dead: int = 0
    dead_names: list[str] = field(default_factory=list)

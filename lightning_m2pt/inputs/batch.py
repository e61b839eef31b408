"""Micro-batches of tokens and pictures, and the names of what their rows are."""

from dataclasses import dataclass, field, replace
from enum import IntEnum

import torch
from torch import Tensor

IGNORED_LABEL = -100
"""Label of every position that the loss leaves out (the value torch's cross-entropy ignores by default)."""

IMAGE_TOKEN_ID = -200
"""Stands in ``input_ids`` where the image's rows go (the published code's placeholder; no tokenizer uses it)."""


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
    """The placeholder of a picture's rows, before the backbone puts them there; then what stands between them."""
    LEARNED_KEY = 9
    """A column of attention without a row: a learned key and value in front of a decoder layer's own."""
    LINE_END = 10
    """A learned row behind a line of a picture's patches; it lies nowhere in the picture."""


@dataclass  # not frozen: Lightning's precision plug-ins convert its tensors in place
class Batch:
    """One micro-batch, padded on the right.

    Attributes:
        pixel_values: (I, 3, H, W) float32, normalised for the vision tower: the pictures of every sample in turn, of
            one sample none, one or several. Where a picture is several tiles, or patches of its own number, those of
            all pictures are joined along the first dimension.
        input_ids: (B, T) int64, with ``IMAGE_TOKEN_ID`` where rows of a picture go. A picture may have several such
            placeholders with tokens between them.
        labels: (B, T) int64, ``IGNORED_LABEL`` everywhere but on answers and their end tokens.
        spans: (B, T) int64, the ``Span`` of every token.
        sample_ids: B names.
        tasks: For each of the B samples the task of every turn.
        step_supervised_tokens: Supervised tokens of the whole optimizer step this micro-batch belongs to, over all
            micro-batches and ranks; 0 outside training.
        picture_sizes: (I, k) int64, what a family has to know of each of the I pictures besides its pixels; None where
            all pictures are alike.
        counts: False for one that another process counts, and this one runs for nothing but the company: all have to
            run as many.
        picture_counts: How many pictures each of the B samples has; their sum is I.
        answers: For each of the B samples the text of every turn's answer.
        step_pictures: Pictures of the whole optimizer step, as ``step_supervised_tokens`` counts tokens.
    """

    pixel_values: Tensor
    input_ids: Tensor
    labels: Tensor
    spans: Tensor
    sample_ids: list[str]
    tasks: list[tuple[str, ...]]
    step_supervised_tokens: int = 0
    picture_sizes: Tensor | None = None
    counts: bool = True
    picture_counts: list[int] = field(default_factory=list)
    answers: list[tuple[str, ...]] = field(default_factory=list)
    step_pictures: int = 0

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """Returns the batch with its tensors on another device (Lightning calls this)."""
        return replace(
            self,
            pixel_values=self.pixel_values.to(device, non_blocking=non_blocking),
            input_ids=self.input_ids.to(device, non_blocking=non_blocking),
            labels=self.labels.to(device, non_blocking=non_blocking),
            spans=self.spans.to(device, non_blocking=non_blocking),
            picture_sizes=None
            if self.picture_sizes is None
            else self.picture_sizes.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> "Batch":
        """Returns the batch with its tensors in page-locked memory (the loader calls this on GPU machines)."""
        return replace(
            self,
            pixel_values=self.pixel_values.pin_memory(),
            input_ids=self.input_ids.pin_memory(),
            labels=self.labels.pin_memory(),
            spans=self.spans.pin_memory(),
            picture_sizes=None if self.picture_sizes is None else self.picture_sizes.pin_memory(),
        )

    def __len__(self) -> int:
        """Returns the number of samples."""
        return len(self.sample_ids)

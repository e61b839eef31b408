"""The conversations that prompts are scored on, with their pictures and counts of rows, and batches of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Batch
from lightning_m2pt.inputs.collate import Collator, EncodedSample, joined_pictures
from lightning_m2pt.inputs.encoded_text import EncodedText
from lightning_m2pt.inputs.picture_layout import laid_out
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.samples import Sample
from lightning_m2pt.prompt_search.prompt_texts import OpenText, PromptTexts, supervised


@dataclass(frozen=True)
class ScoredSample:
    """A conversation that prompts are scored on.

    Attributes:
        sample: The conversation.
        opened: Its tokens with those of its pictures' layouts, and the places of the prompt among them.
        pixel_values: As in ``Batch``, of its pictures.
        picture_sizes: As in ``Batch``.
        rows_for_marks: How many more rows it has in the language model than tokens.
    """

    sample: Sample
    opened: OpenText
    pixel_values: torch.Tensor
    picture_sizes: torch.Tensor | None
    rows_for_marks: int

    @property
    def tokens(self) -> int:
        """Number of supervised tokens."""
        return self.opened.text.supervised_tokens

    @property
    def head(self) -> int:
        """Tokens in front of the prompt's first place."""
        return self.opened.places[0]

    @property
    def has_pictures_in_head(self) -> bool:
        """Whether every picture stands in front of the prompt."""
        return not bool((self.opened.text.input_ids[self.head :] == IMAGE_TOKEN_ID).any())

    def rows(self, length: int) -> int:
        """Rows of the whole conversation with a prompt of a length, in the language model."""
        return len(self.opened.text) + len(self.opened.places) * length + self.rows_for_marks

    def rows_behind(self, length: int) -> int:
        """Rows from the prompt on to the one that predicts the last supervised token."""
        last = int(numpy.flatnonzero(supervised(self.opened.text))[-1])
        return last - self.head + len(self.opened.places) * length

    def encoded(self, text: EncodedText) -> EncodedSample:
        """Returns the conversation ready for batching, with a text in the place of its own."""
        return EncodedSample(text, self.pixel_values, self.sample.id, self.sample.tasks, self.picture_sizes)

    def filled(self, prompt: Sequence[int]) -> EncodedSample:
        """Returns the conversation with a prompt, ready for batching."""
        return self.encoded(self.opened.filled(tuple(prompt)))

    def front(self) -> EncodedSample:
        """Returns what stands in front of the prompt, ready for batching."""
        text = self.opened.text
        return self.encoded(EncodedText(text.input_ids[: self.head], text.spans[: self.head]))


def scored_samples(texts: PromptTexts, backbone: Backbone) -> list[ScoredSample]:
    """Reads the pictures of conversations whose places are found.

    Args:
        texts: The conversations.
        backbone: Says how many rows pictures have; its weights are not needed.

    Raises:
        BadInputError: If a picture cannot be read.
    """
    return [
        scored_sample(sample, opened, texts.processor, backbone)
        for sample, opened in zip(texts.samples, texts.opened, strict=True)
    ]


def scored_sample(sample: Sample, opened: OpenText, processor: Processor, backbone: Backbone) -> ScoredSample:
    """Reads one conversation's pictures, and moves the places of the prompt behind their layouts."""
    pictures = processor.pictures(sample.images, f"{sample.source}: sample {sample.id}")
    layouts = [picture.layout for picture in pictures]
    ids, spans = laid_out(opened.text.input_ids, opened.text.spans, layouts)
    places = []
    for place in opened.places:
        before = int((opened.text.input_ids[:place] == IMAGE_TOKEN_ID).sum())
        in_front = laid_out(opened.text.input_ids[:place], opened.text.spans[:place], layouts[:before])
        places.append(len(in_front[0]))
    pixels, sizes = joined_pictures(pictures, processor)
    marks = int((ids == IMAGE_TOKEN_ID).sum())
    rows = sum(backbone.rows_of_runs(pixels, sizes)) - marks
    laid = OpenText(EncodedText(ids, spans), tuple(places), opened.span)
    return ScoredSample(sample, laid, pixels, sizes, rows)


def batch_of(samples: Sequence[EncodedSample], processor: Processor, backbone: Backbone) -> Batch:
    """Returns conversations as one batch on the backbone's device."""
    batch = Collator(processor.pad_token_id)(samples)
    if not isinstance(batch, Batch):
        raise batch
    return batch.to(backbone.token_embedding().weight.device)

"""The questions whose attention is shown: answered, and run once more with the answer."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy
import torch
from tokenizers.decoders import ByteLevel
from torch import Tensor

from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.inputs.collate import Collator, encoded_sample
from lightning_m2pt.inputs.named_templates import Template
from lightning_m2pt.inputs.picture_map import pixel_rows
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.samples import Sample
from lightning_m2pt.inspection.attention import capture_attention
from lightning_m2pt.inspection.named_maps import SampleAttention, pictures_of_samples
from lightning_m2pt.tuning.module import TuningModule

SPACE_MARKS = {"▁": " ", "Ġ": " ", "Ċ": "⏎", "<0x0A>": "⏎", "\n": "⏎"}
"""How tokenizers write a space or a line break inside a token, and how it is shown."""
NO_CHARACTER = "\N{REPLACEMENT CHARACTER}"
NAMES = {  # of columns that are no tokens
    Span.LEARNED_KEY: "learned key",
    Span.TEXTUAL_PROMPT: "text prompt",
    Span.VISUAL_PROMPT: "visual prompt",
    Span.PATCH: "patch",
    Span.LINE_END: "line end",
}


@dataclass(frozen=True)
class InspectedQuestion:
    """One question that a model is looked at with.

    Attributes:
        set_name: Its evaluation set, or what questions of no set go by.
        id: Unique within its set.
        text: The question.
        target: The right answer; empty if nobody says it.
        template: Label of the template it is asked in.
        batch: The question alone, without an answer, as a batch of one.
        max_new_tokens: How long its answer may become.
        end_token_ids: The token that ends the answer, then others at which the model stops.
    """

    set_name: str
    id: str
    text: str
    target: str
    template: str
    batch: Batch
    max_new_tokens: int
    end_token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Side:
    """One model's answer to a question and its attention.

    Attributes:
        name: ``tuned`` or ``frozen``.
        answer: Its greedy answer.
        attention: Of the question with that answer behind it.
        tokens: The text or name of every column of the decoder's fullest layer.
        predicts: For every row from which a token of the answer was chosen, that token.
    """

    name: str
    answer: str
    attention: SampleAttention
    tokens: tuple[str, ...]
    predicts: dict[int, str]


@dataclass(frozen=True)
class ShownSample:
    """One question with both models' attention.

    Attributes:
        question: The question.
        pictures: (H, W, 3) uint8 each, exactly the pixels that the vision tower reads, tiles put together; with a pixel
            prompt those of the tuned model, clipped to what can be shown.
        sides: The tuned and the frozen model, or the frozen one alone.
    """

    question: InspectedQuestion
    pictures: tuple[numpy.ndarray, ...]
    sides: tuple[Side, ...]


def shown_sample(
    model: TuningModule, processor: Processor, question: InspectedQuestion, layers: Collection[int] | None
) -> ShownSample:
    """Answers one question with the tuned and with the frozen model and reads their attention.

    Args:
        model: It is loaded, with the method attached, in evaluation mode; it is so again afterwards.
        processor: Its tokenizer and image transform.
        question: The question.
        layers: Numbers of the layers to keep; None keeps all.
    """
    asked = replace(question, batch=question.batch.to(model.device))
    prompted = replace(asked.batch, pixel_values=model.backbone.prompted_pixels(asked.batch.pixel_values).detach())
    sides = []
    if model.method.part_names():
        sides.append(side("tuned", model.backbone, processor, asked, layers))
    model.method.detach(model.backbone)
    try:
        sides.append(side("frozen", model.backbone, processor, asked, layers))
    finally:
        model.method.attach(model.backbone)
    return ShownSample(question, pictures_of(prompted, model.backbone, processor), tuple(sides))


def question_batch(sample: Sample, template: Template, processor: Processor) -> Batch:
    """Returns one question without its answer as a batch.

    Raises:
        BadInputError: If its picture cannot be read.
    """
    text = processor.encode(sample, template, with_answers=False)
    batch = Collator(processor.pad_token_id)([encoded_sample(sample, text, processor, sample.source)])
    assert isinstance(batch, Batch)
    return batch


def side(
    name: str, backbone: Backbone, processor: Processor, question: InspectedQuestion, layers: Collection[int] | None
) -> Side:
    """Answers one question with the backbone as it is, and reads its attention."""
    batch = question.batch
    answer = greedy_answers(backbone, batch, question.max_new_tokens, *question.end_token_ids)[0].token_ids
    answered = with_answer(batch, answer)
    attention = capture_attention(backbone, answered, layers)[0]
    fullest = max(attention.language, key=lambda layer: len(layer.spans), default=None)
    spans = fullest.spans if fullest is not None else torch.empty(0, dtype=torch.int64)
    first = len(spans) - len(answer) - 1  # the last row of the question gives the answer's first token
    pieces = [token_text(processor, token) for token in [*answer, question.end_token_ids[0]]]
    return Side(
        name=name,
        answer=processor.decode(answer),
        attention=attention,
        tokens=column_names(spans, answered.input_ids[0], processor),
        predicts={first + place: piece for place, piece in enumerate(pieces) if first >= 0},
    )


def with_answer(batch: Batch, answer: Sequence[int]) -> Batch:
    """Returns a batch of one question with answer tokens behind it; nothing is supervised."""
    tokens = torch.tensor([list(answer)], dtype=torch.int64, device=batch.input_ids.device)
    return replace(
        batch,
        input_ids=torch.cat([batch.input_ids, tokens], dim=1),
        labels=torch.cat([batch.labels, torch.full_like(tokens, -100)], dim=1),
        spans=torch.cat([batch.spans, torch.full_like(tokens, int(Span.ANSWER))], dim=1),
    )


def column_names(spans: Tensor, input_ids: Tensor, processor: Processor) -> tuple[str, ...]:
    """Returns the text of every token and a numbered name for every other column.

    Args:
        spans: (S,) of all columns, prompts and image rows included.
        input_ids: (T,) the text's tokens, with ``IMAGE_TOKEN_ID`` for the image.
        processor: Knows the tokens' texts.
    """
    tokens = iter(int(token) for token in input_ids if token != IMAGE_TOKEN_ID)
    return tuple(name or token_text(processor, next(tokens)) for name in numbered_names(spans))


def numbered_names(spans: Tensor) -> tuple[str, ...]:
    """Returns for every column that is no token its name and number; an empty text for a token."""
    counts: dict[Span, int] = {}
    names = []
    for number in spans.tolist():
        span = Span(number)
        counts[span] = counts.get(span, 0) + 1
        names.append(f"{NAMES[span]} {counts[span]}" if span in NAMES else "CLS" if span == Span.CLS else "")
    return tuple(names)


def token_text(processor: Processor, token: int) -> str:
    """Returns a token as it is written in the vocabulary, with its space in front if it has one.

    A vocabulary of bytes writes each as a letter of its own: there the characters are returned that the bytes are, or
    those letters where a token is a part of a character.
    """
    text = str(processor.tokenizer.convert_ids_to_tokens(token))
    decoder = processor.tokenizer.backend_tokenizer.decoder
    if isinstance(decoder, ByteLevel) and NO_CHARACTER not in (characters := decoder.decode([text])):
        text = characters
    for mark, shown in SPACE_MARKS.items():
        text = text.replace(mark, shown)
    return text


def pictures_of(batch: Batch, backbone: Backbone, processor: Processor) -> tuple[numpy.ndarray, ...]:
    """Returns the pictures of a batch of one as the tower reads them."""
    geometry, begin, found = backbone.picture_geometry(), 0, []
    sizes = [None] * len(batch.pixel_values) if batch.picture_sizes is None else batch.picture_sizes.tolist()
    for picture, size in zip(pictures_of_samples(batch, backbone)[0], sizes, strict=False):
        rows = pixel_rows(picture, batch.pixel_values)
        own = batch.pixel_values[begin : begin + rows]
        found.append(picture_of(geometry.shown(own, None if size is None else tuple(size)), processor))
        begin += rows
    return tuple(found)


def picture_of(pixels: Tensor, processor: Processor) -> numpy.ndarray:
    """Returns normalised pixels (3, H, W) as (H, W, 3) uint8: what the tower sees, cropped and resized as it is."""
    values = (pixels.cpu().float() * processor.std + processor.mean).clamp(0, 1)
    return (values * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()

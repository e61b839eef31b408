"""The questions whose attention is shown: chosen from a run's sets, answered, and run once more with the answer."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy
import torch
from torch import Tensor

from data_modules.base import as_sample
from data_modules.benchmark import BenchmarkDataModule
from experiments.configuration.cli import Experiment
from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.inputs.collate import Collator, EncodedSample
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.samples import Question
from lightning_m2pt.inspection.attention import SampleAttention, capture_attention

QUESTIONS_BY_DEFAULT = 3
SPACE_MARKS = {"▁": " ", "Ġ": " ", "Ċ": "⏎", "<0x0A>": "⏎", "\n": "⏎"}
"""How tokenizers write a space or a line break inside a token, and how it is shown."""
PROMPT_NAMES = {
    Span.LEARNED_KEY: "learned key",
    Span.TEXTUAL_PROMPT: "text prompt",
    Span.VISUAL_PROMPT: "visual prompt",
    Span.PATCH: "patch",
}


@dataclass(frozen=True)
class Side:
    """One model's answer to a question and its attention.

    Attributes:
        name: ``tuned`` or ``frozen``.
        answer: Its greedy answer.
        attention: Of the question with that answer behind it.
        tokens: The text or name of every column of the decoder's fullest layer.
        vision_tokens: The same for the tower.
        predicts: For every row from which a token of the answer was chosen, that token.
    """

    name: str
    answer: str
    attention: SampleAttention
    tokens: tuple[str, ...]
    vision_tokens: tuple[str, ...]
    predicts: dict[int, str]


@dataclass(frozen=True)
class ShownSample:
    """One question with both models' attention.

    Attributes:
        set_name: Its evaluation set.
        question: As the set asks it.
        picture: (H, W, 3) uint8, exactly the pixels that the vision tower reads.
        sides: The tuned and the frozen model, or the frozen one alone.
    """

    set_name: str
    question: Question
    picture: numpy.ndarray
    sides: tuple[Side, ...]


def chosen_questions(
    benchmarks: Sequence[BenchmarkDataModule], names: Sequence[str]
) -> list[tuple[BenchmarkDataModule, Question]]:
    """Returns the questions that ``SET:ID`` or ``SET`` (its first few) name; without any, the first set's first few.

    Raises:
        BadInputError: If there is no such set or question; near ones are named.
    """
    by_name = {benchmark.name: benchmark for benchmark in benchmarks}
    chosen = []
    for name in names or [next(iter(by_name))]:
        set_name, has_id, question_id = name.partition(":")
        if set_name not in by_name:
            raise BadInputError(
                f"the run has no set {set_name!r:.40}", where="command line: --sample", expected=", ".join(by_name)
            )
        questions = by_name[set_name].questions()
        found = [one for one in questions if one.id == question_id] if has_id else questions[:QUESTIONS_BY_DEFAULT]
        if not found:
            examples = ", ".join(question.id for question in questions[:QUESTIONS_BY_DEFAULT])
            raise BadInputError(
                f"{set_name} has no question {question_id!r:.60}",
                where="command line: --sample",
                expected=f"SET:ID, with ids such as {examples}",
                hint=f"`m2pt data show --set {set_name}` shows pictures and questions",
            )
        chosen += [(by_name[set_name], question) for question in found]
    return chosen


def shown_sample(
    experiment: Experiment, benchmark: BenchmarkDataModule, question: Question, layers: Collection[int] | None
) -> ShownSample:
    """Answers one question with the tuned and with the frozen model and reads their attention.

    Args:
        experiment: Its model is loaded, with the method attached, in evaluation mode; it is so again afterwards.
        benchmark: The question's set.
        question: The question.
        layers: Numbers of the layers to keep; None keeps all.
    """
    model = experiment.model
    batch = question_batch(benchmark, question).to(model.device)
    sides = []
    if model.method.part_names():
        sides.append(side("tuned", model.backbone, benchmark, batch, layers))
    model.method.detach(model.backbone)
    try:
        sides.append(side("frozen", model.backbone, benchmark, batch, layers))
    finally:
        model.method.attach(model.backbone)
    return ShownSample(benchmark.name, question, picture_of(batch.pixel_values[0], benchmark.processor), tuple(sides))


def question_batch(benchmark: BenchmarkDataModule, question: Question) -> Batch:
    """Returns one question without its answer as a batch."""
    processor, sample = benchmark.processor, as_sample(question)
    text = processor.encode(sample, benchmark.template, with_answers=False)
    encoded = EncodedSample(text, processor.image(question.image, question.source), question.id, sample.tasks)
    batch = Collator(processor.pad_token_id)([encoded])
    assert isinstance(batch, Batch)
    return batch


def side(
    name: str, backbone: Backbone, benchmark: BenchmarkDataModule, batch: Batch, layers: Collection[int] | None
) -> Side:
    """Answers a batch of one question with the backbone as it is, and reads its attention."""
    processor = benchmark.processor
    answer = greedy_answers(backbone, batch, benchmark.max_new_tokens, processor.eos_token_id)[0].token_ids
    answered = with_answer(batch, answer)
    attention = capture_attention(backbone, answered, layers)[0]
    fullest = max(attention.language, key=lambda layer: len(layer.spans), default=None)
    spans = fullest.spans if fullest is not None else torch.empty(0, dtype=torch.int64)
    vision = max(attention.vision[0], key=lambda layer: len(layer.spans), default=None)
    vision_spans = vision.spans if vision is not None else torch.empty(0, dtype=torch.int64)
    first = len(spans) - len(answer) - 1  # the last row of the question gives the answer's first token
    pieces = [token_text(processor, token) for token in [*answer, processor.eos_token_id]]
    return Side(
        name=name,
        answer=processor.decode(answer),
        attention=attention,
        tokens=column_names(spans, answered.input_ids[0], processor),
        vision_tokens=column_names(vision_spans, torch.empty(0, dtype=torch.int64), processor),
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
    counts: dict[Span, int] = {}
    names = []
    for number in spans.tolist():
        span = Span(number)
        counts[span] = counts.get(span, 0) + 1
        if span in PROMPT_NAMES:
            names.append(f"{PROMPT_NAMES[span]} {counts[span]}")
        else:
            names.append("CLS" if span == Span.CLS else token_text(processor, next(tokens)))
    return tuple(names)


def token_text(processor: Processor, token: int) -> str:
    """Returns a token as it is written in the vocabulary, with its space in front if it has one."""
    text = str(processor.tokenizer.convert_ids_to_tokens(token))
    for mark, shown in SPACE_MARKS.items():
        text = text.replace(mark, shown)
    return text


def picture_of(pixels: Tensor, processor: Processor) -> numpy.ndarray:
    """Returns normalised pixels (3, H, W) as (H, W, 3) uint8: what the tower sees, cropped and resized as it is."""
    values = (pixels.cpu().float() * processor.std + processor.mean).clamp(0, 1)
    return (values * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()

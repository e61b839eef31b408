"""Questions a second at the size of a GPU run: a loop of single questions, and shared prefixes.

Like POPE: some distinct questions about every picture, answers of one word and an end token. Both decode greedily; the
loop encodes the picture for every question.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy
import torch

from benchmarks.training import own_step
from benchmarks.training.sizes import TrainingSize
from benchmarks.training.timing import wall_seconds
from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.inputs.collate import Collator, EncodedSample
from lightning_m2pt.inputs.picture_batch import PictureBatch, picture_batch
from lightning_m2pt.inputs.processing import EncodedText

NO_END_TOKEN = -1
"""Random weights never end an answer: both ways decode to the limit."""


@dataclass(frozen=True)
class QuestionSet:
    """How many questions of which length.

    Attributes:
        pictures: Pictures in one batch of shared prefixes.
        of_picture: Distinct questions about each.
        tokens: Of a question.
        new_tokens: Of an answer.
    """

    pictures: int = 16
    of_picture: int = 6
    tokens: int = 25
    new_tokens: int = 2


def texts_of(size: TrainingSize, asked: QuestionSet) -> list[list[EncodedText]]:
    """Returns random questions about every picture, behind one system text."""
    generator = numpy.random.default_rng(0)
    system = generator.integers(3, size.vocabulary, size.system_tokens)
    spans = [Span.SYSTEM] * size.system_tokens + [Span.IMAGE] + [Span.QUESTION] * asked.tokens

    def text() -> EncodedText:
        question = generator.integers(3, size.vocabulary, asked.tokens)
        ids = numpy.concatenate([system, [IMAGE_TOKEN_ID], question]).astype(numpy.int32)
        return EncodedText(ids, numpy.array(spans, numpy.int8))

    return [[text() for _ in range(asked.of_picture)] for _ in range(asked.pictures)]


def batches_of(
    size: TrainingSize, backbone: OpenClipLlama, asked: QuestionSet, device: str
) -> tuple[list[Batch], PictureBatch]:
    """Returns every question as a batch of its own, and all of them as one batch of pictures."""
    shape = (asked.pictures, 3, size.image_size, size.image_size)
    pixels = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(backbone.dtype)
    texts = texts_of(size, asked)
    names = [[f"{picture}/{number}" for number in range(asked.of_picture)] for picture in range(asked.pictures)]
    single = []
    for picture, (of_picture, named) in enumerate(zip(texts, names, strict=True)):
        for text, name in zip(of_picture, named, strict=True):
            batch = Collator(0)([EncodedSample(text, pixels[picture : picture + 1], name, ("",))])
            assert isinstance(batch, Batch)
            single.append(batch.to(device))
    together = picture_batch(pixels, texts, [[[name] for name in named] for named in names])
    return single, together.to(device)


def evaluation_speed(
    size: TrainingSize, backbone: OpenClipLlama, device: str, repeats: int, asked: QuestionSet
) -> dict[str, Any]:
    """Returns questions per second of both ways, and how many answers differ (rounding decides near ties in bf16)."""
    method = own_step.method_of(replace(size, batch=1), backbone, lm_head=False).to(device).eval()
    method.attach(backbone)
    backbone.eval()
    single, together = batches_of(size, backbone, asked, device)
    limits = asked.new_tokens, NO_END_TOKEN

    def one_by_one() -> list[list[int]]:
        return [greedy_answers(backbone, batch, *limits)[0].token_ids for batch in single]

    def shared() -> list[list[int]]:
        return [answer.token_ids for answer in greedy_answers(backbone, together, *limits)]

    seconds = {"naive": wall_seconds(one_by_one, device, 1), "shared prefix": wall_seconds(shared, device, repeats)}
    unlike = sum(one != other for one, other in zip(one_by_one(), shared(), strict=True))
    method.detach(backbone)
    rates = {way: len(single) / spent for way, spent in seconds.items()}
    return {"asked": asdict(asked), "questions_per_second": rates, "answers_unlike": unlike, "questions": len(single)}

"""Worked examples before a question: training questions of the same set with their answers, each with its picture.

Which examples a question gets depends on its id alone, so neither on batches nor on the other questions; or on the
number of a draw, whose examples all questions have in common. They come from the set's training split. An example never
shows the question's own picture, nor is it a question of the set itself.
"""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy

from data_modules.base import as_sample, image_bytes, items_fingerprint
from data_modules.benchmark import BenchmarkDataModule
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.samples import Question, Sample, Turn

TRAINING_SPLIT = "train"


def training_questions(benchmark: BenchmarkDataModule) -> list[Question]:
    """Returns the questions of a set's training split that are none of the set's own, be they asked or left out.

    Class names stand in their targets as the set compares them: with spaces, digits perhaps as words.

    Raises:
        BadInputError: If the set has no training split, it is the one that is asked, or its files are missing.
    """
    split = getattr(benchmark, "split", None)
    if split is None or split == TRAINING_SPLIT:
        raise BadInputError(
            f"{benchmark.name} has no training split" if split is None else "the training split itself is asked",
            where="command line: --shots",
            expected="a set with a training split beside the one that is asked",
            hint="leave it out with --benchmarks, or take --shots 0",
        )
    training = copy.copy(benchmark)
    training.split = TRAINING_SPLIT  # type: ignore[attr-defined]
    own = {(question.image_id, question.text) for question in benchmark.read()}
    questions = [question for question in training.read() if (question.image_id, question.text) not in own]
    image_bytes(questions)
    if benchmark.classes:
        written = dict(zip(benchmark.classes, benchmark.candidates, strict=True))
        targets = (written.get(question.target, question.target.replace("_", " ")) for question in questions)
        return [replace(question, target=target) for question, target in zip(questions, targets, strict=True)]
    return questions


def add_examples(benchmark: BenchmarkDataModule, shots: int, draw: int | None = None) -> None:
    """Puts examples before every question of a set.

    Args:
        benchmark: Its questions are asked with examples from now on.
        shots: How many examples.
        draw: Number of the draw of examples that all questions have in common; None draws for each question.

    Raises:
        BadInputError: If there is no training split, or it is too small.
    """
    pool = training_questions(benchmark)
    benchmark.samples = [with_examples(question, pool, shots, draw) for question in benchmark.questions()]
    benchmark.examples_revision = items_fingerprint(pool)
    benchmark.examples_draw = draw


def with_examples(question: Question, pool: Sequence[Question], shots: int, draw: int | None = None) -> Sample:
    """Returns a question as a sample that begins with examples.

    Args:
        question: What is asked.
        pool: Training questions.
        shots: How many examples; every one is another picture's.
        draw: A seed that decides which, and their order; None: the question's id decides. Of a draw only a question
            whose own picture is among the examples has another one in its place.

    Raises:
        BadInputError: If the pool has fewer pictures than that.
    """
    seed = list(hashlib.sha256(question.id.encode()).digest()) if draw is None else [draw]
    order = numpy.random.default_rng(seed).permutation(len(pool))
    examples: dict[str, Question] = {}
    for position in order:
        if len(examples) == shots:
            break
        candidate = pool[position]
        if candidate.image_id != question.image_id:
            examples.setdefault(candidate.image_id, candidate)
    if len(examples) < shots:
        raise BadInputError(
            f"the training split has examples of {len(examples)} other pictures",
            where=question.source,
            expected=f"at least {shots} (--shots)",
        )
    sample = as_sample(question)
    return Sample(
        id=sample.id,
        image=sample.image,
        image_id=sample.image_id,
        turns=(*(Turn(example.text, example.target) for example in examples.values()), *sample.turns),
        tasks=(question.subtask,) * (shots + 1),
        source=sample.source,
        earlier_images=tuple(example.image for example in examples.values()),
    )

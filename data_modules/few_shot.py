"""Worked examples before a question: training questions of the same set with their answers, each with its picture.

Which examples a question gets depends on its id alone, so neither on batches nor on the other questions. They come from
the set's training split. An example never shows the question's own picture, nor is it a question that is asked.
"""

import copy
import hashlib
from collections.abc import Sequence

import numpy

from data_modules.base import as_sample, image_bytes
from data_modules.benchmark import BenchmarkDataModule
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.types import Question, Sample, Turn

TRAINING_SPLIT = "train"


def training_questions(benchmark: BenchmarkDataModule) -> list[Question]:
    """Returns the questions of a set's training split that are not asked.

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
    asked = {(question.image_id, question.text) for question in benchmark.questions()}
    questions = [question for question in training.read() if (question.image_id, question.text) not in asked]
    image_bytes(questions)
    return questions


def add_examples(benchmark: BenchmarkDataModule, shots: int, rows_per_image: int, maximum_rows: int) -> None:
    """Puts examples before every question of a connected set.

    Args:
        benchmark: Its questions are asked with examples from now on.
        shots: How many examples.
        rows_per_image: Rows that an image becomes in the language model.
        maximum_rows: The longest sequence that the language model knows, without prompts and the answer.

    Raises:
        BadInputError: If there is no training split, it is too small, or a question becomes too long.
    """
    pool = training_questions(benchmark)
    benchmark.samples = [with_examples(question, pool, shots) for question in benchmark.questions()]
    texts = benchmark.processor.encode_all(benchmark.samples, benchmark.template, with_answers=False)
    longest = max(map(len, texts)) + (shots + 1) * (rows_per_image - 1)
    if longest > maximum_rows:
        raise BadInputError(
            f"with {shots} examples a question of {benchmark.name} has {longest} rows",
            where="command line: --shots",
            expected=f"at most {maximum_rows}: the language model knows no later position",
            hint=f"take --shots {max(0, maximum_rows * (shots + 1) // longest - 1)}",
        )


def with_examples(question: Question, pool: Sequence[Question], shots: int) -> Sample:
    """Returns a question as a sample that begins with examples.

    Args:
        question: What is asked.
        pool: Training questions.
        shots: How many examples; every one is another picture's.

    Raises:
        BadInputError: If the pool has fewer pictures than that.
    """
    digest = hashlib.sha256(question.id.encode()).digest()
    order = numpy.random.default_rng(list(digest)).permutation(len(pool))
    examples: dict[str, Question] = {}
    for position in order:
        candidate = pool[position]
        if len(examples) < shots and candidate.image_id != question.image_id:
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
        turns=(*(Turn(example.text, answer_text(example)) for example in examples.values()), *sample.turns),
        tasks=(question.subtask,) * (shots + 1),
        source=sample.source,
        earlier_images=tuple(example.image for example in examples.values()),
    )


def answer_text(question: Question) -> str:
    """Returns the right answer as people write it: class names with spaces."""
    return question.target.replace("_", " ")

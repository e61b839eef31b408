"""LLaVA's question files: the official questions of a set, with an instruction behind each."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data_modules.reading.files import json_records, text_field
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.mistakes import made_of_each
from lightning_m2pt.inputs.samples import Question

ADDED = ("Answer the question using a single word or phrase.", "Please answer yes or no.")
"""What LLaVA's files put behind a question, and what MME's own questions end in."""


def bare_question(text: str) -> str:
    """Returns a question without the instructions behind it, with single spaces."""
    for instruction in ADDED:
        text = text.replace(instruction, " ")
    return " ".join(text.split())


def with_texts(questions: Sequence[Question], path: Path) -> list[Question]:
    """Returns POPE's questions with the texts of LLaVA's question file.

    Args:
        questions: The official questions, each split in its own order.
        path: LLaVA's file: every split's questions in the same order, the splits in any.

    Raises:
        BadInputError: If the file has other questions: more, fewer, about other pictures, or other ones.
    """
    lines: dict[str, list[tuple[str, str, str]]] = {}
    for where, image, text, split in made_of_each(
        json_records(path),
        lambda line: (line[0], *(text_field(line[1], key, line[0]) for key in ("image", "text", "category"))),
    ):
        lines.setdefault(split, []).append((where, image, text))
    numbers = {split: len(of_split) for split, of_split in lines.items()}
    official: dict[str, int] = {}
    for question in questions:
        official[question.subtask] = official.get(question.subtask, 0) + 1
    if numbers != official:
        raise BadInputError(
            f"the file has {counted(numbers)}, and the official files have {counted(official)}",
            where=str(path),
            expected="as many of every split",
            hint="LLaVA's file is of the revision with 2,910 random questions",
        )
    asked = {split: iter(of_split) for split, of_split in lines.items()}
    return [with_text(question, *next(asked[question.subtask])) for question in questions]


def with_text(question: Question, where: str, image: str, text: str) -> Question:
    """Returns a question with another text.

    Raises:
        BadInputError: If picture or question are not those of the official one.
    """
    if image != question.image_id or bare_question(text) != bare_question(question.text):
        raise BadInputError(
            f"{image!r:.60} and {bare_question(text)!r:.80} stand where {question.id} is",
            where=where,
            expected=f"{question.image_id!r:.60} and {bare_question(question.text)!r:.80}",
        )
    return replace(question, text=text.strip())


def counted(numbers: dict[str, int]) -> str:
    """Returns how many questions every split has."""
    return ", ".join(f"{number:,} {split}" for split, number in sorted(numbers.items())) or "none"

"""Multiple choice in a form of this project's own: one JSON object a line, with options and the right one's letter.

Layout: ``<root>/{split}.jsonl`` and the pictures anywhere below ``<root>``. A line is

    {"image": "pictures/7.png", "question": "Which animal is it?", "choices": ["a cat", "a dog"], "answer": "B"}

with 2 to 26 different options and the letter of the right one, A for the first; ``"id"`` and ``"subtask"`` (texts) are
optional: an id is otherwise the split and the record's number. Other keys are left unread.

The question is asked as LLaVA's evaluations of ScienceQA and MMBench ask (``llava/eval/model_vqa_mmbench.py``): the
options on lines of their own behind their letters, then "Answer with the option's letter from the given choices
directly."

Metric: ``choice_letter`` (accuracy). With ``--answer likelihood_sum`` or ``likelihood_mean`` the letters of the
question's own options are compared, or with ``candidates: text`` their texts.
"""

import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, Literal

from data_modules.benchmark import BenchmarkDataModule, TemplateName
from data_modules.reading.files import Record, fake_image, json_records, text_field, write_image, write_text
from lightning_m2pt.configuration.paths import FilePath
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.images import resolve_inside
from lightning_m2pt.inputs.mistakes import made_of_each
from lightning_m2pt.inputs.samples import Question
from lightning_m2pt.metrics.choice_letter import MOST_CHOICES, choice_letter, letters_of

INSTRUCTION = "Answer with the option's letter from the given choices directly."


class MultipleChoice(BenchmarkDataModule):
    """Questions with options, each with options of its own.

    Args:
        root: Folder of the data set.
        template: Name of the conversation template.
        batch_size: Questions answered at once.
        max_new_tokens: Limit on an answer's tokens.
        limit: How many questions to take, spread evenly over the set; None takes all.
        split: Which file to read.
        instruction: What stands behind the options.
        candidates: What ``--answer likelihood_sum`` and ``likelihood_mean`` compare: the options' letters, or texts.
    """

    name = "multiple_choice"
    rules = ("choice_letter",)

    def __init__(
        self,
        root: FilePath,
        template: TemplateName,
        batch_size: int = 32,
        max_new_tokens: int = 20,
        limit: int | None = None,
        split: str = "test",
        instruction: str = INSTRUCTION,
        candidates: Literal["letter", "text"] = "letter",
    ) -> None:
        super().__init__(root, template, batch_size, max_new_tokens, limit)
        self.split = split
        self.instruction = instruction
        self.compares_texts = candidates == "text"

    @staticmethod
    def write_fake(root: Path) -> None:
        """Writes six invented questions about three pictures, with two to four options."""
        write_multiple_choice(root, [fake_record(number) for number in range(6)])
        for number in range(3):
            write_image(root / "images" / f"{number}.png", fake_image(number))

    def candidates_of(self, question: Question) -> tuple[str, ...]:
        """Returns the question's letters, or the texts of its options.

        Raises:
            BadInputError: If an option's text would be scored as another option's letter, or as neither.
        """
        if not self.compares_texts:
            return super().candidates_of(question)
        return option_texts(question, "candidates: letter compares letters")

    def read(self) -> list[Question]:
        """Returns the split's questions.

        Raises:
            BadInputError: If a record is wrong.
        """
        numbers = count(1)

        def question_of(place_and_record: Record) -> Question:
            where, record = place_and_record
            number = next(numbers)
            choices = choices_of(record, where)
            image = text_field(record, "image", where)
            return Question(
                id=text_field(record, "id", where) if "id" in record else f"{self.split}/{number}",
                subtask=text_field(record, "subtask", where, may_be_empty=True) if "subtask" in record else "",
                text=asked(text_field(record, "question", where), choices, self.instruction),
                target=text_field(record, "answer", where),
                image=resolve_inside(self.root, image, f"{where}: image"),
                image_id=image,
                source=where,
                choices=choices,
            )

        return made_of_each(json_records(self.root / f"{self.split}.jsonl"), question_of)


def asked(question: str, choices: Sequence[str], instruction: str) -> str:
    """Returns a question with its options behind their letters, one a line, and what to answer with."""
    options = [f"{letter}. {choice}" for letter, choice in zip(letters_of(choices), choices, strict=True)]
    return "\n".join([question.strip(), *options, *([instruction] if instruction else [])])


def choices_of(record: dict[str, Any], where: str) -> tuple[str, ...]:
    """Returns a record's options; whether they can be told apart is looked at with the questions.

    Raises:
        BadInputError: If they are no list of 2 to 26 texts.
    """
    choices = record.get("choices")
    texts = [one for one in choices if isinstance(one, str)] if isinstance(choices, list) else []
    if choices != texts or not 2 <= len(texts) <= MOST_CHOICES:
        expected = f"a list of 2 to {MOST_CHOICES} different texts"
        raise BadInputError(f"the value is {choices!r:.40}", where=f"{where}: choices", expected=expected)
    return tuple(text_field({"choices": one}, "choices", where).strip() for one in texts)


def fake_record(number: int) -> dict[str, Any]:
    """Returns an invented question, another each time."""
    choices = [f"{name} {number}" for name in ("ring", "bar", "disk", "square")[: 2 + number % 3]]
    return {
        "image": f"images/{number % 3}.png",
        "question": f"Which thing is number {number}?",
        "choices": choices,
        "answer": letters_of(choices)[number % len(choices)],
    }


def write_multiple_choice(root: Path, records: Sequence[dict[str, Any]], split: str = "test") -> None:
    """Writes records as they are read."""
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    write_text(root / f"{split}.jsonl", "".join(lines))


def option_texts(question: Question, hint: str) -> tuple[str, ...]:
    """Returns the texts of a question's options, where each of them is scored as the option that it is.

    Args:
        question: A multiple-choice question.
        hint: What to do where one is not.

    Raises:
        BadInputError: If a text would be scored as another option's letter, or as neither.
    """
    for letter, text in zip(letters_of(question.choices), question.choices, strict=True):
        if choice_letter(text, question.choices) != letter:
            raise BadInputError(
                f"the option {text!r:.40} reads as another one's letter",
                where=question.source,
                expected="options whose texts are no letters of others",
                hint=hint,
            )
    return question.choices

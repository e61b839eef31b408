"""From rows of any form to the questions of an evaluation set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

from data_modules.reading.columns import ROLES
from data_modules.reading.files import Record
from data_modules.reading.options import (
    AnswerForm,
    form_of_answers,
    letter_under,
    options_in,
    options_of_columns,
    written,
)
from data_modules.reading.picture_cells import Picture, PictureCells
from data_modules.reading.right_answers import (
    CLASS_RULES,
    FEW_ANSWERS,
    NUMBER_RULES,
    SEVERAL_RULES,
    all_answers,
    known_answer,
    most_frequent,
    one_answer,
)
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.samples import Question
from lightning_m2pt.metrics.choice_letter import letters_of
from lightning_m2pt.metrics.open_answers.tolerance import tolerance_of
from lightning_m2pt.metrics.predictions import is_encodable

CHOICE = "choice_letter"
QUESTION_ROLES: dict[str, tuple[str, ...]] = {
    "id": ROLES["id"],
    "image": ROLES["image"],
    "question": (*ROLES["question"], "text"),
    "hint": ("hint",),
    "choices": ("choices", "options"),
    "answer": (*ROLES["answer"], "gt_answer", "ground_truth", "class"),
    "answers": ("answers", "references", "captions", "caption"),
    "subtask": ("subtask", *ROLES["task"]),
    "tolerance": ("tolerance",),
}
"""What a column of an evaluation set may be, each with its usual names, the likeliest first."""
LONGEST_REFERENCE = 64
"""Letters; what is longer is a picture's text and not another row's id."""


@dataclass
class QuestionRows:
    """The rows of one file, and how they are read.

    Attributes:
        records: (``FILE:LINE`` or record, row).
        found: The column of every role that has one.
        option_columns: The columns A, B, C, ... where options stand in columns of their own.
        cells: Reads pictures.
        rule: Name of the scoring rule.
        asked: From a row's question and its options to what is put to the model.
        question: What is asked of every row; None: each row's own question.
        answer_form: How the right option is written; None finds it.
        tolerance: How far a number may be off where its row does not say.
        classes: The possible answers of a rule for classes; where none are given, all right answers there are.
        key: What the settings' names begin with, for errors.
    """

    records: Sequence[Record]
    found: Mapping[str, str]
    option_columns: Sequence[str]
    cells: PictureCells
    rule: str
    asked: Callable[[str, Sequence[str]], str]
    question: str | None
    answer_form: AnswerForm | None
    tolerance: str
    classes: Sequence[str]
    key: str
    known_classes: list[str] = field(init=False)

    def __post_init__(self) -> None:
        """Finds the classes, where the rule needs some and none are given."""
        self.known_classes = list(self.classes)
        if self.rule in CLASS_RULES and not self.classes:
            cells = ((self.right_cell(record), where) for where, record in self.records)
            self.known_classes = list(dict.fromkeys(one_answer(cell, f"{where}: answer") for cell, where in cells))

    def question_of(self, place: int) -> Question:
        """Returns the question in one of the rows.

        Raises:
            BadInputError: If the row is wrong.
        """
        where, record = self.records[place]
        options = self.options_of(record, where) if self.rule == CHOICE else ()
        target, references = self.right(place, options)
        picture = self.picture_of(record, where)
        return Question(
            id=self.text_of(record, "id", where) or str(place + 1),
            subtask=self.text_of(record, "subtask", where),
            text=self.asked(self.text_of_question(record, where), options),
            target=target,
            image=picture.image,
            image_id=picture.name,
            source=where,
            references=references,
            choices=options,
            tolerance=self.tolerance_of(record, where) if self.rule in NUMBER_RULES else "",
        )

    def cell(self, record: Mapping[str, Any], role: str) -> Any:
        """Returns what a row holds under a role; None for nothing."""
        return record.get(self.found[role]) if role in self.found else None

    def right_cell(self, record: Mapping[str, Any]) -> Any:
        """Returns what a row says is right: all answers where the rule takes several and a column has them."""
        first, second = ("answers", "answer") if self.rule in SEVERAL_RULES else ("answer", "answers")
        cell = self.cell(record, first)
        return self.cell(record, second) if cell is None else cell

    def text_of(self, record: Mapping[str, Any], role: str, where: str) -> str:
        """Returns a row's text under a role, a number as text; empty for nothing.

        Raises:
            BadInputError: If it is something else.
        """
        cell = self.cell(record, role)
        text = "" if cell is None else written(cell)
        if text is None or not is_encodable(text):
            raise BadInputError(f"the value is {cell!r:.40}", where=f"{where}: {self.found[role]}", expected="a text")
        return text

    def text_of_question(self, record: Mapping[str, Any], where: str) -> str:
        """Returns what is asked: the hint, if there is one, and the question.

        Raises:
            BadInputError: If there is no question.
        """
        text = self.question if self.question is not None else self.text_of(record, "question", where)
        if not text.strip():
            raise BadInputError("the question is empty", where=where, expected="a text")
        hint = self.text_of(record, "hint", where)
        return f"{hint}\n{text.strip()}" if hint else text.strip()

    def options_of(self, record: Mapping[str, Any], where: str) -> tuple[str, ...]:
        """Returns a row's options.

        Raises:
            BadInputError: If they are none.
        """
        if self.option_columns:
            return options_of_columns([record.get(name) for name in self.option_columns], f"{where}: options")
        return options_in(self.cell(record, "choices"), f"{where}: {self.found['choices']}")

    def picture_of(self, record: Mapping[str, Any], where: str) -> Picture:
        """Returns a row's one picture; the cell may name another row that has the same.

        Raises:
            BadInputError: If there is none, or more than one.
        """
        place = f"{where}: {self.found['image']}"
        cell = self.cell(record, "image")
        shared = self.long_cells.get(str(cell)) if type(cell) in (str, int) and is_short(cell) else None
        pictures = self.cells.pictures(cell if shared is None else shared, place)
        if len(pictures) != 1:
            raise BadInputError(f"the question shows {len(pictures)} pictures", where=place, expected="one picture")
        return pictures[0]

    @cached_property
    def long_cells(self) -> dict[str, str]:
        """Pictures that are written out in a row, by the row's id."""
        ids = ((record.get(self.found.get("id", "")), self.cell(record, "image")) for _, record in self.records)
        return {str(name): cell for name, cell in ids if isinstance(cell, str) and not is_short(cell)}

    def right(self, place: int, options: Sequence[str]) -> tuple[str, tuple[str, ...]]:
        """Returns a row's target and, for rules that take several answers, all of them.

        Raises:
            BadInputError: If the row does not say, or not in the form that the rule needs.
        """
        where, record = self.records[place]
        cell, source = self.right_cell(record), f"{where}: answer"
        if self.rule in SEVERAL_RULES:
            answers = all_answers(cell, source)
            return most_frequent(answers), answers
        if self.rule == CHOICE:
            letter = letter_under(self.form, cell, options)
            if letter is None:
                expected = f"one of {', '.join(letters_of(options))}, as {self.form.replace('_', ' ')}"
                raise BadInputError(f"the right option is {cell!r:.40}", where=source, expected=expected)
            return letter, ()
        if self.rule in FEW_ANSWERS:
            return known_answer(cell, FEW_ANSWERS[self.rule], source), ()
        return (known_answer(cell, self.known_classes, source) if self.known_classes else one_answer(cell, source)), ()

    @cached_property
    def form(self) -> AnswerForm:
        """How the right options are written.

        Raises:
            BadInputError: If that is not clear.
        """
        rows = []
        for where, record in self.records:
            try:
                rows.append((self.right_cell(record), self.options_of(record, where)))
            except BadInputError:
                continue  # told where the row is read
        return form_of_answers(rows, self.answer_form, self.records[0][0].rpartition(":")[0], f"{self.key}.answer_form")

    def tolerance_of(self, record: Mapping[str, Any], where: str) -> str:
        """Returns how far a number may be from a row's right one.

        Raises:
            BadInputError: If the row says something else.
        """
        text = self.text_of(record, "tolerance", where) or self.tolerance
        tolerance_of(text, f"{where}: tolerance")
        return text


def is_short(cell: object) -> bool:
    """Tells whether a cell may be another row's id, and is no picture written out."""
    return len(str(cell)) <= LONGEST_REFERENCE


def column_names(records: Sequence[Record]) -> list[str]:
    """Returns the names of all columns that any row has, in the order in which they come up."""
    return list(dict.fromkeys(chain.from_iterable(record for _, record in records)))

"""Options of multiple-choice questions in tables of any form, and which of them a cell says is the right one."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.choice_letter import LETTERS, MOST_CHOICES, plain
from lightning_m2pt.system.strict_json import parse_json

AnswerForm: TypeAlias = Literal["letter", "index", "index_from_1", "text"]
FORMS: tuple[AnswerForm, ...] = ("letter", "index", "index_from_1", "text")
"""How a cell says which option is right: its letter, its number from 0 or from 1, or its text."""


def option_columns(names: Collection[str]) -> list[str]:
    """Returns the columns A, B, C, ... that a table has, as far as they go on without a gap; none for one alone."""
    letters = LETTERS[: next((place for place, letter in enumerate(LETTERS) if letter not in names), MOST_CHOICES)]
    return list(letters) if len(letters) > 1 else []


def options_in(cell: Any, where: str) -> tuple[str, ...]:
    """Returns the options in a cell: a list of texts, one as JSON text, or an object of them by letter.

    Args:
        cell: What the row holds.
        where: The cell, for errors.

    Raises:
        BadInputError: If they are no 2 to 26 texts.
    """
    if isinstance(cell, str):
        cell = parse_json(cell, where, first_line=0, expected="a JSON list of texts")
    if isinstance(cell, Mapping):
        return options_by_name(cell, where)
    if not isinstance(cell, list):
        raise BadInputError(f"the options are {cell!r:.40}", where=where, expected="a list of texts")
    return checked_options(cell, where)


def options_by_name(cell: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Returns the options of ``{"A": ..., "B": ...}``, or of ``{"text": [...], "label": [...]}``, by their names.

    The hub's sets like ScienceQA write the second form. Whatever the order of the file, the option called B or 2 is
    the second one; of the last ones some may be empty.

    Raises:
        BadInputError: If names are no texts, or letters or numbers with a gap: an answer would mean another option.
    """
    texts: list[Any] = list(cell.values())
    labels: Any = list(cell)
    if isinstance(cell.get("text"), list):
        texts, labels = cell["text"], cell.get("label")
        if labels is None:
            return checked_options(texts, where)
    names = [(written(label) or "").upper() for label in labels] if isinstance(labels, list) else []
    order = sorted(range(len(names)), key=lambda place: natural(names[place]))
    ordered = [names[place] for place in order]
    first = 0 if ordered[:1] == ["0"] else 1
    runs = (list(LETTERS[: len(names)]), [str(number + first) for number in range(len(names))])
    may_be_an_answer = any(name.isdecimal() or len(name) < 2 for name in names)
    if len(names) != len(texts) or (may_be_an_answer and ordered not in runs):
        raise BadInputError(
            f"the options are called {labels!r:.60}", where=where, expected="A, B, C, ... or 1, 2, 3, ... without a gap"
        )
    return options_of_columns([texts[place] for place in order], where)


def natural(name: str) -> list[tuple[int, str]]:
    """Returns what sorts names as people do: option2 before option10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,9})", name)]


def options_of_columns(cells: Sequence[Any], where: str) -> tuple[str, ...]:
    """Returns the options in columns of their own; of the last ones some may be empty.

    Raises:
        BadInputError: If one between others is empty, or they are no 2 to 26 texts.
    """
    filled = [cell not in (None, "") for cell in cells]
    kept = list(cells[: len(filled) - filled[::-1].index(True)]) if any(filled) else []
    return checked_options(kept, where)


def checked_options(cells: Sequence[Any], where: str) -> tuple[str, ...]:
    """Returns options as texts; whole and other numbers are written as texts.

    Raises:
        BadInputError: If they are no 2 to 26 texts.
    """
    texts = [written(cell) for cell in cells]
    if not 2 <= len(texts) <= MOST_CHOICES or not all(texts):
        raise BadInputError(
            f"the options are {list(cells)!r:.60}",
            where=where,
            expected=f"2 to {MOST_CHOICES} texts that are not empty",
        )
    return tuple(text for text in texts if text is not None)


def written(cell: Any) -> str | None:
    """Returns a cell's text without outer white space, a number as text; None for anything else."""
    if isinstance(cell, str):
        return cell.strip()
    return str(cell) if type(cell) in (int, float) else None


def letter_under(form: AnswerForm, cell: Any, options: Sequence[str]) -> str | None:
    """Returns the letter of the option that a cell names if it is written in a form; None if it is none of them.

    Args:
        form: How the cell is written.
        cell: What the row holds.
        options: The row's options.
    """
    text = written(cell)
    if text is None:
        return None
    if form == "letter":
        letter = text.strip("().").upper()
        return letter if len(letter) == 1 and letter in LETTERS[: len(options)] else None
    if form == "text":
        found = [letter for letter, option in zip(LETTERS, options, strict=False) if plain(option) == plain(text)]
        return found[0] if len(found) == 1 else None
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(MOST_CHOICES)) else -1
    place = number - (form == "index_from_1")
    return LETTERS[place] if 0 <= place < len(options) else None


def form_of_answers(
    rows: Sequence[tuple[Any, Sequence[str]]], wanted: AnswerForm | None, where: str, key: str
) -> AnswerForm:
    """Returns the one form in which all right answers of a set are written.

    Args:
        rows: Every row's cell, and its options.
        wanted: What a configuration says; None finds it.
        where: The file, for errors.
        key: The setting, for errors.

    Raises:
        BadInputError: If several forms fit and mean different options, or none fits more than others.
    """
    if wanted is not None:
        return wanted
    read = {form: [letter_under(form, cell, options) for cell, options in rows] for form in FORMS}
    fitting = [form for form in FORMS if all(read[form])]
    if len({tuple(read[form]) for form in fitting}) > 1:
        first, second = fitting[0], next(form for form in fitting if read[form] != read[fitting[0]])
        row = next(place for place in range(len(rows)) if read[first][place] != read[second][place])
        raise BadInputError(
            f"the right answers can be read as {first} and as {second}: {rows[row][0]!r:.40} is "
            f"{read[first][row]} or {read[second][row]}",
            where=where,
            expected=f"{key}: one of {', '.join(FORMS)}",
        )
    return max(FORMS, key=lambda form: sum(letter is not None for letter in read[form]))

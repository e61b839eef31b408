"""What is right, as rules for answers want it, from cells of any form."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.needs import YES_NOT_SURE_NO, YES_OR_NO
from lightning_m2pt.metrics.predictions import is_encodable
from lightning_m2pt.system.strict_json import parse_json

FEW_ANSWERS: Mapping[str, tuple[str, ...]] = {
    "yes_no_words": YES_OR_NO,
    "pope_official": YES_OR_NO,
    "pope_lmms": YES_OR_NO,
    "pope_vlmevalkit": YES_OR_NO,
    "entailment_words": YES_NOT_SURE_NO,
}
"""Rules whose answers are known."""
CLASS_RULES = ("closed_set", "has_word", "exact_ehub", "vqa_words", "vqa_normalised", "exact")
"""Rules that read one of a set's classes."""
NUMBER_RULES = ("relaxed_accuracy", "number_within")
SEVERAL_RULES = ("vqa_accuracy", "any_match", "cider", "bleu")
"""Rules that take every right answer of a question."""
TRUTH = {True: "yes", False: "no"}


def one_answer(cell: Any, where: str) -> str:
    """Returns a right answer as text; a number is written as one, and a list may hold one.

    Raises:
        BadInputError: If it is no text or number, or empty.
    """
    if isinstance(cell, list) and len(cell) == 1:
        cell = cell[0]
    if type(cell) in (int, float):
        cell = str(cell)
    if not isinstance(cell, str) or not cell.strip() or not is_encodable(cell):
        raise BadInputError(f"the right answer is {cell!r:.40}", where=where, expected="a text or a number")
    return cell.strip()


def known_answer(cell: Any, known: Sequence[str], where: str) -> str:
    """Returns which of a few answers a cell says, in any case; true and false are yes and no.

    Raises:
        BadInputError: If it says none of them.
    """
    said = TRUTH[cell] if isinstance(cell, bool) else one_answer(cell, where)
    found = [each for each in known if each == said] or [each for each in known if each.lower() == said.lower()]
    if len(found) != 1:
        raise BadInputError(
            f"the right answer is {said!r:.40}", where=where, expected=f"{' or '.join(map(str, known))}"[:200]
        )
    return found[0]


def all_answers(cell: Any, where: str) -> tuple[str, ...]:
    """Returns every right answer in a cell: a list of texts or of ``{"answer": ...}``, one as JSON text, or one text.

    Empty ones stay where there are others: somebody may have said nothing.

    Raises:
        BadInputError: If there is none, or one is no text.
    """
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        cell = parse_json(cell, where, first_line=0, expected="a JSON list of texts")
    if not isinstance(cell, list):
        return (one_answer(cell, where),)
    texts = [item.get("answer") if isinstance(item, Mapping) else item for item in cell]
    numbers_as_texts = (str(text) if type(text) in (int, float) else text for text in texts)
    known = tuple(text for text in numbers_as_texts if isinstance(text, str) and is_encodable(text))
    if len(known) != len(texts) or not any(text.strip() for text in known):
        raise BadInputError(f"the right answers are {cell!r:.60}", where=where, expected="a list of texts")
    return known


def most_frequent(answers: Sequence[str]) -> str:
    """Returns the text that occurs most often, the first of several, and an empty one only where all are."""
    return Counter([answer for answer in answers if answer.strip()] or answers).most_common(1)[0][0]

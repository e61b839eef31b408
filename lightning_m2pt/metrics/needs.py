"""What a set must have for a rule to fit it: one function a kind of rule.

Each returns the answers that can be right (targets count in any case), and raises ``BadInputError`` naming the first
question that does not fit.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.choice_letter import letters_of
from lightning_m2pt.metrics.mme import position_of
from lightning_m2pt.metrics.open_answers.caption_words import caption_words
from lightning_m2pt.metrics.open_answers.numbers import numbers_in
from lightning_m2pt.metrics.open_answers.tolerance import tolerance_of
from lightning_m2pt.metrics.rule import Header, Predictions
from lightning_m2pt.metrics.vqa import ENOUGH_PEOPLE

YES_OR_NO = ("yes", "no")
YES_NOT_SURE_NO = ("yes", "not sure", "no")
CAPTION_RULES = ("cider", "bleu")


def yes_or_no(header: Header, predictions: Predictions) -> tuple[str, ...]:
    """Asks for targets that are yes or no."""
    check_targets(predictions, YES_OR_NO)
    return YES_OR_NO


def yes_not_sure_or_no(header: Header, predictions: Predictions) -> tuple[str, ...]:
    """Asks for targets that are yes, not sure or no."""
    check_targets(predictions, YES_NOT_SURE_NO)
    return YES_NOT_SURE_NO


def mme_questions(header: Header, predictions: Predictions) -> tuple[str, ...]:
    """Asks for MME's subtasks and for targets that are yes or no; the pairs are looked for when they are scored."""
    for row in predictions:
        position_of(row["subtask"])
    return yes_or_no(header, predictions)


def classes(header: Header, predictions: Predictions) -> tuple[str, ...]:
    """Asks for a header that names classes, and for targets that are among them."""
    named = header.get("classes")
    if not isinstance(named, list) or not named or not all(isinstance(name, str) and name for name in named):
        raise BadInputError("the header names no classes", where="predictions: classes", expected="a list of texts")
    check_targets(predictions, named)
    return tuple(named)


def few_answers(header: Header, predictions: Predictions) -> tuple[str, ...]:
    """Asks for classes as above, or else for targets that are yes, no or not sure."""
    if header.get("classes"):
        return classes(header, predictions)
    said = {row["target"].lower() for row in predictions}
    return yes_or_no(header, predictions) if said <= set(YES_OR_NO) else yes_not_sure_or_no(header, predictions)


def people(header: Header, predictions: Predictions) -> tuple[str, ...]:
    """Asks for what enough people answered: with fewer no answer could be right, since one of them is left out."""
    references(header, predictions)
    for row in predictions:
        if len(row["references"]) <= ENOUGH_PEOPLE:
            raise BadInputError(
                f"the prediction {row['id']!r:.80} names {len(row['references'])} references",
                where="predictions: references",
                expected=f"what more than {ENOUGH_PEOPLE} people answered",
            )
    return ()


def references(header: Header, predictions: Predictions) -> tuple[str, ...]:
    """Asks for what people answered; any text may be right, so no answers are returned."""
    for row in predictions:
        if "references" not in row:
            raise BadInputError(
                f"the prediction {row['id']!r:.80} names no references",
                where="predictions: references",
                expected="all answers that people gave",
            )
    return ()


def captions(header: Header, predictions: Predictions) -> tuple[str, ...]:
    """Asks for references, and for a header that says that they are captions: its default is one of their rules."""
    if header.get("default_rule") not in CAPTION_RULES:
        raise BadInputError(
            "the right answers are no captions",
            where="predictions: default_rule",
            expected=f"a set that is scored by {' or '.join(CAPTION_RULES)}",
        )
    references(header, predictions)
    for row in predictions:
        if not any(map(caption_words, row["references"])):
            raise BadInputError(
                f"the right answers of {row['id']!r:.80} hold no word",
                where="predictions: references",
                expected="a caption",
            )
    return ()


def relative_tolerances(header: Header, predictions: Predictions) -> tuple[str, ...]:
    """Asks for a tolerance in percent of every target; any text may be right, so no answers are returned."""
    for row in predictions:
        if not tolerance_of(tolerance_in(row), "predictions: tolerance").is_relative:
            raise BadInputError(
                f"the tolerance of {row['id']!r:.80} is {row['tolerance']!r:.40}",
                where="predictions: tolerance",
                expected="a share of the target, such as 5%",
            )
    return ()


def numbers(header: Header, predictions: Predictions) -> tuple[str, ...]:
    """Asks for a tolerance of every target, and for one number in it; any number may be right."""
    for row in predictions:
        tolerance_of(tolerance_in(row), "predictions: tolerance")
        found = numbers_in(row["target"])
        if len(found) != 1 or not isfinite(found[0][0]):
            raise BadInputError(
                f"the target of {row['id']!r:.80} is {row['target']!r:.40}",
                where="predictions: target",
                expected="one number",
            )
    return ()


def tolerance_in(row: Mapping[str, Any]) -> str:
    """Returns how far from a prediction's target a number may be.

    Raises:
        BadInputError: If the prediction does not say.
    """
    if "tolerance" not in row:
        raise BadInputError(
            f"the prediction {row['id']!r:.80} names no tolerance",
            where="predictions: tolerance",
            expected="how far a number may be from the right one",
        )
    return str(row["tolerance"])


def choices(header: Header, predictions: Predictions) -> tuple[str, ...]:
    """Asks for options in every question, and for targets that are the letter of one of them."""
    for row in predictions:
        if "choices" not in row:
            raise BadInputError(
                f"the prediction {row['id']!r:.80} names no choices",
                where="predictions: choices",
                expected="the options of every question",
            )
        check_targets([row], letters_of(row["choices"]))
    return letters_of(max((row["choices"] for row in predictions), key=len, default=()))


def check_targets(predictions: Predictions, answers: Sequence[str]) -> None:
    """Refuses targets that no answer could be equal to.

    Raises:
        BadInputError: Naming the first.
    """
    for row in predictions:
        if row["target"] not in answers and row["target"].lower() not in answers:
            raise BadInputError(
                f"the target of {row['id']!r:.80} is {row['target']!r:.40}",
                where="predictions: target",
                expected=f"{' or '.join(answers):.200}",
            )

"""What a scoring rule is: what it needs, how it reads an answer, and what it makes of the readings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Header: TypeAlias = Mapping[str, Any]
Predictions: TypeAlias = Sequence[Mapping[str, Any]]
Parsed: TypeAlias = Sequence[str | None]
Parse: TypeAlias = Callable[[str, Sequence[str]], str | None]
Table: TypeAlias = dict[str, dict[str, float]]

SEVERAL = " | "
"""Stands between the answers that one text is accepted as, under rules that accept more than one."""


@dataclass(frozen=True)
class Summary:
    """What a rule makes of the parsed answers.

    Attributes:
        headline: Name of the one number.
        raw: That number.
        maximum: The highest it can be.
        table: Rows per subtask, split or class, and sums.
    """

    headline: str
    raw: float
    maximum: float
    table: Table


@dataclass(frozen=True)
class Sums:
    """A number that follows from sums over questions.

    Attributes:
        of_each: From predictions and parsed answers to what every question adds to each of the sums.
        number: From the sums to the number.
    """

    of_each: Callable[[Predictions, Parsed], Sequence[Sequence[float]]]
    number: Callable[[Sequence[float]], float]


@dataclass(frozen=True)
class Rule:
    """A named scoring rule.

    Attributes:
        about: One line for people who choose between rules.
        needs: From a prediction file's header and lines to the answers that can be right; none if any text can.
            Raises ``BadInputError`` for a set that the rule does not fit.
        parse: From an answer and these answers to what the answer says, or None.
        summarise: From predictions and parsed answers to the numbers.
        default_of: Names of the sets it is the default of.
        best_constant: From predictions and every answer's reading to the highest number that one answer to all
            questions would get; None tries every answer with ``summarise``.
        own_answers: From a prediction to what ``parse`` is given for it; None gives every one what ``needs`` returned.
        gives_parts: Whether an answer may get a part of a point, so that it is not just right or wrong.
        sums: How the number follows from sums over questions, where it is no mean of what each gets by itself.
        says_nothing: For a rule that reads something into any text: whether an answer says nothing. None counts the
            answers that were parsed as None.
    """

    about: str
    needs: Callable[[Header, Predictions], tuple[str, ...]]
    parse: Parse
    summarise: Callable[[Predictions, Parsed], Summary]
    default_of: tuple[str, ...] = ()
    best_constant: Callable[[Predictions, Parsed], float] | None = None
    says_nothing: Callable[[str], bool] | None = None
    own_answers: Callable[[Mapping[str, Any]], Sequence[str]] | None = None
    gives_parts: bool = False
    sums: Sums | None = None

    def read(self, predictions: Predictions, answers: Sequence[str]) -> list[str | None]:
        """Returns what every answer says.

        Args:
            predictions: A prediction file's lines.
            answers: What ``needs`` returned for them.
        """
        own = self.own_answers or (lambda _row: answers)
        return [self.parse(row["answer"], own(row)) for row in predictions]


def accepts(parsed: str | None, answer: str) -> bool:
    """Tells whether a parsed answer counts as an answer; it may count as several."""
    return parsed is not None and (parsed == answer or answer in parsed.split(SEVERAL))


def ratio(numerator: float, denominator: float) -> float:
    """Returns a quotient, and 0 where there is nothing to divide by."""
    return numerator / denominator if denominator else 0.0

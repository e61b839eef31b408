"""Scores: pure functions over a prediction file under a named rule.

| rule | default of | headline | maximum |
| --- | --- | --- | --- |
| ``mme_official`` | mme | points, summed over the subtasks present | 200 a subtask |
| ``pope_official`` | pope | mean of the splits' accuracies | 1 |
| ``yes_no_words`` | vsr | accuracy | 1 |
| ``entailment_words`` | snli_ve | accuracy | 1 |
| ``closed_set`` | cifar10, cifar100, mnist | accuracy | 1 |
| ``vqa_accuracy`` | text_vqa | mean soft accuracy over what ten people answered | 1 |

Chance is what the best constant answer would get, computed from the targets, or from all that people answered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.pope import says_neither
from lightning_m2pt.metrics.predictions import PredictionFile, check_ids, check_prediction, read_predictions
from lightning_m2pt.metrics.rules import RULES, YES_OR_NO, Predictions, Rule, Table

__all__ = ["RULES", "PredictionFile", "Score", "read_predictions", "score"]


@dataclass(frozen=True)
class Score:
    """A benchmark's result under one rule.

    Attributes:
        benchmark: Name of the set.
        rule: Name of the rule.
        headline: Name of the one number.
        value: That number in percent of its maximum.
        raw: That number as the rule gives it.
        maximum: The highest ``raw`` can be.
        chance: What the best constant answer would get, in percent of the maximum.
        n: Number of questions.
        unparsed: Answers the rule could not read; for ``pope_official`` those that count as yes without saying it.
        yes_ratio: Share of answers read as yes; None where answers are not yes or no.
        table: Rows per subtask, split or class, and sums.
        parsed: What every answer was read as, by id.
    """

    benchmark: str
    rule: str
    headline: str
    value: float
    raw: float
    maximum: float
    chance: float
    n: int
    unparsed: int
    yes_ratio: float | None
    table: Table
    parsed: dict[str, str | None]

    def to_json(self) -> dict[str, Any]:
        """Returns the score as plain dictionaries, texts and numbers."""
        return asdict(self)


def score(header: Mapping[str, Any], predictions: Predictions, rule: str) -> Score:
    """Scores predictions.

    Args:
        header: The prediction file's header.
        predictions: Its lines.
        rule: A key of ``RULES``.

    Raises:
        BadInputError: If the rule is unknown, there are no predictions, ids recur, a target is none that the rule
            knows, or there are no references for a rule that needs them.
    """
    if rule not in RULES:
        raise BadInputError(f"unknown scoring rule {rule!r:.40}", where="rule", expected=" or ".join(RULES))
    if not predictions:
        raise BadInputError("there are no predictions", where="predictions", expected="at least one")
    for number, row in enumerate(predictions, start=1):
        check_prediction(row, f"prediction {number}")
    check_ids(predictions, "predictions")
    named = RULES[rule]
    classes = classes_of(header, named)
    if named.answers is not None:
        predictions = [{**row, "target": row["target"].lower()} for row in predictions]
    if named.best_constant is None:
        check_targets(predictions, classes)
    else:
        check_references(predictions)
    parsed = [named.parse(row["answer"], classes) for row in predictions]
    summary = named.summarise(predictions, parsed)
    unparsed = parsed.count(None)
    if rule == "pope_official":
        unparsed = sum(says_neither(row["answer"]) for row in predictions)
    return Score(
        benchmark=str(header["benchmark"]),
        rule=rule,
        headline=summary.headline,
        value=100 * summary.raw / summary.maximum,
        raw=summary.raw,
        maximum=summary.maximum,
        chance=100 * best_constant(named, predictions, classes) / summary.maximum,
        n=len(predictions),
        unparsed=unparsed,
        yes_ratio=parsed.count("yes") / len(parsed) if named.answers == YES_OR_NO else None,
        table=summary.table,
        parsed={row["id"]: answer for row, answer in zip(predictions, parsed, strict=True)},
    )


def best_constant(rule: Rule, predictions: Predictions, classes: Sequence[str]) -> float:
    """Returns the highest number that one answer to all questions would get."""
    if rule.best_constant is not None:
        return rule.best_constant(predictions)
    return max(rule.summarise(predictions, [answer] * len(predictions)).raw for answer in classes)


def classes_of(header: Mapping[str, Any], rule: Rule) -> tuple[str, ...]:
    """Returns the answers a rule can read; none for a rule that reads any text.

    Raises:
        BadInputError: If the rule needs classes and the header has none.
    """
    if rule.answers is not None:
        return rule.answers
    if rule.best_constant is not None:
        return ()
    classes = header.get("classes")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) and name for name in classes):
        raise BadInputError("the header names no classes", where="predictions: classes", expected="a list of texts")
    return tuple(classes)


def check_targets(predictions: Predictions, classes: Sequence[str]) -> None:
    """Refuses targets that no answer could be equal to.

    Raises:
        BadInputError: Naming the first.
    """
    for row in predictions:
        if row["target"] not in classes:
            raise BadInputError(
                f"the target of {row['id']!r:.80} is {row['target']!r:.40}",
                where="predictions: target",
                expected=" or ".join(classes),
            )


def check_references(predictions: Predictions) -> None:
    """Refuses predictions without any reference.

    Raises:
        BadInputError: Naming the first.
    """
    for row in predictions:
        if "references" not in row:
            raise BadInputError(
                f"the prediction {row['id']!r:.80} names no references",
                where="predictions: references",
                expected="all answers that people gave",
                hint="vqa_accuracy is for sets with several answers a question, such as text_vqa",
            )

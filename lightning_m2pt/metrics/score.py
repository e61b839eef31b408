"""Scores: pure functions over a prediction file under a named rule.

| rule | default of | headline | maximum |
| --- | --- | --- | --- |
| ``mme_official`` | mme | points, summed over the subtasks present | 200 a subtask |
| ``pope_official`` | pope | mean of the splits' accuracies | 1 |
| ``yes_no_words`` | vsr | accuracy | 1 |
| ``closed_set`` | cifar10, mnist | accuracy | 1 |

Chance is what the best constant answer would get, computed from the targets.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.closed_set import closed_set
from lightning_m2pt.metrics.mme import group_sums, mme_answer, mme_name, mme_official
from lightning_m2pt.metrics.pope import pope_answer, pope_official, ratio, says_neither
from lightning_m2pt.metrics.predictions import PredictionFile, check_ids, check_prediction, read_predictions
from lightning_m2pt.metrics.yes_no import yes_no_words

__all__ = ["RULES", "PredictionFile", "Score", "read_predictions", "score"]

Predictions = Sequence[Mapping[str, str]]
Parsed = Sequence[str | None]
Table = dict[str, dict[str, float]]


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


def summarise_mme(predictions: Predictions, parsed: Parsed) -> Summary:
    """Returns MME's official points."""
    scores = mme_official(
        [row["subtask"] for row in predictions],
        [row["image_id"] for row in predictions],
        parsed,
        [row["target"] for row in predictions],
    )
    sums = group_sums(scores)
    table = {name: subtask.row() for name, subtask in scores.items()} | sums
    return Summary(mme_name(scores), sums["total"]["score"], sums["total"]["maximum"], table)


def summarise_pope(predictions: Predictions, parsed: Parsed) -> Summary:
    """Returns POPE's official numbers per split and over all questions."""
    targets = [row["target"] for row in predictions]
    table = {}
    for split in dict.fromkeys(row["subtask"] for row in predictions):
        positions = [position for position, row in enumerate(predictions) if row["subtask"] == split]
        binary = pope_official([parsed[position] for position in positions], [targets[at] for at in positions])
        table[split] = binary.row()
    mean_accuracy = sum(row["accuracy"] for row in table.values()) / len(table)
    return Summary("POPE accuracy", mean_accuracy, 1.0, table | {"overall": pope_official(parsed, targets).row()})


def summarise_accuracy(predictions: Predictions, parsed: Parsed) -> Summary:
    """Returns the accuracy, in total and per target."""
    right = [
        answer == row["target"] or answer == row["target"].lower()
        for row, answer in zip(predictions, parsed, strict=True)
    ]
    table = {}
    for target in sorted({row["target"] for row in predictions}):
        of_target = [hit for row, hit in zip(predictions, right, strict=True) if row["target"] == target]
        table[target] = {"accuracy": ratio(sum(of_target), len(of_target)), "n": float(len(of_target))}
    return Summary("accuracy", ratio(sum(right), len(right)), 1.0, table)


@dataclass(frozen=True)
class Rule:
    """How answers are read, and what is made of them.

    Attributes:
        parse: From an answer and the classes of a closed set to what the answer says, or None.
        summarise: From predictions and parsed answers to the numbers.
        answers: The targets it knows, lower-case; None means the classes in the header.
    """

    parse: Callable[[str, Sequence[str]], str | None]
    summarise: Callable[[Predictions, Parsed], Summary]
    answers: tuple[str, ...] | None


YES_OR_NO = ("yes", "no")
RULES = {
    "mme_official": Rule(lambda answer, classes: mme_answer(answer), summarise_mme, YES_OR_NO),
    "pope_official": Rule(lambda answer, classes: pope_answer(answer), summarise_pope, YES_OR_NO),
    "yes_no_words": Rule(lambda answer, classes: yes_no_words(answer), summarise_accuracy, YES_OR_NO),
    "closed_set": Rule(closed_set, summarise_accuracy, None),
}
"""Every rule by name."""


def score(header: Mapping[str, Any], predictions: Predictions, rule: str) -> Score:
    """Scores predictions.

    Args:
        header: The prediction file's header.
        predictions: Its lines.
        rule: A key of ``RULES``.

    Raises:
        BadInputError: If the rule is unknown, there are no predictions, ids recur, or a target is none that the rule
            knows.
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
    check_targets(predictions, classes)
    parsed = [named.parse(row["answer"], classes) for row in predictions]
    summary = named.summarise(predictions, parsed)
    constants = [[answer] * len(predictions) for answer in classes]
    best_constant = max(named.summarise(predictions, constant).raw for constant in constants)
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
        chance=100 * best_constant / summary.maximum,
        n=len(predictions),
        unparsed=unparsed,
        yes_ratio=parsed.count("yes") / len(parsed) if named.answers == YES_OR_NO else None,
        table=summary.table,
        parsed={row["id"]: answer for row, answer in zip(predictions, parsed, strict=True)},
    )


def classes_of(header: Mapping[str, Any], rule: Rule) -> tuple[str, ...]:
    """Returns the answers a rule can read.

    Raises:
        BadInputError: If the rule needs classes and the header has none.
    """
    if rule.answers is not None:
        return rule.answers
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

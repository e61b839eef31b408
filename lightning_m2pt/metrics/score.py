"""Scores: pure functions over a prediction file under a named rule of ``lightning_m2pt.metrics.rules``.

| rule | default of | headline | maximum |
| --- | --- | --- | --- |
| ``mme_official`` | mme | points, summed over the subtasks present | 200 a subtask |
| ``mme_m2pt``, ``mme_lmms``, ``mme_vlmevalkit`` | | the same | 200 a subtask |
| ``pope_official`` | pope | mean of the splits' accuracies | 1 |
| ``pope_lmms`` | | accuracy over all questions | 1 |
| ``pope_vlmevalkit`` | | F1 over all questions | 1 |
| ``yes_no_words`` | vsr | accuracy | 1 |
| ``entailment_words`` | snli_ve | accuracy | 1 |
| ``closed_set`` | cifar10, cifar100, mnist | accuracy | 1 |
| ``has_word``, ``exact_ehub``, ``vqa_words``, ``vqa_normalised``, ``exact`` | | accuracy | 1 |
| ``choice_letter`` | multiple_choice | accuracy | 1 |
| ``vqa_accuracy`` | text_vqa | mean soft accuracy over what ten people answered | 1 |
| ``any_match``, ``relaxed_accuracy``, ``number_within`` | | accuracy | 1 |
| ``cider`` | | CIDEr | 10 |
| ``bleu`` | | BLEU-4 | 1 |

Chance is what the best constant answer would get, computed from the targets, or from all that people answered.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.coverage import part_answered, set_name
from lightning_m2pt.metrics.needs import YES_OR_NO
from lightning_m2pt.metrics.predictions import PredictionFile, check_ids, check_prediction, read_predictions
from lightning_m2pt.metrics.rule import Parsed, Predictions, Rule, Table, accepts
from lightning_m2pt.metrics.rules import RULES, fitting_rules

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
        unparsed: Answers the rule could not read; for ``pope_official`` those that count as yes without saying it, for
            ``mme_m2pt`` those with neither word.
        yes_ratio: Share of answers read as yes, over all; None where answers are not yes or no. Under ``has_word`` and
            ``vqa_words`` an answer that is accepted for both counts.
        table: Rows per subtask, split or class, and sums.
        parsed: What every answer was read as, by id; ``SEVERAL`` stands between what it was accepted as.
        part: What of the set was answered, if that is not all of it, or not what is published.
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
    part: str = ""

    @property
    def name(self) -> str:
        """The set's name, with what of it was answered if that is not all of it."""
        return set_name(self.benchmark, self.part)

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
        BadInputError: If the rule is unknown, there are no predictions, ids recur, or the set has not what the rule
            needs; then it names the rules that fit.
    """
    named = named_rule(rule)
    if not predictions:
        raise BadInputError("there are no predictions", where="predictions", expected="at least one")
    for number, row in enumerate(predictions, start=1):
        check_prediction(row, f"prediction {number}")
    check_ids(predictions, "predictions")
    answers = possible_answers(rule, header, predictions)
    predictions = with_known_targets(predictions, answers)
    parsed = named.read(predictions, answers)
    summary = named.summarise(predictions, parsed)
    return Score(
        benchmark=str(header["benchmark"]),
        rule=rule,
        headline=summary.headline,
        value=100 * summary.raw / summary.maximum,
        raw=summary.raw,
        maximum=summary.maximum,
        chance=100 * best_constant(named, predictions, answers) / summary.maximum,
        n=len(predictions),
        unparsed=unparsed(named, predictions, parsed),
        yes_ratio=sum(accepts(answer, "yes") for answer in parsed) / len(parsed) if answers == YES_OR_NO else None,
        table=summary.table,
        parsed={row["id"]: answer for row, answer in zip(predictions, parsed, strict=True)},
        part=part_answered(header, predictions),
    )


def named_rule(name: str, where: str = "rule") -> Rule:
    """Returns a rule by name.

    Args:
        name: Its name.
        where: Where it was named, for the error.

    Raises:
        BadInputError: If there is none of that name.
    """
    if name not in RULES:
        near = difflib.get_close_matches(name, RULES, n=1)
        raise BadInputError(
            f"unknown scoring rule {name!r:.40}",
            where=where,
            expected=" or ".join(RULES),
            hint=f"did you mean {near[0]}?" if near else "`m2pt score --help` says what each rule does",
        )
    return RULES[name]


def possible_answers(rule: str, header: Mapping[str, Any], predictions: Predictions) -> tuple[str, ...]:
    """Returns the answers that can be right under a rule; none if any text can.

    Raises:
        BadInputError: If the set has not what the rule needs, naming the rules that fit.
    """
    try:
        return RULES[rule].needs(header, predictions)
    except BadInputError as error:
        fitting = ", ".join(fitting_rules(header, predictions))
        raise BadInputError(
            f"{rule} does not fit: {error.what}",
            where=error.where,
            expected=error.expected,
            hint=f"rules that fit this set: {fitting}" if fitting else "no rule fits these questions",
        ) from error


def with_known_targets(predictions: Predictions, answers: Sequence[str]) -> Predictions:
    """Returns the predictions with targets as the rule writes them: lower-case, unless a class is spelled otherwise."""
    return [
        row if not answers or row["target"] in answers else {**row, "target": row["target"].lower()}
        for row in predictions
    ]


def best_constant(rule: Rule, predictions: Predictions, answers: Sequence[str]) -> float:
    """Returns the highest number that one answer to all questions would get."""
    constants = [rule.parse(answer, answers) for answer in answers]
    if rule.best_constant is not None:
        return rule.best_constant(predictions, constants)
    return max(rule.summarise(predictions, [answer] * len(predictions)).raw for answer in constants)


def unparsed(rule: Rule, predictions: Predictions, parsed: Parsed) -> int:
    """Returns how many answers say nothing that the rule understands."""
    if rule.says_nothing is None:
        return parsed.count(None)
    return sum(rule.says_nothing(row["answer"]) for row in predictions)

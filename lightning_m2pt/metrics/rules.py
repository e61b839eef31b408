"""The scoring rules by name: how answers are read, and what is made of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from lightning_m2pt.metrics.closed_set import closed_set
from lightning_m2pt.metrics.entailment import entailment_words
from lightning_m2pt.metrics.mme import group_sums, mme_answer, mme_name, mme_official
from lightning_m2pt.metrics.pope import pope_answer, pope_official, ratio
from lightning_m2pt.metrics.vqa import reference_scores, vqa_normalised
from lightning_m2pt.metrics.yes_no import yes_no_words

Predictions: TypeAlias = Sequence[Mapping[str, Any]]
Parsed: TypeAlias = Sequence[str | None]
Table: TypeAlias = dict[str, dict[str, float]]


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
class Rule:
    """How answers are read, and what is made of them.

    Attributes:
        parse: From an answer and the classes of a closed set to what the answer says, or None.
        summarise: From predictions and parsed answers to the numbers.
        answers: The targets it knows, lower-case; None means the classes in the header.
        best_constant: For a rule that reads any text and compares it with the references of every prediction: from
            predictions to the highest number that one constant answer would get. None: one of ``answers`` is best.
    """

    parse: Callable[[str, Sequence[str]], str | None]
    summarise: Callable[[Predictions, Parsed], Summary]
    answers: tuple[str, ...] | None
    best_constant: Callable[[Predictions], float] | None = None


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
    hits: dict[str, list[bool]] = {target: [] for target in sorted({row["target"] for row in predictions})}
    for row, answer in zip(predictions, parsed, strict=True):
        hits[row["target"]].append(answer == row["target"] or answer == row["target"].lower())
    table = {
        target: {"accuracy": ratio(sum(of_target), len(of_target)), "n": float(len(of_target))}
        for target, of_target in hits.items()
    }
    right = sum(sum(of_target) for of_target in hits.values())
    return Summary("accuracy", ratio(right, len(predictions)), 1.0, table)


def parse_vqa(answer: str) -> str | None:
    """Returns the normalised answer as text that a file can hold, or None if nothing is left of it."""
    return vqa_normalised(answer).encode(errors="replace").decode() or None


def summarise_vqa(predictions: Predictions, parsed: Parsed) -> Summary:
    """Returns the mean soft accuracy, and the share of answers that anybody gave; parsed answers are normalised.

    An empty answer is compared as it is: it agrees with a reference of which nothing is left ("a").
    """
    scores = [
        reference_scores(row["references"]).get(answer or "", 0.0)
        for row, answer in zip(predictions, parsed, strict=True)
    ]
    accuracy, anybody = sum(scores) / len(scores), sum(score > 0 for score in scores) / len(scores)
    table = {"overall": {"accuracy": accuracy, "given_by_anybody": anybody, "n": float(len(scores))}}
    return Summary("VQA accuracy", accuracy, 1.0, table)


def best_constant_vqa(predictions: Predictions) -> float:
    """Returns the highest mean soft accuracy of one answer to all questions, over all that people answered."""
    sums: dict[str, float] = {}
    for row in predictions:
        for answer, accuracy in reference_scores(row["references"]).items():
            sums[answer] = sums.get(answer, 0.0) + accuracy
    return max(sums.values()) / len(predictions)


YES_OR_NO = ("yes", "no")
YES_NOT_SURE_NO = ("yes", "not sure", "no")
RULES = {
    "mme_official": Rule(lambda answer, classes: mme_answer(answer), summarise_mme, YES_OR_NO),
    "pope_official": Rule(lambda answer, classes: pope_answer(answer), summarise_pope, YES_OR_NO),
    "yes_no_words": Rule(lambda answer, classes: yes_no_words(answer), summarise_accuracy, YES_OR_NO),
    "entailment_words": Rule(lambda answer, classes: entailment_words(answer), summarise_accuracy, YES_NOT_SURE_NO),
    "closed_set": Rule(closed_set, summarise_accuracy, None),
    "vqa_accuracy": Rule(lambda answer, classes: parse_vqa(answer), summarise_vqa, None, best_constant_vqa),
}
"""Every rule by name."""

"""What rules make of parsed answers: MME's points, POPE's numbers per split, accuracy per class, VQA's soft accuracy.

No number depends on the order of the predictions: sums of fractions are exact before they are rounded once.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import fsum

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.mme import group_sums, mme_name, mme_scores
from lightning_m2pt.metrics.pope import lmms_row, official_row, vlmevalkit_row
from lightning_m2pt.metrics.rule import Parsed, Predictions, Summary, Table, accepts, ratio
from lightning_m2pt.metrics.subtasks import rows_of_subtasks
from lightning_m2pt.metrics.vqa import reference_scores

ALL_SPLITS = "overall"
PopeRow = Callable[[Parsed, Sequence[str]], dict[str, float]]


def summarise_mme(predictions: Predictions, parsed: Parsed) -> Summary:
    """Returns MME's points."""
    scores = mme_scores(
        [row["subtask"] for row in predictions],
        [row["image_id"] for row in predictions],
        parsed,
        [row["target"] for row in predictions],
    )
    sums = group_sums(scores)
    table = {name: subtask.row() for name, subtask in scores.items()} | sums
    return Summary(mme_name(scores), sums["total"]["score"], sums["total"]["maximum"], table)


def summarise_pope(predictions: Predictions, parsed: Parsed) -> Summary:
    """Returns POPE's official numbers; the one number is the mean of the splits' accuracies."""
    table = pope_table(predictions, parsed, official_row)
    splits = [row["accuracy"] for name, row in table.items() if name != ALL_SPLITS] or [table[ALL_SPLITS]["accuracy"]]
    return Summary("POPE accuracy", fsum(splits) / len(splits), 1.0, table)


def summarise_pope_lmms(predictions: Predictions, parsed: Parsed) -> Summary:
    """Returns lmms-eval's numbers; the one number is the accuracy over all questions."""
    table = pope_table(predictions, parsed, lmms_row)
    return Summary("POPE accuracy", table[ALL_SPLITS]["accuracy"], 1.0, table)


def summarise_pope_vlmevalkit(predictions: Predictions, parsed: Parsed) -> Summary:
    """Returns VLMEvalKit's numbers; the one number is the F1 over all questions, its "Overall"."""
    table = pope_table(predictions, parsed, vlmevalkit_row)
    return Summary("POPE F1", table[ALL_SPLITS]["f1"], 1.0, table)


def pope_table(predictions: Predictions, parsed: Parsed, row_of: PopeRow) -> Table:
    """Returns the numbers of every split, if the set has any, and of all questions.

    Raises:
        BadInputError: If only some questions belong to a split: the mean over splits would leave out the others.
    """
    splits: dict[str, list[int]] = {}
    for position, row in enumerate(predictions):
        splits.setdefault(row["subtask"], []).append(position)
    if "" in splits and len(splits) > 1:
        named = [split for split in splits if split]
        raise BadInputError(
            f"{len(splits['']):,} questions such as {predictions[splits[''][0]]['id']!r:.80} belong to no split",
            where="predictions: subtask",
            expected=f"{' or '.join(named):.120}, as the others",
        )
    targets = [row["target"] for row in predictions]
    table = {
        split: row_of([parsed[position] for position in positions], [targets[position] for position in positions])
        for split, positions in splits.items()
        if split
    }
    return table | {ALL_SPLITS: row_of(parsed, targets)}


def accuracy_per_target(predictions: Predictions, parsed: Parsed) -> Summary:
    """Returns the accuracy, in total and per target."""
    asked: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for row, answer in zip(predictions, parsed, strict=True):
        asked[row["target"]] += 1
        right[row["target"]] += accepts(answer, row["target"])
    table = {
        target: {"accuracy": ratio(right[target], asked[target]), "n": float(asked[target])} for target in sorted(asked)
    }
    return Summary("accuracy", ratio(right.total(), len(predictions)), 1.0, table)


def summarise_accuracy(predictions: Predictions, parsed: Parsed) -> Summary:
    """Returns the accuracy, in total, per target and per subtask, where there are some."""

    def row(positions: Sequence[int]) -> dict[str, float]:
        right = sum(accepts(parsed[position], predictions[position]["target"]) for position in positions)
        return {"accuracy": ratio(right, len(positions)), "n": float(len(positions))}

    summary = accuracy_per_target(predictions, parsed)
    return replace(summary, table=summary.table | rows_of_subtasks(predictions, row))


def summarise_has_word(predictions: Predictions, parsed: Parsed) -> Summary:
    """Returns the accuracy as above, and its mean over classes, LVLM-eHub's other number for ``has_word``."""
    summary = accuracy_per_target(predictions, parsed)
    mean = fsum(row["accuracy"] for row in summary.table.values()) / len(summary.table)
    per_class = {"mean per class": {"accuracy": mean, "n": float(len(predictions))}}
    return replace(summary, table=summary.table | per_class)


def best_constant_accuracy(predictions: Predictions, constants: Parsed) -> float:
    """Returns the highest accuracy of one answer to all questions."""
    asked = Counter(row["target"] for row in predictions)
    hits = [sum(number for target, number in asked.items() if accepts(answer, target)) for answer in constants]
    return max(hits) / len(predictions)


def summarise_vqa(predictions: Predictions, parsed: Parsed) -> Summary:
    """Returns the mean soft accuracy, and the share of answers that anybody gave; parsed answers are normalised.

    An empty answer is compared as it is: it agrees with a reference of which nothing is left ("a").
    """
    scores = [
        reference_scores(row["references"]).get(answer or "", 0.0)
        for row, answer in zip(predictions, parsed, strict=True)
    ]

    def row(positions: Sequence[int]) -> dict[str, float]:
        own = [scores[position] for position in positions]
        anybody = sum(score > 0 for score in own) / len(own)
        return {"accuracy": fsum(own) / len(own), "given_by_anybody": anybody, "n": float(len(own))}

    overall = row(range(len(scores)))
    table = {"overall": overall} | rows_of_subtasks(predictions, row)
    return Summary("VQA accuracy", overall["accuracy"], 1.0, table)


def best_constant_vqa(predictions: Predictions, constants: Parsed) -> float:
    """Returns the highest mean soft accuracy of one answer to all questions, over all that people answered."""
    gained: dict[str, list[float]] = {}
    for row in predictions:
        for answer, accuracy in reference_scores(row["references"]).items():
            gained.setdefault(answer, []).append(accuracy)
    return max(map(fsum, gained.values())) / len(predictions)

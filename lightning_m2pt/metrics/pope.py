"""POPE's scores: the official one, and what lmms-eval and VLMEvalKit make of the same answers.

Official: ``evaluate.py`` of the POPE repository (unchanged since 28f884a6; LLaVA's ``eval_pope.py`` is the same). The
answer is cut at the first full stop, commas are deleted, and it is split at single spaces: if a word equals "No",
"not" or "no" the answer is no, and everything else, the empty answer too, is yes. So the rule never leaves an answer
unparsed; how many answers hold neither word is counted apart. The only deviation: newlines and tabs become spaces
first. The tool itself splits at spaces alone, so that "No" and a line break behind it is a yes to it and a no here.

lmms-eval: ``lmms_eval/tasks/pope/utils.py`` of https://github.com/EvolvingLMMs-Lab/lmms-eval. The trimmed, lower-case
answer must equal "yes" or "no". Accuracy is over all answers; precision, recall and F1 leave unparsed ones out, so that
F1 can be high for a model that hardly ever answers. What it prints as ``yes_ratio`` counts the labels; here that is
``ground_truth_yes_ratio``, and ``yes_ratio`` counts the answers.

VLMEvalKit: ``POPE_rating`` in ``vlmeval/dataset/utils/yorn.py`` of https://github.com/open-compass/VLMEvalKit, after
its reading of yes and no as words. An unparsed answer is wrong, and for precision, recall and F1 it is no yes. The F1
(in percent) is what it prints as "Overall".

Positive is yes. Where a tool divides by zero (no yes answer, no yes label, nothing parsed) the value is 0.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from operator import eq

from lightning_m2pt.metrics.rule import Parsed, ratio

NO_WORDS = ("No", "not", "no")


@dataclass(frozen=True)
class BinaryTable:
    """Counts of a yes/no task, positive being yes, and what follows from them."""

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int

    @property
    def n(self) -> int:
        """Number of answers."""
        return self.true_positives + self.false_positives + self.true_negatives + self.false_negatives

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return ratio(self.true_positives + self.true_negatives, self.n)

    @property
    def precision(self) -> float:
        """Share of yes answers that are right; 0 without a yes answer."""
        return ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Share of yes labels that were answered yes; 0 without a yes label."""
        return ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if both are."""
        return ratio(2 * self.precision * self.recall, self.precision + self.recall)

    @property
    def yes_ratio(self) -> float:
        """Share of yes answers."""
        return ratio(self.true_positives + self.false_positives, self.n)

    def row(self) -> dict[str, float]:
        """Returns the official five numbers and n, as fractions."""
        return {
            "accuracy": self.accuracy,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "yes_ratio": self.yes_ratio,
            "n": self.n,
        }


def pope_answer(answer: str) -> str:
    """Returns "yes" or "no" as the official tool reads an answer."""
    flat = answer.replace("\n", " ").replace("\t", " ").split(".")[0].replace(",", "")
    return "no" if any(word in NO_WORDS for word in flat.split(" ")) else "yes"


def says_neither(answer: str) -> bool:
    """Returns whether an answer counts as yes without containing the word."""
    return pope_answer(answer) == "yes" and re.search(r"\byes\b", answer.lower()) is None


def pope_lmms_answer(answer: str) -> str | None:
    """Returns "yes" or "no" as lmms-eval reads an answer, or None."""
    text = answer.lower().strip()
    return text if text in ("yes", "no") else None


def pope_official(parsed: Parsed, targets: Sequence[str]) -> BinaryTable:
    """Returns the counts for answers and labels that are "yes" or "no"; what was not parsed is left out."""
    pairs = Counter(zip(parsed, targets, strict=True))
    return BinaryTable(
        true_positives=pairs["yes", "yes"],
        false_positives=pairs["yes", "no"],
        true_negatives=pairs["no", "no"],
        false_negatives=pairs["no", "yes"],
    )


def official_row(parsed: Parsed, targets: Sequence[str]) -> dict[str, float]:
    """Returns the official five numbers and n, as fractions."""
    return pope_official(parsed, targets).row()


def lmms_row(parsed: Parsed, targets: Sequence[str]) -> dict[str, float]:
    """Returns lmms-eval's numbers as fractions, the answers' own yes ratio, and n."""
    return pope_official(parsed, targets).row() | {
        "accuracy": share_right(parsed, targets),
        "yes_ratio": ratio(parsed.count("yes"), len(parsed)),
        "ground_truth_yes_ratio": ratio(targets.count("yes"), len(targets)),
        "n": len(targets),
    }


def vlmevalkit_row(parsed: Parsed, targets: Sequence[str]) -> dict[str, float]:
    """Returns VLMEvalKit's numbers as fractions, the yes ratio, and n."""
    unparsed_is_no = pope_official([answer or "no" for answer in parsed], targets)
    return unparsed_is_no.row() | {"accuracy": share_right(parsed, targets)}


def share_right(parsed: Parsed, targets: Sequence[str]) -> float:
    """Returns the share of answers that equal their targets."""
    return ratio(sum(map(eq, parsed, targets)), len(targets))

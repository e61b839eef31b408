"""POPE's official score.

Source: ``evaluate.py`` of the POPE repository (unchanged since 28f884a6; LLaVA's ``eval_pope.py`` is the same). The
answer is cut at the first full stop, commas are deleted, and it is split at single spaces: if a word equals "No",
"not" or "no" the answer is no, and everything else, the empty answer too, is yes. So the rule never leaves an answer
unparsed; how many answers hold neither word is counted apart. Newlines become spaces first, as in all our rules.

Positive is yes. Where the official tool divides by zero (no yes answer, no yes label) the value is 0.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

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


def ratio(numerator: float, denominator: float) -> float:
    """Returns a quotient, and 0 where there is nothing to divide by."""
    return numerator / denominator if denominator else 0.0


def pope_answer(answer: str) -> str:
    """Returns "yes" or "no" as the official tool reads an answer."""
    flat = answer.replace("\n", " ").replace("\t", " ").split(".")[0].replace(",", "")
    return "no" if any(word in NO_WORDS for word in flat.split(" ")) else "yes"


def says_neither(answer: str) -> bool:
    """Returns whether an answer counts as yes without containing the word."""
    return pope_answer(answer) == "yes" and re.search(r"\byes\b", answer.lower()) is None


def pope_official(parsed: Sequence[str | None], targets: Sequence[str]) -> BinaryTable:
    """Returns the counts for answers and labels that are "yes" or "no"."""
    pairs = list(zip(parsed, targets, strict=True))
    return BinaryTable(
        true_positives=pairs.count(("yes", "yes")),
        false_positives=pairs.count(("yes", "no")),
        true_negatives=pairs.count(("no", "no")),
        false_negatives=pairs.count(("no", "yes")),
    )

"""How the evaluation set that a Trainer was given is answered and scored."""

from dataclasses import dataclass

from lightning_m2pt.answering.decoding import Answering
from lightning_m2pt.answering.score_metric import ScoreMetric


@dataclass(frozen=True)
class AskedSet:
    """An evaluation set under way; a module holds it without having its states in checkpoints.

    Attributes:
        answering: How its questions are answered.
        score: Its score under its default rule.
    """

    answering: Answering
    score: ScoreMetric

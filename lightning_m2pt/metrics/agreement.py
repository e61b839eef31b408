"""How far two ways of judging the same answers agree."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_m2pt.metrics.pope import ratio


@dataclass(frozen=True)
class Agreement:
    """Agreement of two judgements, each right or wrong, of the same answers.

    Attributes:
        n: Number of answers.
        share: Share of answers on which both agree.
        kappa: Cohen's kappa (Educational and Psychological Measurement 20, 1960): agreement beyond what both would have
            by chance with their own shares of "right"; None where each gives one and the same judgement throughout, for
            which it has no value.
    """

    n: int
    share: float
    kappa: float | None


def agreement(first: Sequence[bool], second: Sequence[bool]) -> Agreement:
    """Returns the agreement of two sequences of equal length; True is right."""
    n = len(first)
    share = ratio(sum(one == other for one, other in zip(first, second, strict=True)), n)
    right_by_first, right_by_second = ratio(sum(first), n), ratio(sum(second), n)
    by_chance = right_by_first * right_by_second + (1 - right_by_first) * (1 - right_by_second)
    return Agreement(n, share, None if by_chance == 1 else (share - by_chance) / (1 - by_chance))

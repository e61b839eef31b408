"""What is left of many comparisons in one table: p values from resamples, and Holm's adjustment of them.

Sources: Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 16 (achieved significance level); Holm,
"A Simple Sequentially Rejective Multiple Test Procedure" (Scandinavian Journal of Statistics 6, 1979).
"""

from collections.abc import Sequence

from lightning_m2pt.metrics.statistics import Floats


def resampled_p_value(differences: Floats) -> float:
    """Returns the two-sided p value of a difference: how much of its resamples lies on the other side of 0, twice.

    Args:
        differences: Resamples of the difference. The estimate itself counts as one more, so that no p value is 0.
    """
    below, above = int((differences <= 0).sum()), int((differences >= 0).sum())
    return float(min(1.0, 2 * (min(below, above) + 1) / (len(differences) + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns adjusted p values in the same order: below a level, they are so whatever else is in the table.

    Args:
        p_values: One for every comparison of the table.
    """
    order = sorted(range(len(p_values)), key=lambda position: p_values[position])
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = least
    return adjusted

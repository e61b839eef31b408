"""Figures over seeds: means, deviations, lower bounds and differences with their intervals."""

import math
import statistics
from dataclasses import dataclass

from scipy.stats import t as student

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Cell:
    """A method's figures in one column, one for each seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return statistics.mean(self.values)

    @property
    def deviation(self) -> float:
        """The standard deviation over seeds; 0 of a single value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def error(self) -> float:
        """The standard error of the mean over seeds."""
        return self.deviation / len(self.values) ** 0.5

    @property
    def degrees(self) -> int:
        """Degrees of freedom of the deviation."""
        return len(self.values) - 1

    def lower_bound(self, questions: int) -> float:
        """The lower end of the two-sided 95% interval of the mean.

        Two variances are added: that over seeds, and the binomial one of a set of so many questions.
        """
        binomial = self.mean * (100 - self.mean) / questions
        return self.mean - quantile(self.degrees) * (self.error**2 + binomial) ** 0.5 if self.degrees else math.nan

    def __str__(self) -> str:
        """Mean and deviation."""
        return f"{self.mean:.1f}" + (f" ± {self.deviation:.1f}" if len(self.values) > 1 else "")


Row = dict[str, Cell]
Table = dict[str, Row]


def quantile(degrees: float) -> float:
    """Returns Student's quantile of the two-sided 95% interval."""
    return float(student.ppf((1 + CONFIDENCE) / 2, degrees))


def difference(better: Cell, other: Cell) -> tuple[float, float]:
    """Returns the difference of two means and half of its 95% interval over seeds (Welch); NaN of single seeds.

    The untouched model has no seeds: it counts as a constant where the other has several.
    """
    errors = [(cell.error**2, cell.degrees) for cell in (better, other) if cell.degrees]
    variance = sum(square for square, _ in errors)
    if not variance:
        return better.mean - other.mean, math.nan
    degrees = variance**2 / sum(square**2 / count for square, count in errors)
    return better.mean - other.mean, quantile(degrees) * variance**0.5


def paired_difference(better: Cell, other: Cell) -> Cell:
    """Returns the differences seed by seed."""
    return Cell(tuple(first - second for first, second in zip(better.values, other.values, strict=True)))

"""Paired differences of losses and accuracies, with intervals over pictures and seeds."""

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from lightning_m2pt.metrics.statistics import RESAMPLES, SEED, drawn_totals, mean_of_runs, percentile_interval

Floats = NDArray[numpy.float64]


@dataclass(frozen=True)
class Gain:
    """A difference of two rows of the table and its percentile interval of 95%."""

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether zero lies outside of the interval."""
        return not self.low <= 0 <= self.high


def mean_of(sums: Floats, weights: Floats) -> float:
    """Returns the mean over seeds of sums by weight.

    Args:
        sums: (S, n) what each of n samples adds, for each seed.
        weights: (n,) tokens of each, or ones.
    """
    return float((sums.sum(axis=1) / weights.sum()).mean())


def paired_gain(first: Floats, second: Floats, weights: Floats, pictures: list[str]) -> Gain:
    """Returns second minus first.

    Pictures are drawn with all their samples, and seeds beside them; a seed of one row is paired with the same seed of
    the other, which has the same start and was searched on the same samples. With few seeds the interval is somewhat
    too narrow.

    Args:
        first: (S, n) what each of n samples adds, for each seed.
        second: The same of the other row.
        weights: (n,) tokens of each sample, or ones.
        pictures: Of each sample its picture.
    """
    _, units = numpy.unique(pictures, return_inverse=True)
    columns = numpy.concatenate([(second - first).T, weights[:, None]], axis=1)
    of_units = numpy.zeros((units.max() + 1, columns.shape[1]))
    numpy.add.at(of_units, units, columns)
    totals = drawn_totals(of_units, [numpy.arange(len(of_units))], RESAMPLES, numpy.random.default_rng(SEED))
    interval = percentile_interval(mean_of_runs(totals[:, :-1] / totals[:, -1:]))
    return Gain(mean_of(second, weights) - mean_of(first, weights), interval.low, interval.high)

"""How much two orders of methods agree: Kendall's tau, what seeds leave open of it, and how likely chance is.

Tau is the b form, which knows ties, and its p value the exact two-sided one over all orders where there are none, and
that of the normal approximation else (both scipy's; Kendall, "Rank Correlation Methods", 4th edition, 1970). Means that
differ in their last bits alone are ties: sums of the same scores in another order. The interval is of seeds alone: in
every draw each mean moves by its standard error over seeds times a number of Student's t with its degrees of freedom.
What one seed scored does not move, and the questions, the same for all methods of a backbone, are not drawn.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy
from scipy.stats import kendalltau

from benchmarks.report.cells import CONFIDENCE, Cell

DRAWS = 2_000
DIGITS = 9
"""Behind the point, of means that are told apart."""
FEWEST = 3
"""Methods that make an order; two are a coin."""


@dataclass(frozen=True)
class Agreement:
    """How two orders agree.

    Attributes:
        methods: What both have.
        tau: Kendall's tau-b: 1 for one order, -1 for the reverse.
        low: Lower end of the 95% interval over seeds.
        high: Its upper end.
        p_value: Share of all orders that agree or disagree at least as much.
        is_exact: Whether it is counted; with ties it is approximated.
    """

    methods: tuple[str, ...]
    tau: float
    low: float
    high: float
    p_value: float
    is_exact: bool = True


def agreement(here: Mapping[str, Cell], there: Mapping[str, Cell], seed: int = 0) -> Agreement | None:
    """Compares two orders of the methods that both have.

    Args:
        here: Figures over seeds by method.
        there: The same elsewhere, on any scale.
        seed: Decides the draws.

    Returns:
        The agreement; None where fewer than three methods are common, or all are equal on one side.
    """
    methods = tuple(name for name in here if name in there)
    if len(methods) < FEWEST:
        return None
    first, second = ([table[name] for name in methods] for table in (here, there))
    means = [[round(cell.mean, DIGITS) for cell in cells] for cells in (first, second)]
    is_exact = all(len(set(each)) == len(methods) for each in means)
    found = kendalltau(*means, method="exact" if is_exact else "asymptotic")
    if numpy.isnan(found.statistic):
        return None
    generator = numpy.random.default_rng(seed)
    drawn = [kendalltau(moved(first, generator), moved(second, generator)).statistic for _ in range(DRAWS)]
    low, high = numpy.nanquantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Agreement(methods, float(found.statistic), float(low), float(high), float(found.pvalue), is_exact)


def moved(cells: list[Cell], generator: numpy.random.Generator) -> list[float]:
    """Returns the means as other seeds might have had them."""
    return [
        cell.mean + (cell.error * float(generator.standard_t(cell.degrees)) if cell.degrees else 0.0) for cell in cells
    ]

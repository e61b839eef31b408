"""How sure a score is: bootstrap intervals, paired differences, McNemar's test, mean and deviation over seeds.

Sources: Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 6, 8 and 13 (percentile interval;
independent units are resampled, not what lies within them); McNemar, "Note on the sampling error of the difference
between correlated proportions" (Psychometrika 12, 1947), here as the exact binomial test on discordant pairs; Dror et
al., "The Hitchhiker's Guide to Testing Statistical Significance in Natural Language Processing" (ACL 2018): two models
are compared by paired tests on the same questions.

Resampled are pictures with all their questions, in all splits: SNLI-VE asks about eighteen of a picture, POPE as many,
VSR and TextVQA some have two, and their answers are not independent. MME's pictures are drawn within their subtasks,
with both questions. What a resample scores is the rule's own headline number. For most rules this number is a mean over
items, or a mean or a sum over subtasks of such means; then a resample is a few sums. Whether it is one is not declared
but found out: the short form is used if it gives what the rule gives, on the data and on some resamples of them.
Otherwise (F1) every resample is scored by the rule itself, and there are fewer. Captions' rules say which sums over
questions make their number; CIDEr's is of what each answer gets in the whole set: how rare words are is not resampled.

Several seeds of one experiment are resampled beside the questions. With few seeds the interval is somewhat too narrow:
the deviation of n values drawn from n is too small by the factor sqrt((n - 1) / n).
"""

import statistics
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy
from numpy.typing import NDArray

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.predictions import PredictionFile, check_same_questions
from lightning_m2pt.metrics.rule import Parsed, Predictions, Rule, Sums, accepts
from lightning_m2pt.metrics.rules import RULES
from lightning_m2pt.metrics.score import Score, possible_answers, with_known_targets

Floats: TypeAlias = NDArray[numpy.float64]
Integers: TypeAlias = NDArray[numpy.int64]

LEVEL = 0.95
RESAMPLES = 10_000
RESAMPLES_BY_RULE = 1_000
"""Resamples where the rule itself has to score each of them."""
CHECKED_RESAMPLES = 3
"""Resamples on which a short form has to agree with the rule."""
AGREEMENT = 1e-9
SEED = 0


@dataclass(frozen=True)
class Design:
    """How a set is resampled: keys of a prediction that make up each of these.

    Attributes:
        unit: What is drawn as a whole.
        block: Within what units are drawn, so that its size stays; empty for the whole set.
        item: The least a rule can score.
    """

    unit: tuple[str, ...] = ("image_id",)
    block: tuple[str, ...] = ()
    item: tuple[str, ...] = ("id",)


PICTURES = Design()
DESIGNS = {"mme": Design(unit=("subtask", "image_id"), block=("subtask",), item=("subtask", "image_id"))}
"""Any other set's design is ``PICTURES``."""


@dataclass(frozen=True)
class Interval:
    """A percentile interval of 95%, in percent of a set's maximum."""

    low: float
    high: float

    @property
    def holds_zero(self) -> bool:
        """Whether zero lies in it: a difference with such an interval is inside the noise."""
        return self.low <= 0 <= self.high


@dataclass(frozen=True)
class Comparison:
    """Two runs, or two groups of seeds, on the same questions.

    Attributes:
        difference: Second minus first, in percent of the maximum.
        interval: The paired 95% interval of the difference.
        p_value: McNemar's exact two-sided test; None for several seeds, or a rule with more than right and wrong.
    """

    difference: float
    interval: Interval
    p_value: float | None

    @property
    def verdict(self) -> str:
        """What is said of the second: "better", "worse" or "inside the noise"."""
        if self.interval.holds_zero:
            return "inside the noise"
        return "better" if self.difference > 0 else "worse"


@dataclass(frozen=True)
class ScoredUnits:
    """Rows as a rule sees them, the answers of every run in their order, and the rows' numbers of unit and block.

    Attributes:
        rule: The rule.
        answers: The answers that can be right; none if any text can.
        rows: The predictions.
        parsed: What every run's answers were read as.
        maximum: The highest the rule's number can be.
        units: Positions of the rows of every unit.
        blocks: Numbers of the units of every block.
    """

    rule: Rule
    answers: Sequence[str]
    rows: Predictions
    parsed: Sequence[Parsed]
    maximum: float
    units: Sequence[Sequence[int]]
    blocks: Sequence[Integers]

    def resampled_units(self, generator: numpy.random.Generator) -> Integers:
        """Returns the numbers of as many units as there are, drawn with replacement within their blocks."""
        return numpy.concatenate([generator.choice(block, size=len(block)) for block in self.blocks])

    def percents(self, units: Integers) -> list[float]:
        """Returns what the rule makes of some units for every run; a unit drawn twice counts as two."""
        copies: Counter[int] = Counter()
        positions = []
        for unit in units.tolist():
            positions += [(copies[unit], position) for position in self.units[unit]]
            copies[unit] += 1
        rows = [renamed(self.rows[position], copy) if copy else self.rows[position] for copy, position in positions]
        return [self.percent(rows, [answers[position] for _, position in positions]) for answers in self.parsed]

    def percent(self, rows: Predictions, answers: Parsed) -> float:
        """Returns the rule's number in percent of the whole set's maximum."""
        return 100 * self.rule.summarise(rows, answers).raw / self.maximum


@dataclass(frozen=True)
class ShortForm:
    """A score as a weighted sum over strata of means over items.

    Attributes:
        sums: What every unit adds to each run's sum in each stratum, in percent; (units, strata, runs).
        items: How many items of each stratum a unit holds; (units, strata).
        weight: What each stratum's mean counts.
    """

    sums: Floats
    items: Floats
    weight: float

    def scores(self, sums: Floats, items: Floats) -> Floats:
        """Returns (..., runs) scores from (..., strata, runs) sums and (..., strata) numbers of items."""
        known = numpy.where(items > 0, items, 1.0)[..., None]
        weighted: Floats = self.weight * (sums / known).sum(axis=-2)
        return weighted

    def agrees(self, units: Integers, percents: Sequence[float]) -> bool:
        """Tells whether some units score what the rule says they do."""
        short = self.scores(self.sums[units].sum(axis=0), self.items[units].sum(axis=0))
        return bool(numpy.allclose(short, percents, rtol=AGREEMENT, atol=AGREEMENT))

    def resampled(self, blocks: Sequence[Integers], resamples: int, generator: numpy.random.Generator) -> Floats:
        """Returns (resamples, runs) scores."""
        units, strata, runs = self.sums.shape
        rows = numpy.concatenate([self.sums.reshape(units, strata * runs), self.items], axis=1)
        totals = drawn_totals(rows, blocks, resamples, generator)
        sums, items = totals[:, : strata * runs], totals[:, strata * runs :]
        return self.scores(sums.reshape(resamples, strata, runs), items)


def drawn_totals(rows: Floats, blocks: Sequence[Integers], resamples: int, generator: numpy.random.Generator) -> Floats:
    """Returns the sums (resamples, columns) of units drawn with replacement within their blocks.

    Units that add the same are interchangeable, so how often each kind is drawn is multinomial: the same distribution
    as drawing units one by one, in a fraction of the time.

    Args:
        rows: What every unit adds; (units, columns).
        blocks: Numbers of the units of every block.
        resamples: How many.
        generator: Draws.
    """
    totals = numpy.zeros((resamples, rows.shape[1]))
    for block in blocks:
        kinds, numbers = numpy.unique(rows[block], axis=0, return_counts=True)
        totals += generator.multinomial(len(block), numbers / len(block), size=resamples) @ kinds
    return totals


def resampled_scores(
    answered: PredictionFile, scores: Sequence[Score], resamples: int = RESAMPLES, seed: int = SEED
) -> Floats:
    """Returns the scores of runs on resamples of their common questions.

    Args:
        answered: The prediction file of any of the runs; its answers are not read.
        scores: Every run's score under the same rule.
        resamples: How many; at most ``RESAMPLES_BY_RULE`` where the rule itself has to score them.
        seed: Decides the draws, together with the name of the set.

    Returns:
        (resamples, runs), in percent of the set's maximum; a row's runs are scored on the same questions.

    Raises:
        BadInputError: If the rules differ, or a run has not answered exactly these questions.
    """
    scored = scored_units(answered, scores)
    generator = numpy.random.default_rng([seed, *scores[0].benchmark.encode()])
    everything = numpy.arange(len(scored.units))
    checks = [everything, *(scored.resampled_units(generator) for _ in range(CHECKED_RESAMPLES))]
    percents = [scored.percents(units) for units in checks]
    if scored.rule.sums is not None:
        return resampled_sums(scored, scored.rule.sums, resamples, generator)
    for form in short_forms(scored, DESIGNS.get(scores[0].benchmark, PICTURES)):
        if all(form.agrees(units, expected) for units, expected in zip(checks, percents, strict=True)):
            return form.resampled(scored.blocks, resamples, generator)
    fewer = min(resamples, RESAMPLES_BY_RULE)
    return numpy.array([scored.percents(scored.resampled_units(generator)) for _ in range(fewer)])


def mean_of_runs(resampled: Floats, seed: int = SEED) -> Floats:
    """Returns the mean over runs of every resample, the runs themselves drawn with replacement: (resamples,)."""
    runs = numpy.random.default_rng([seed, resampled.shape[1]]).integers(resampled.shape[1], size=resampled.shape)
    means: Floats = numpy.take_along_axis(resampled, runs, axis=1).mean(axis=1)
    return means


def percentile_interval(values: Floats) -> Interval:
    """Returns the middle 95% of resampled values."""
    low, high = numpy.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def resampled_gain(
    answered: PredictionFile, first: Sequence[Score], second: Sequence[Score], seed: int = SEED
) -> Floats:
    """Returns second minus first on resamples of their common questions and of the seeds of each: (resamples,).

    Args:
        answered: The prediction file of any of the runs.
        first: Scores of the first run, or of every seed of it.
        second: Those of the second, under the same rule.
        seed: Decides the draws.

    Raises:
        BadInputError: If the rules differ, or a run has not answered exactly these questions.
    """
    resampled = resampled_scores(answered, [*first, *second], seed=seed)
    # The two groups' seeds have nothing to do with each other: they are drawn apart.
    gain: Floats = mean_of_runs(resampled[:, len(first) :], seed + 1) - mean_of_runs(resampled[:, : len(first)], seed)
    return gain


def compare(answered: PredictionFile, first: Sequence[Score], second: Sequence[Score], seed: int = SEED) -> Comparison:
    """Compares two runs, or two groups of seeds, on the same questions; arguments as of ``resampled_gain``.

    Raises:
        BadInputError: If the rules differ, or a run has not answered exactly these questions.
    """
    interval = percentile_interval(resampled_gain(answered, first, second, seed))
    difference = statistics.fmean(score.value for score in second) - statistics.fmean(score.value for score in first)
    p_value = None
    if len(first) == len(second) == 1:
        right = right_answers(answered, [first[0], second[0]])
        p_value = mcnemar(*right) if right else None
    return Comparison(difference, interval, p_value)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Returns the exact two-sided p value of McNemar's test.

    Of the questions that only one of two models answers rightly, each model has half if they are equally good: the
    probability of a split at least as uneven (binomial, n discordant pairs, 1/2).

    ``scipy.stats.binomtest`` gives the same (by test); importing it takes half a second and more.

    Args:
        first: Whether the first model answered each question rightly.
        second: The same of the second, in the same order.
    """
    pairs = list(zip(first, second, strict=True))
    only_first, only_second = pairs.count((True, False)), pairs.count((False, True))
    discordant = only_first + only_second
    ways = term = 1
    for number in range(1, min(only_first, only_second) + 1):
        term = term * (discordant - number + 1) // number
        ways += term
    p_value: float = min(1.0, 2 * ways / 2**discordant)
    return p_value


def right_answers(answered: PredictionFile, scores: Sequence[Score]) -> list[list[bool]]:
    """Returns for every run which questions it answered rightly; nothing for a rule that gives parts of a point."""
    scored = scored_units(answered, scores)
    if scored.rule.gives_parts:
        return []
    targets = [row["target"] for row in scored.rows]
    return [[accepts(*pair) for pair in zip(parsed, targets, strict=True)] for parsed in scored.parsed]


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Returns the mean and the sample standard deviation (n - 1); None for the deviation of a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def scored_units(answered: PredictionFile, scores: Sequence[Score]) -> ScoredUnits:
    """Returns predictions with their units and blocks.

    Raises:
        BadInputError: If the rules differ, or a run has not answered exactly these questions.
    """
    rules = list(dict.fromkeys(score.rule for score in scores))
    if len(rules) > 1:
        raise BadInputError(f"the rules differ: {' and '.join(rules)}", where="scores", expected="the same rule")
    asked = [row["id"] for row in answered.predictions]
    for score in scores:
        check_same_questions([{"id": name} for name in score.parsed], asked, score.benchmark)
    design = DESIGNS.get(scores[0].benchmark, PICTURES)
    answers = possible_answers(rules[0], answered.header, answered.predictions)
    rows = with_known_targets(answered.predictions, answers)
    units = list(positions_by(rows, design.unit).values())
    blocks = positions_by([rows[unit[0]] for unit in units], design.block).values()
    parsed = [[score.parsed[row["id"]] for row in rows] for score in scores]
    numbers = [numpy.array(block) for block in blocks]
    return ScoredUnits(RULES[rules[0]], answers, rows, parsed, scores[0].maximum, units, numbers)


def positions_by(rows: Sequence[Mapping[str, Any]], keys: tuple[str, ...]) -> dict[Hashable, list[int]]:
    """Returns the positions of rows that agree in some keys, by what they hold there."""
    groups: dict[Hashable, list[int]] = {}
    for position, row in enumerate(rows):
        groups.setdefault(tuple(row[key] for key in keys), []).append(position)
    return groups


def renamed(row: Mapping[str, Any], copy: int) -> Mapping[str, Any]:
    """Returns a row that belongs to the copy of a unit: ids and pictures of two copies are not the same."""
    return {**row, "id": f"{copy} {row['id']}", "image_id": f"{copy} {row['image_id']}"}


def resampled_sums(scored: ScoredUnits, sums: Sums, resamples: int, generator: numpy.random.Generator) -> Floats:
    """Returns (resamples, runs) scores that follow from sums over questions."""
    of_rows = numpy.array([sums.of_each(scored.rows, parsed) for parsed in scored.parsed])  # (runs, rows, sums)
    of_units = numpy.array([of_rows[:, unit].sum(axis=1) for unit in scored.units])  # (units, runs, sums)
    totals = drawn_totals(of_units.reshape(len(of_units), -1), scored.blocks, resamples, generator)
    drawn = totals.reshape(resamples, *of_units.shape[1:]).tolist()
    numbers = numpy.array([[sums.number(of_run) for of_run in of_runs] for of_runs in drawn])
    percents: Floats = 100 * numbers / scored.maximum
    return percents


def short_forms(scored: ScoredUnits, design: Design) -> list[ShortForm]:
    """Returns what a score could be: the mean over items, the mean over subtasks of their means, or their sum."""
    items = list(positions_by(scored.rows, design.item).values())
    values = numpy.array(
        [
            [
                scored.percent([scored.rows[at] for at in item], [answers[at] for at in item])
                for answers in scored.parsed
            ]
            for item in items
        ]
    )
    unit_of_row = {position: number for number, unit in enumerate(scored.units) for position in unit}
    unit_of_item = numpy.array([unit_of_row[item[0]] for item in items])
    names = [scored.rows[item[0]]["subtask"] for item in items]
    subtasks = {name: number for number, name in enumerate(dict.fromkeys(names))}
    forms = []
    for strata, weight in (
        ([0] * len(items), 1.0),
        ([subtasks[name] for name in names], 1 / len(subtasks)),
        ([subtasks[name] for name in names], 1.0),
    ):
        sums = numpy.zeros((len(scored.units), max(strata) + 1, len(scored.parsed)))
        numbers = numpy.zeros(sums.shape[:2])
        cells = unit_of_item * sums.shape[1] + numpy.array(strata)
        numpy.add.at(sums.reshape(-1, len(scored.parsed)), cells, values)
        numpy.add.at(numbers.reshape(-1), cells, 1.0)
        forms.append(ShortForm(sums, numbers, weight))
    return forms

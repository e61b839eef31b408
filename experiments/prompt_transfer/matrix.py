"""What all transfers of a sweep say together: gains where prompts were trained and where they were carried to.

Gains are over the untouched model on the same questions; over several seeds their mean, with an interval over pictures
and seeds (``lightning_m2pt.metrics.statistics``). What a prompt loses as a picture is paired by seed: the same prompt,
clipped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.prompt_transfer.planned import SEVERAL_BASES, Carried
from experiments.prompt_transfer.results import FEATURES, RESULTS_FILE, read_transfer
from experiments.prompt_transfer.rows import CLIPPED, COMPOSITION, EIGHT_BITS, PROMPT, RANDOM, UNTOUCHED
from experiments.sweep.transfer_section import TransferPlan
from lightning_m2pt.metrics.predictions import PredictionFile, read_predictions
from lightning_m2pt.metrics.score import Score
from lightning_m2pt.metrics.several_comparisons import holm, resampled_p_value
from lightning_m2pt.metrics.statistics import Floats, mean_of_runs, percentile_interval, resampled_scores
from lightning_m2pt.runs.scoring import score_file

NOT_STATED = "not stated: the ceiling's own interval is not above 0"


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: In points of the set's maximum; a share as it is.
        low: Lower end of the 95% interval.
        high: Upper end.
        p_value: Two-sided, from the resamples.
    """

    value: float
    low: float
    high: float
    p_value: float


@dataclass
class Direction:
    """One row of the table: prompts of one kind, trained for a set on one base and used on another.

    Attributes:
        set: The set.
        row: What is shown.
        source: Name of the base of the training.
        target: Name of the base of the use.
        planned: How many prompts the sweep's file asks for.
        present: How many are there.
        seeds: Seeds of these, but of a mean over seeds.
        missing: What the sweep's file asks for and is not there.
        untouched: Score of the untouched target; None if nothing is there.
        score: Mean score of the target with the prompts.
        white_box: Gain on the base of the training.
        gain: Gain on the target.
        ceiling: Gain there of the same row's prompts that were trained there.
        share: Gain in shares of the ceiling; None where that is not above 0.
        clip_loss: What is lost on the target by clipping to 0..1.
        eight_bits_loss: What is lost there by rounding to the 256 levels of a picture as well.
        feature_distance: Mean relative distance of the target's rows to those without the prompt.
        adjusted_p: The gain's p value, adjusted for all gains of the table.
    """

    set: str
    row: str
    source: str
    target: str
    planned: int
    present: int = 0
    seeds: list[int] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    untouched: float | None = None
    score: float | None = None
    white_box: Estimate | None = None
    gain: Estimate | None = None
    ceiling: Estimate | None = None
    share: Estimate | None = None
    clip_loss: Estimate | None = None
    eight_bits_loss: Estimate | None = None
    feature_distance: float | None = None
    adjusted_p: float | None = None

    def record(self) -> dict[str, Any]:
        """Returns everything with all digits, for programs."""
        return asdict(self)


@dataclass(frozen=True)
class Shown:
    """One transfer that is there.

    Attributes:
        folder: Its folder.
        records: Its records by row.
    """

    folder: Path
    records: Mapping[str, Mapping[str, Any]]

    def path(self, row: str) -> Path:
        """Returns the prediction file of a row."""
        return self.folder / self.records[row]["predictions"]

    def score(self, row: str) -> Score:
        """Returns the score of a row."""
        return scored(self.path(row))


@cache
def scored(path: Path) -> Score:
    """Returns the score of a prediction file; the untouched model's is asked for again and again."""
    return score_file(path)[1]


@cache
def answered(path: Path) -> PredictionFile:
    """Returns a prediction file."""
    return read_predictions(path)


def directions(plan: TransferPlan, all_carried: Sequence[Carried]) -> list[Direction]:
    """Returns every row of the table, set by set and direction by direction.

    Args:
        plan: Of the sweep.
        all_carried: Every use of a prompt that the plan asks for, there or not.
    """
    shown = {each: found for each in all_carried if (found := read_shown(each)) is not None}
    table = []
    for name in plan.sets:
        of_set = [each for each in all_carried if each.set == name]
        pairs = dict.fromkeys((each.source, each.target) for each in of_set if each.source != each.target)
        for source, target in pairs:
            here = [each for each in of_set if (each.source, each.target) == (source, target)]
            for row in dict.fromkeys(each.row for each in here):
                table += rows_of_kind(plan, of_set, shown, (name, row, source, target))
    adjust([each for each in table if each.gain is not None])
    return table


def read_shown(carried: Carried) -> Shown | None:
    """Returns a transfer's results; None if it is not complete."""
    folder = carried.folder
    if folder is None or not (folder / RESULTS_FILE).is_file():
        return None
    records = read_transfer(folder)["rows"]
    return Shown(folder, {record["row"]: record for record in records if record["set"] == carried.set})


def rows_of_kind(
    plan: TransferPlan, of_set: Sequence[Carried], shown: Mapping[Carried, Shown], what: tuple[str, str, str, str]
) -> list[Direction]:
    """Returns the row of one kind of prompts, and before it what it is measured against: composing alone, chance.

    Args:
        plan: Of the sweep.
        of_set: All uses of prompts of the set.
        shown: What is there.
        what: Set, row, source and target.
    """
    _, row, source, target = what
    moved = chosen(of_set, row, source, target)
    own = chosen(of_set, row, source, source)
    ceiling = chosen(of_set, row.removesuffix(f", {SEVERAL_BASES}"), target, target)
    there = [shown[each] for each in moved if each in shown]
    rows = []
    if any(not found.records[COMPOSITION]["same_as"] for found in there):
        # Without a prompt all seeds show the same pictures: one that is there says it.
        first, at_home = ((*[each for each in uses if each in shown], *uses)[:1] for uses in (moved, own))
        rows.append(direction(what, f"composition of {row}", COMPOSITION, (first, at_home, []), shown))
    if row == plan.random_like:
        rows.append(direction(what, f"random of {row}'s norm", RANDOM, (moved, own, []), shown))
    return [*rows, direction(what, row, PROMPT, (moved, own, ceiling), shown)]


def chosen(of_set: Sequence[Carried], row: str, source: str, target: str) -> list[Carried]:
    """Returns the uses of one row's prompts in one direction, one a seed."""
    return [each for each in of_set if (each.row, each.source, each.target) == (row, source, target)]


def direction(
    what: tuple[str, str, str, str],
    label: str,
    key: str,
    uses: tuple[Sequence[Carried], Sequence[Carried], Sequence[Carried]],
    shown: Mapping[Carried, Shown],
) -> Direction:
    """Returns one row of the table.

    Args:
        what: Set, row, source and target.
        label: What the table calls it.
        key: Which row of the transfers it is made of.
        uses: The prompts on the target, on their own base, and those that were trained on the target.
        shown: What is there.
    """
    name, _, source, target = what
    moved, own, ceiling = ([shown[each] for each in group if each in shown] for group in uses)
    row = Direction(name, label, source, target, len(uses[0]), len(moved))
    row.seeds = [each.seed for each in uses[0] if each in shown and each.seed is not None]
    wanted = dict.fromkeys(each for group in uses for each in group)
    row.missing = [each.title for each in wanted if each not in shown]
    if own:
        row.white_box = gains(own, [(key, own)])[0]
    if not moved:
        return row
    row.untouched, row.score = moved[0].score(UNTOUCHED).value, fmean(each.score(key).value for each in moved)
    row.gain, *others = gains(moved, [(key, moved), *([(PROMPT, ceiling)] if ceiling else [])])
    if others:
        row.ceiling = others[0]
        row.share = share_of(moved, ceiling) if others[0].low > 0 else None
    distances = [found.records[key][FEATURES] for found in moved]
    row.feature_distance = None if None in distances else fmean(distances)
    if key == PROMPT:
        row.clip_loss, row.eight_bits_loss = (loss(moved, worse) for worse in (CLIPPED, EIGHT_BITS))
    return row


def gains(first: Sequence[Shown], groups: Sequence[tuple[str, Sequence[Shown]]]) -> list[Estimate]:
    """Returns the mean gain of groups of seeds over the untouched model of one base.

    Args:
        first: On that base.
        groups: Which row of which transfers, all on that base.
    """
    untouched = first[0].score(UNTOUCHED)
    found = []
    for key, group in groups:
        scores = [each.score(key) for each in group]
        drawn = resampled_scores(answered(first[0].path(UNTOUCHED)), [untouched, *scores])
        value = fmean(score.value for score in scores) - untouched.value
        found.append(estimate(value, mean_of_runs(drawn[:, 1:], 1) - drawn[:, 0]))
    return found


def share_of(moved: Sequence[Shown], ceiling: Sequence[Shown]) -> Estimate:
    """Returns the gain of carried prompts in shares of the gain of those that were trained on the target.

    Args:
        moved: Carried prompts on the target.
        ceiling: Prompts that were trained there.
    """
    untouched = moved[0].score(UNTOUCHED)
    ours, theirs = ([each.score(PROMPT) for each in group] for group in (moved, ceiling))
    drawn = resampled_scores(answered(moved[0].path(UNTOUCHED)), [untouched, *ours, *theirs])
    parts = drawn[:, 1 : 1 + len(ours)], drawn[:, 1 + len(ours) :]
    above, below = (mean_of_runs(part, number) - drawn[:, 0] for number, part in enumerate(parts, start=1))
    has_share = below > 0  # all but 2.5% of the resamples at most, because the ceiling's interval is above 0
    value = (fmean(score.value for score in ours) - untouched.value) / (
        fmean(score.value for score in theirs) - untouched.value
    )
    return estimate(value, above[has_share] / below[has_share])


def loss(moved: Sequence[Shown], worse: str) -> Estimate:
    """Returns what prompts lose in another row of the same transfers, paired by seed.

    Args:
        moved: Carried prompts on the target.
        worse: The other row.
    """
    before, after = ([each.score(key) for each in moved] for key in (PROMPT, worse))
    drawn = resampled_scores(answered(moved[0].path(UNTOUCHED)), [*before, *after])
    lost: Floats = drawn[:, : len(before)] - drawn[:, len(before) :]
    value = fmean(score.value for score in before) - fmean(score.value for score in after)
    return estimate(value, mean_of_runs(lost, 1))


def estimate(value: float, resampled: Floats) -> Estimate:
    """Returns a number with the interval and the p value of its resamples."""
    interval = percentile_interval(resampled)
    return Estimate(value, interval.low, interval.high, resampled_p_value(resampled))


def adjust(compared: Sequence[Direction]) -> None:
    """Sets the adjusted p values of all gains of a table."""
    p_values = [each.gain.p_value for each in compared if each.gain is not None]
    for each, adjusted in zip(compared, holm(p_values), strict=True):
        each.adjusted_p = adjusted

"""From evaluated runs to tables: one row for every set and group of seeds, and what has to stand below it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_m2pt.metrics.coverage import set_name
from lightning_m2pt.metrics.means import MMAVG, NEVER_A_MEMBER, benchmark_mean, is_of_limited, limited_notes
from lightning_m2pt.metrics.predictions import check_paired
from lightning_m2pt.metrics.score import Score
from lightning_m2pt.metrics.statistics import (
    RESAMPLES,
    RESAMPLES_BY_RULE,
    Floats,
    Interval,
    mean_and_deviation,
    percentile_interval,
    resampled_gain,
)
from lightning_m2pt.report.tables.backbone_gates import missed_gate_notes
from lightning_m2pt.report.tables.contamination import contamination_notes, overlaps_with, recorded_tasks
from lightning_m2pt.report.tables.formats import Column, ReportTable
from lightning_m2pt.report.tables.frozen_and_tuned import IN_NOISE, mean_of_sets, members_of
from lightning_m2pt.report.tables.scores import headline
from lightning_m2pt.report.tables.selection import chosen_notes
from lightning_m2pt.report.tables.size_notes import size_notes
from lightning_m2pt.report.tables.template_spread import template_spread_notes
from lightning_m2pt.runs.evaluated import SETTINGS, EvaluatedSet, Group, refuse_incomparable, short

AT_CHANCE = " *"

COLUMNS = (
    Column("set"),
    Column("run"),
    Column("seeds", is_number=True),
    Column("score", is_number=True),
    Column("95% interval", is_number=True),
    Column("n", is_number=True),
    Column("unparsed", is_number=True),
    Column("yes said", is_number=True),
    Column("rule"),
    Column("template", is_setting=True),
    Column("decoding", is_setting=True),
    Column("shots", is_number=True, is_setting=True),
    Column("data", is_setting=True),
)
GAIN_COLUMNS = (
    Column("baseline", is_number=True),
    Column("difference", is_number=True),
    Column("its 95%", is_number=True),
)


@dataclass(frozen=True)
class Line:
    """One row: what people read, and what programs do."""

    texts: tuple[str, ...]
    record: dict[str, Any]


@dataclass(frozen=True)
class Gain:
    """A group's gain over a baseline in one row, in percent of the maximum."""

    baseline: Sequence[float]
    difference: float
    resampled: Floats

    @property
    def interval(self) -> Interval:
        """The paired 95% interval of the difference."""
        return percentile_interval(self.resampled)


def score_report(groups: Sequence[Group], baseline: Group | None = None) -> ReportTable:
    """Returns one row for every set and group, then every group's mean over sets.

    Args:
        groups: What is reported.
        baseline: What every group is compared with, or None.

    Raises:
        BadInputError: If a group and the baseline answered different questions, or are scored by different rules.
    """
    benchmarks = list(dict.fromkeys(name for group in groups for name in group.benchmarks))
    measured = groups if baseline is None or any(group is baseline for group in groups) else [*groups, baseline]
    lines, gains = [], {}
    for benchmark in benchmarks:
        for position, group in enumerate(groups):
            if group.scores(benchmark):
                gain = gain_over(baseline, group, benchmark)
                if gain is not None:
                    gains[position, benchmark] = gain
                lines.append(set_line(benchmark, group, gain))
    for position, group in enumerate(groups):
        of_group = {benchmark: gain for (at, benchmark), gain in gains.items() if at == position}
        lines += mean_line(group, of_group, baseline)
    columns = COLUMNS if baseline is None else COLUMNS[:5] + GAIN_COLUMNS + COLUMNS[5:]
    rows = [line.texts if baseline is not None else line.texts[:5] + line.texts[8:] for line in lines]
    shown = [
        position
        for position, column in enumerate(columns)
        if not (column.title == "run" and len(groups) == 1)
        and not (column.title == "seeds" and all(len(group.runs) == 1 for group in groups))
    ]
    return ReportTable(
        title="" if baseline is None else f"baseline: {baseline.name}",
        columns=[columns[position] for position in shown],
        rows=[tuple(row[position] for position in shown) for row in rows],
        records=[line.record for line in lines],
        notes=[
            *reading_notes(lines, groups),
            *setting_notes(benchmarks, measured),
            *missed_gate_notes(groups),
            *zero_shot_notes(groups),
            *chosen_notes(groups),
            *template_spread_notes(groups),
        ],
    )


def set_line(benchmark: str, group: Group, gain: Gain | None) -> Line:
    """Returns a group's row of one set."""
    evaluated, scores = group.of_set(benchmark), group.scores(benchmark)
    scored, interval = scores[0], percentile_interval(group.resampled_mean(benchmark))
    unit = unit_of(scored)
    unparsed, _ = mean_and_deviation([score.unparsed for score in scores])
    yes_ratios = [score.yes_ratio for score in scores if score.yes_ratio is not None]
    yes_ratio = mean_and_deviation(yes_ratios)[0] if yes_ratios else None
    settings = evaluated[0].settings
    texts = (
        set_text(benchmark, scored),
        group.name,
        str(len(scores)),
        score_text(scores) + (AT_CHANCE if interval.low <= scored.chance else ""),
        interval_text(interval, unit),
        *gain_texts(gain, unit),
        f"{scored.n:,}",
        f"{unparsed:.1f}".removesuffix(".0"),
        "" if yes_ratio is None else f"{100 * yes_ratio:.0f}%",
        *(short(settings[key]) for key in ("rule", "template", "decoding", "shots", "data_revision")),
    )
    record = score_record(benchmark, group, [score.value for score in scores], interval, gain)
    record |= {
        "headline": scored.headline,
        "part": scored.part,
        "score": record["percent"] * scored.maximum / 100,
        "maximum": scored.maximum,
        "chance_percent": scored.chance,
        "n": scored.n,
        "unparsed": unparsed,
        "yes_ratio": yes_ratio,
        **settings,
        "shared_with_tuning": shared_text(benchmark, group),
    }
    return Line(texts, record)


def mean_line(group: Group, gains: Mapping[str, Gain], baseline: Group | None) -> list[Line]:
    """Returns a group's row of the mean over sets; none for fewer than two sets, MME never being one of them.

    Only seeds that answered all of the sets are in it.
    """
    members = [name for name in group.benchmarks if name != NEVER_A_MEMBER]
    complete = [run for run in group.runs if all(name in run.sets for name in members)]
    if len(members) < 2 or not complete:
        return []
    if len(complete) < len(group.runs):
        group = Group(group.name, complete)
        gains = {name: gain for name in gains if (gain := gain_over(baseline, group, name)) is not None}
    # MMAvg is of accuracies: another number (POPE's F1) goes into the mean under its own name.
    shown = {set_text(name, group.scores(name)[0]): name for name in members}
    of_runs = [benchmark_mean({text: run.sets[name].score.value for text, name in shown.items()}) for run in complete]
    label, values = of_runs[0][0], [value for _, value in of_runs]
    averaged = [shown[text] for text in members_of(label, list(shown))]
    interval = percentile_interval(mean_of_sets([group.resampled_mean(name) for name in averaged]))
    gain = mean_gain([gains[name] for name in averaged]) if all(name in gains for name in averaged) else None
    mean, deviation = mean_and_deviation(values)
    texts = (
        label,
        group.name,
        str(len(values)),
        f"{mean:.1f}" + ("" if deviation is None else f" ± {deviation:.1f}"),
        interval_text(interval, 1.0),
        *gain_texts(gain, 1.0),
        *("",) * 8,
    )
    record = score_record(label, group, values, interval, gain)
    empty = ("part", "chance_percent", "n", "unparsed", "yes_ratio", *SETTINGS, "shared_with_tuning")
    record |= {"headline": label, "score": mean, "maximum": 100.0, **dict.fromkeys(empty)}
    return [Line(texts, record)]


def mean_gain(gains: Sequence[Gain]) -> Gain:
    """Returns the gain of the mean over sets."""
    baseline = mean_and_deviation([mean_and_deviation(gain.baseline)[0] for gain in gains])[0]
    difference = mean_and_deviation([gain.difference for gain in gains])[0]
    return Gain([baseline], difference, mean_of_sets([gain.resampled for gain in gains]))


def gain_over(baseline: Group | None, group: Group, benchmark: str) -> Gain | None:
    """Returns a group's gain over the baseline on one set, or None where there is nothing to compare.

    Raises:
        BadInputError: If rules, data or questions differ.
    """
    if baseline is None or baseline is group or not baseline.scores(benchmark):
        return None
    before, after = baseline.of_set(benchmark)[0], group.of_set(benchmark)[0]
    check_comparable(benchmark, (baseline.name, before), (group.name, after))
    first, second = baseline.scores(benchmark), group.scores(benchmark)
    values = [score.value for score in first]
    difference = mean_and_deviation([score.value for score in second])[0] - mean_and_deviation(values)[0]
    return Gain(values, difference, resampled_gain(after.answered, first, second))


def check_comparable(benchmark: str, first: tuple[str, EvaluatedSet], second: tuple[str, EvaluatedSet]) -> None:
    """Refuses two runs' scores on a set that cannot be compared.

    Raises:
        BadInputError: If rules, data or questions differ.
    """
    rows = [one.answered.predictions for _, one in (first, second)]
    if first[1].settings["rule"] == second[1].settings["rule"]:
        check_paired(rows[0], rows[1], (first[0], second[0]))
    refuse_incomparable(benchmark, first, second)


def score_record(
    name: str, group: Group, values: Sequence[float], interval: Interval, gain: Gain | None
) -> dict[str, Any]:
    """Returns what programs read of a row's numbers, in percent of the maximum."""
    mean, deviation = mean_and_deviation(values)
    return {
        "set": name,
        "run": group.name,
        "seeds": len(values),
        "percent": mean,
        "percent_deviation_over_seeds": deviation,
        "percent_low": interval.low,
        "percent_high": interval.high,
        "baseline_percent": None if gain is None else mean_and_deviation(gain.baseline)[0],
        "difference": None if gain is None else gain.difference,
        "difference_low": None if gain is None else gain.interval.low,
        "difference_high": None if gain is None else gain.interval.high,
        "inside_the_noise": None if gain is None else gain.interval.holds_zero,
    }


def set_text(benchmark: str, scored: Score) -> str:
    """Returns a set's name, what of it was answered if not all, and its number's name where that is no accuracy."""
    name = set_name(benchmark, scored.part)
    return name if scored.headline.endswith("accuracy") else f"{name} ({scored.headline})"


def unit_of(scored: Score) -> float:
    """Returns what one percent of the maximum is in the unit a set is quoted in: points of MME, or percent."""
    return 1.0 if scored.maximum == 1.0 else scored.maximum / 100


def digits(value: float, unit: float, sign: str = "") -> str:
    """Returns a number of percent in a set's unit: whole points, or percent with a decimal."""
    return format(value * unit, f"{sign}.0f" if unit != 1.0 else f"{sign}.1f")


def score_text(scores: Sequence[Score]) -> str:
    """Returns a score, or mean and deviation over seeds, as its set is usually quoted."""
    if len(scores) == 1:
        return headline(scores[0])
    unit = unit_of(scores[0])
    mean, deviation = mean_and_deviation([score.value for score in scores])
    whole = "" if unit == 1.0 else f" / {scores[0].maximum:.0f}"
    return f"{digits(mean, unit)} ± {digits(deviation or 0.0, unit)}{whole}"


def interval_text(interval: Interval, unit: float, sign: str = "") -> str:
    """Returns an interval in a set's unit."""
    return f"[{digits(interval.low, unit, sign)}, {digits(interval.high, unit, sign)}]"


def gain_texts(gain: Gain | None, unit: float) -> tuple[str, str, str]:
    """Returns baseline, difference, marked if it is inside the noise, and its interval; empty without a baseline."""
    if gain is None:
        return "", "", ""
    mark = IN_NOISE if gain.interval.holds_zero else ""
    return (
        digits(mean_and_deviation(gain.baseline)[0], unit),
        digits(gain.difference, unit, "+") + mark,
        interval_text(gain.interval, unit, "+"),
    )


def reading_notes(lines: Sequence[Line], groups: Sequence[Group]) -> list[str]:
    """Returns how the numbers are to be read, as far as it applies."""
    several = any(len(group.runs) > 1 for group in groups)
    fewest = min(len(group.resampled_mean(name)) for group in groups for name in group.benchmarks)
    seeds = ", and over seeds" if several else ""
    fewer = f" ({RESAMPLES_BY_RULE:,} where the rule is no mean)" if fewest < RESAMPLES else ""
    notes = [f"95% interval: bootstrap over pictures with all their questions{seeds}; {RESAMPLES:,} resamples{fewer}"]
    if several:
        notes.append("±: standard deviation over seeds")
    if any(AT_CHANCE in line.texts[3] for line in lines):
        notes.append(f"{AT_CHANCE.strip()} not clearly above the best constant answer")
    if any(IN_NOISE in line.texts[6] for line in lines):
        notes.append(f"{IN_NOISE.strip()} inside the noise: the paired 95% interval of the difference contains 0")
    if any(line.texts[0] == MMAVG for line in lines):
        notes.append(f"{MMAVG}: the published mean's seven members under the rules above; the paper had a model judge")
        notes += size_notes(groups)
    if any(is_of_limited(line.texts[0]) for line in lines):
        notes += limited_notes(
            (group.name, [group.scores(name)[0].name for name in group.benchmarks]) for group in groups
        )
    return notes


def setting_notes(benchmarks: Sequence[str], groups: Sequence[Group]) -> list[str]:
    """Returns a sentence for every set on which groups differ in rule, data, template or decoding."""
    notes = []
    for benchmark in benchmarks:
        for key, name in SETTINGS.items():
            values = [(group.name, short(of[0].settings[key])) for group in groups if (of := group.of_set(benchmark))]
            if len({value for _, value in values}) > 1:
                shown = ", ".join(f"{value} ({run})" for run, value in values)
                notes.append(f"{benchmark} is not the same measurement in all rows, the {name} differs: {shown}")
    return notes


def tuned_tasks(group: Group) -> list[str] | None:
    """Returns the tasks a group was tuned on, as its first run records them."""
    return recorded_tasks(group.runs[0].record)


def shared_text(benchmark: str, group: Group) -> str | None:
    """Returns what a set shares with a group's tuning tasks; None where nothing was tuned, or it cannot be told."""
    if (tasks := tuned_tasks(group)) is None:
        return None
    shared = overlaps_with(benchmark, tasks, group.of_set(benchmark)[0].answered.header)
    return "; ".join(f"{', '.join(named)}: {reason}" for reason, named in shared)


def zero_shot_notes(groups: Sequence[Group]) -> list[str]:
    """Returns what tuned groups' sets share with what they were tuned on; shown examples are no zero-shot."""
    alike: dict[tuple[str, ...], list[Group]] = {}
    for group in groups:
        if any(run.is_tuned for run in group.runs):
            kind = (str(most_shots(group)), *(tuned_tasks(group) or ()), "on", *group.benchmarks)
            alike.setdefault(kind, []).append(group)
    return [
        note
        for of_kind in alike.values()
        for note in contamination_notes(
            ", ".join(group.name for group in of_kind),
            tuned_tasks(of_kind[0]),
            of_kind[0].benchmarks,
            most_shots(of_kind[0]),
            {name: of_kind[0].of_set(name)[0].answered.header for name in of_kind[0].benchmarks},
        )
    ]


def most_shots(group: Group) -> int:
    """Returns how many worked examples stood before a group's questions, at most."""
    return max(evaluated.shots for run in group.runs for evaluated in run.sets.values())

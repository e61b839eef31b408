"""Runs ``m2pt compare``; its flags and what it is for are in ``parsers``."""

from collections.abc import Sequence
from typing import Any

from lightning_m2pt.commands.parsers.compare import argument_parser
from lightning_m2pt.commands.report import read_group
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.metrics.score import Score
from lightning_m2pt.metrics.statistics import RESAMPLES, RESAMPLES_BY_RULE, compare, mean_and_deviation
from lightning_m2pt.report.tables.backbone_gates import missed_gate_notes
from lightning_m2pt.report.tables.formats import Column, ReportTable, formatted
from lightning_m2pt.report.tables.groups import (
    check_comparable,
    digits,
    interval_text,
    score_text,
    set_text,
    setting_notes,
    unit_of,
    zero_shot_notes,
)
from lightning_m2pt.report.tables.scores import p_text
from lightning_m2pt.report.tables.template_spread import template_spread_notes
from lightning_m2pt.runs.evaluated import Group
from lightning_m2pt.system.console import OUT, say

WIDEST_TITLE = 30
"""Characters of a group's name above its column; longer ones, as paths are, stand below the table."""


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own = argument_parser().parse_args(list(arguments))
    first, second = (read_group(path, own.sets, own.rule) for path in (own.first, own.second))
    if first.name == second.name:
        first.name, second.name = str(own.first), str(own.second)
    say(formatted([comparison(first, second)], own.format, OUT.width).rstrip("\n"))
    return ExitCode.DONE


def comparison(first: Group, second: Group) -> ReportTable:
    """Returns one row for every set that both answered.

    Raises:
        BadInputError: If there is none, or rules, data or questions of one differ.
    """
    benchmarks = [name for name in first.benchmarks if name in second.benchmarks]
    if not benchmarks:
        raise BadInputError(
            f"{first.name} answered {', '.join(first.benchmarks)}, {second.name} {', '.join(second.benchmarks)}",
            where="predictions",
            expected="a set that both answered",
        )
    rows, records = zip(*(set_row(benchmark, first, second) for benchmark in benchmarks), strict=True)
    left_out = sorted(set(first.benchmarks) ^ set(second.benchmarks))
    notes = [
        f"second minus first; 95%: paired bootstrap, {RESAMPLES:,} resamples ({RESAMPLES_BY_RULE:,} where the rule is "
        "no mean); p: McNemar's exact test"
    ]
    notes += [f"answered by one of the two only: {', '.join(left_out)}"] if left_out else []
    notes += [*setting_notes(benchmarks, [first, second]), *missed_gate_notes([first, second])]
    notes += [*zero_shot_notes([first, second]), *template_spread_notes([first, second])]
    titles = [first.name, second.name]
    if max(map(len, titles)) > WIDEST_TITLE:
        titles = ["first", "second"]
        notes = [f"first: {first.name}", f"second: {second.name}", *notes]
    columns = [Column("set"), *(Column(title, is_number=True) for title in titles)]
    columns += [Column(title, is_number=True) for title in ("difference", "95% interval", "p", "n", "unparsed")]
    return ReportTable("", [*columns, Column("verdict"), Column("rule")], rows, records, notes)


def set_row(benchmark: str, first: Group, second: Group) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Returns one set's row, for people and for programs.

    Raises:
        BadInputError: If rules, data or questions differ.
    """
    one, other = first.of_set(benchmark)[0], second.of_set(benchmark)[0]
    check_comparable(benchmark, (first.name, one), (second.name, other))
    scores = first.scores(benchmark), second.scores(benchmark)
    result, unit = compare(one.answered, *scores), unit_of(one.score)
    row = (
        set_text(benchmark, one.score),
        *map(score_text, scores),
        digits(result.difference, unit, "+"),
        interval_text(result.interval, unit, "+"),
        p_text(result.p_value),
        f"{one.score.n:,}",
        ", ".join(map(unparsed_text, scores)),
        result.verdict,
        one.score.rule,
    )
    record = {
        "set": benchmark,
        "first": first.name,
        "second": second.name,
        "first_percents": [score.value for score in scores[0]],
        "second_percents": [score.value for score in scores[1]],
        "maximum": one.score.maximum,
        "difference": result.difference,
        "difference_low": result.interval.low,
        "difference_high": result.interval.high,
        "mcnemar_p": result.p_value,
        "n": one.score.n,
        "part": one.score.part,
        "first_unparsed": [score.unparsed for score in scores[0]],
        "second_unparsed": [score.unparsed for score in scores[1]],
        "verdict": result.verdict,
        "rule": one.score.rule,
        "data_revision": one.settings["data_revision"],
    }
    return row, record


def unparsed_text(scores: Sequence[Score]) -> str:
    """Returns how many answers were not read, as a mean over seeds."""
    mean, _ = mean_and_deviation([score.unparsed for score in scores])
    return f"{mean:,.1f}".removesuffix(".0")

"""Tables of a set's parts: MME's subtasks, POPE's splits, and subtasks of any other set that has some."""

from collections.abc import Sequence

from lightning_m2pt.metrics.score import Score
from lightning_m2pt.metrics.statistics import mean_and_deviation
from lightning_m2pt.metrics.subtasks import SUBTASK
from lightning_m2pt.report.tables.formats import Column, ReportTable
from lightning_m2pt.runs.evaluated import Group

DETAILED_SETS = ("mme", "pope")
"""Sets whose parts are published numbers of their own."""


def detail_tables(groups: Sequence[Group]) -> list[ReportTable]:
    """Returns MME's numbers per subtask, POPE's per split and overall, and other sets' by subtask; one table a set."""
    others = [name for group in groups for name in group.benchmarks if name not in DETAILED_SETS]
    return [
        table
        for benchmark in (*DETAILED_SETS, *dict.fromkeys(others))
        if (table := detail_table(benchmark, [group for group in groups if group.scores(benchmark)])) is not None
    ]


def parts_of(score: Score) -> list[str]:
    """Returns the rows of a score's table that a report shows: of most sets its subtasks, if it has any."""
    if score.benchmark in DETAILED_SETS:
        return list(score.table)
    if score.rule.startswith("pope_"):
        return list(score.table) if len(score.table) > 1 else []
    return [part for part in score.table if part.startswith(f"{SUBTASK} ")]


def detail_table(benchmark: str, groups: Sequence[Group]) -> ReportTable | None:
    """Returns one set's numbers by part, means over seeds; None if no group has the set, or it has no parts."""
    rows, records = [], []
    tables = [(group, part) for group in groups for part in parts_of(group.scores(benchmark)[0])]
    keys = list(dict.fromkeys(key for group, part in tables for key in group.scores(benchmark)[0].table[part]))
    for group, part in tables:
        numbers = {
            key: mean_and_deviation([score.table[part][key] for score in group.scores(benchmark)])[0]
            if key in group.scores(benchmark)[0].table[part]
            else None
            for key in keys
        }
        rule = group.scores(benchmark)[0].rule
        rows.append((part, group.name, rule, *(part_text(key, value) for key, value in numbers.items())))
        records.append({"set": benchmark, "part": part, "run": group.name, "rule": rule, **numbers})
    if not rows:
        return None
    columns = [Column("part"), Column("run", is_setting=True), Column("rule", is_setting=True)]
    columns += [Column(key.replace("_", " "), is_number=True) for key in keys]
    return ReportTable(f"{benchmark} by part; shares in percent", columns, rows, records)


def part_text(key: str, value: float | None) -> str:
    """Returns a part's number: points as they are, counts whole, shares in percent."""
    if value is None:
        return ""
    if key in ("n", "maximum"):
        return f"{value:,.0f}"
    return f"{value:.1f}" if key == "score" else f"{100 * value:.1f}"

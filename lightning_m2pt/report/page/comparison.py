"""The paper's Table 1 from what has run: methods x sets, means and deviations over seeds, the best in bold.

Every number is one of ``m2pt report``: its records are read here, not computed again. A difference is inside the noise
if its paired 95% interval contains 0.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lightning_m2pt.metrics.coverage import set_name
from lightning_m2pt.metrics.means import LIMITED, MEAN_OF, MMAVG, MMAVG_LABELS
from lightning_m2pt.report.tables.formats import Column, ReportTable
from lightning_m2pt.report.tables.frozen_and_tuned import IN_NOISE, members_of
from lightning_m2pt.report.tables.groups import AT_CHANCE, Gain, digits, gain_over, mean_gain, score_report
from lightning_m2pt.runs.evaluated import Group

NOT_M2PT = "†"
MEAN = "mean"
PART = re.compile(r"\[[^]]*\]")
"""What of a set was answered, behind its name."""
TIE = 1e-9

Record = Mapping[str, Any]


@dataclass
class Scores:
    """The scores of some groups as ``m2pt report`` gives them.

    Attributes:
        groups: The groups.
        lead: M2PT among them, or None.
    """

    groups: Sequence[Group]
    lead: Group | None

    @cached_property
    def table(self) -> ReportTable:
        """The table of ``m2pt report``."""
        return score_report(self.groups)

    @cached_property
    def by_cell(self) -> dict[tuple[str, str], Record]:
        """Its records by group's name and set; of means the one over all sets, under ``MEAN``."""
        cells = {(record["run"], record["set"]): record for record in self.table.records}
        for group in self.groups:
            if (group.name, self.mean_name) in cells:
                cells[group.name, MEAN] = cells[group.name, self.mean_name]
        return cells

    @cached_property
    def mean_name(self) -> str:
        """The name of the mean over most sets; empty if there is no mean."""
        names = [record["set"] for record in self.table.records if record["headline"] == record["set"]]
        return max(names, key=lambda name: (name == MMAVG, len(self.members(name))), default="")

    @cached_property
    def benchmarks(self) -> list[str]:
        """The sets in the reports' order."""
        return Group("", [run for group in self.groups for run in group.runs]).benchmarks

    def members(self, mean: str) -> list[str]:
        """Returns the sets that a mean is over."""
        listed = PART.sub("", mean.removeprefix(MEAN_OF).removeprefix(LIMITED))
        named = [text.split(" (")[0] for text in listed.split(", ")]
        return [name for name in members_of(mean, self.benchmarks) if mean in MMAVG_LABELS or name in named]

    def record(self, group: Group, column: str) -> Record | None:
        """Returns the record of a group's set, or of its mean; None where there is none."""
        return self.by_cell.get((group.name, column))

    def best(self, column: str) -> list[Group]:
        """Returns the groups with the highest mean; several if they are equal."""
        values = [(record["percent"], group) for group in self.groups if (record := self.record(group, column))]
        highest = max((value for value, _ in values), default=0.0)
        return [group for value, group in values if value >= highest - TIE]

    def inside_the_noise(self, baseline: Group | None, group: Group, column: str) -> bool | None:
        """Tells whether a group's difference to another is inside the noise; None where there is nothing to compare."""
        if baseline is None or baseline is group:
            return None
        if column != MEAN:
            gain = self.gain(baseline, group, column)
            return None if gain is None else gain.interval.holds_zero
        if self.record(baseline, MEAN) is None or self.record(group, MEAN) is None:
            return None
        names = self.members(self.mean_name)
        first, second = (complete_runs(one, names) for one in (baseline, group))
        gains = [self.gain(first, second, name) for name in names]
        found = [gain for gain in gains if gain is not None]
        return mean_gain(found).interval.holds_zero if len(found) == len(gains) else None

    def gain(self, baseline: Group, group: Group, benchmark: str) -> Gain | None:
        """Returns a group's gain over another on a set, computed once."""
        key = (baseline.name, len(baseline.runs), group.name, len(group.runs), benchmark)
        if key not in self.gains:
            self.gains[key] = gain_over(baseline, group, benchmark) if group.scores(benchmark) else None
        return self.gains[key]

    @cached_property
    def gains(self) -> dict[tuple[str, int, str, int, str], Gain | None]:
        """The gains that were computed."""
        return {}


def complete_runs(group: Group, names: Sequence[str]) -> Group:
    """Returns a group's runs that answered all of some sets: the group itself if all have."""
    runs = [run for run in group.runs if all(name in run.sets for name in names)]
    return group if len(runs) == len(group.runs) else Group(group.name, runs)


def method_table(scores: Scores, title: str) -> ReportTable:
    """Returns one row for every group and one column for every set and the mean."""
    columns = [*scores.benchmarks, *([MEAN] if scores.mean_name else [])]
    best = {column: scores.best(column) for column in columns}
    rows, records, bold = [], [], set()
    for number, group in enumerate(scores.groups):
        cells = []
        for column in columns:
            record = scores.record(group, column)
            noise = {
                "best": scores.inside_the_noise(best[column][0], group, column) if record and best[column] else None,
                "m2pt": scores.inside_the_noise(scores.lead, group, column) if record else None,
            }
            cells.append("" if record is None else cell_text(record, noise["best"], noise["m2pt"]))
            if group in best[column]:
                bold.add((number, 3 + len(cells) - 1))
            if record is not None:
                records.append(cell_record(group, column, record, noise))
        rows.append((group.name, trained_text(group), str(len(group.runs)), *cells))
    titles = [Column("method"), Column("trained %", is_number=True), Column("seeds", is_number=True)]
    titles += [Column(column_title(scores, column), is_number=True) for column in columns]
    return ReportTable(title, titles, rows, records, table_notes(scores, rows), frozenset(bold))


def cell_text(record: Record, like_best: bool | None, like_lead: bool | None) -> str:
    """Returns a cell: mean, deviation over seeds and marks."""
    unit = unit_of_record(record)
    deviation = record["percent_deviation_over_seeds"]
    text = digits(record["percent"], unit) + ("" if deviation is None else f" ± {digits(deviation, unit)}")
    chance = record["chance_percent"]
    marks = IN_NOISE.strip() * bool(like_best) + NOT_M2PT * bool(like_lead)
    marks += AT_CHANCE.strip() * (chance is not None and record["percent_low"] <= chance)
    return f"{text} {marks}".rstrip()


def cell_record(group: Group, column: str, record: Record, noise: Mapping[str, bool | None]) -> dict[str, Any]:
    """Returns a cell with all digits."""
    return {
        "method": group.name,
        "trained_percent": trained_percent(group),
        "set": record["set"],
        "seeds": record["seeds"],
        "percent": record["percent"],
        "percent_deviation_over_seeds": record["percent_deviation_over_seeds"],
        "percent_low": record["percent_low"],
        "percent_high": record["percent_high"],
        "score": record["score"],
        "maximum": record["maximum"],
        "difference_to_best_inside_the_noise": noise["best"],
        "difference_to_m2pt_inside_the_noise": noise["m2pt"],
    }


def unit_of_record(record: Record) -> float:
    """Returns what one percent is in the unit that a set is quoted in: points of MME, or percent."""
    return record["maximum"] / 100 if record["maximum"] not in (1.0, 100.0) else 1.0


def column_title(scores: Scores, column: str) -> str:
    """Returns a column's title: the set with the number's maximum if it is no percent, or the mean's name."""
    if column == MEAN:
        return scores.mean_name if scores.mean_name in MMAVG_LABELS else MEAN
    record = next(record for group in scores.groups if (record := scores.record(group, column)))
    of = "" if unit_of_record(record) == 1.0 else f" (of {record['maximum']:.0f})"
    return f"{set_name(column, record['part'])}{of}"


def trained_percent(group: Group) -> float | None:
    """Returns how much of the model a group trains, in percent; None if it is not recorded."""
    trainable = group.runs[0].record.get("trainable")
    percent = trainable.get("percent") if isinstance(trainable, dict) else None
    if isinstance(percent, int | float):
        return float(percent)
    return None if any(run.is_tuned for run in group.runs) else 0.0


def trained_text(group: Group) -> str:
    """Returns the trained percentage with three digits."""
    percent = trained_percent(group)
    return "" if percent is None else f"{percent:.3g}"


def table_notes(scores: Scores, rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns how the table is to be read, and what is not in it."""
    cells = [text for row in rows for text in row[3:]]
    marks = {
        "bold": "bold: the highest mean of the column",
        IN_NOISE.strip(): f"{IN_NOISE.strip()} difference to the best inside the noise (its paired 95% interval has 0)",
        NOT_M2PT: f"{NOT_M2PT} difference to {scores.lead.name if scores.lead else 'M2PT'} inside the noise",
    }
    notes = ["; ".join(text for mark, text in marks.items() if mark == "bold" or any(mark in cell for cell in cells))]
    if scores.mean_name and scores.mean_name not in MMAVG_LABELS:
        notes.append(f"{MEAN}: {scores.mean_name}")
    unread = [
        f"{record['unparsed']:,.1f} of {group.name} on {name}".replace(".0 of", " of")
        for group in scores.groups
        for name in scores.benchmarks
        if (record := scores.record(group, name)) and record["unparsed"]
    ]
    notes += [f"answers that could not be read and count as their rules say: {', '.join(unread)}"] if unread else []
    for group in scores.groups:
        fewer = [
            f"{name}: {len(group.scores(name))} of {len(group.runs)} seeds"
            for name in scores.benchmarks
            if len(group.scores(name)) < len(group.runs)
        ]
        if fewer:
            notes.append(f"{group.name} has not answered everything: {'; '.join(fewer)}")
    if any(len(group.runs) == 1 and any(run.is_tuned for run in group.runs) for group in scores.groups):
        notes.append("a method with one seed: its interval holds nothing of what another seed would change")
    return [*notes, *scores.table.notes]

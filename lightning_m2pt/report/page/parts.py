"""The parts of a report in their order: each holds tables, figures and sentences, or the reason why it is missing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lightning_m2pt.report.page.cases import RULE, Case, case_table, chosen_cases, counts_table
from lightning_m2pt.report.page.comparison import MEAN, Scores, column_title, method_table
from lightning_m2pt.report.page.cost import cost_table
from lightning_m2pt.report.page.curves import curve_records
from lightning_m2pt.report.page.drawings import MOST_BANDS, curves, grouped_bars, length_map, radar
from lightning_m2pt.report.page.figures import Look, ReportFigure, styles_of_methods
from lightning_m2pt.report.page.material import ComparedGroups
from lightning_m2pt.report.page.pictures import attention_maps, question_pictures
from lightning_m2pt.report.page.variants import LENGTHS, WHOLE, Variants, ablation, arguments_of, length_grid
from lightning_m2pt.report.tables.formats import ReportTable
from lightning_m2pt.report.tables.sweeps import Sweep, search_table
from lightning_m2pt.runs.evaluated import Group

MOST_IN_RADAR = 8
FEWEST_AXES = 3


@dataclass
class Part:
    """One part of the report.

    Attributes:
        name: Stem of its files.
        title: Its heading.
        tables: Its tables; the first is written to files.
        figures: Its figures.
        notes: Sentences below.
        cases: Questions that are shown with their pictures.
        pictures: Pictures of the cases as PNG, by set and question.
        maps: Further pictures as PNG, with their names.
        missing: Why there is nothing; empty if there is.
    """

    name: str
    title: str
    tables: list[ReportTable] = field(default_factory=list)
    figures: list[ReportFigure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cases: Sequence[Case] = ()
    pictures: dict[tuple[str, str], bytes] = field(default_factory=dict)
    maps: list[tuple[str, bytes]] = field(default_factory=list)
    missing: str = ""


def parts_of(
    comparison: ComparedGroups, lead: Group | None, sweeps: Sequence[Sweep], roots: Sequence[Path], count: int
) -> tuple[list[Part], Scores]:
    """Returns all parts of a comparison, and the scores of its Table 1.

    Args:
        comparison: What can be compared.
        lead: M2PT among its groups.
        sweeps: The sweeps whose searches are shown.
        roots: Folders that relative paths of configurations are looked for in.
        count: Won and lost questions shown of every set, at most.
    """
    parted, grid = ablation(comparison.groups, lead), length_grid(comparison.groups, lead)
    variants = [group for one in (parted, grid) if one for group in (one.base, *one.members.values())]
    methods = [group for group in comparison.groups if group is lead or group not in variants]
    scores = Scores(methods, lead)
    of_method = looks_of(scores)
    return [
        Part("methods", "Methods", tables=[method_table(scores, "")]),
        radar_part(scores, of_method),
        ablation_part(parted),
        lengths_part(grid),
        cases_part(scores, roots, count),
        attention_part(comparison.groups, lead),
        curves_part(methods, of_method),
        cost_part(comparison.groups),
        search_part(sweeps, comparison),
    ], scores


def looks_of(scores: Scores) -> dict[str, Look]:
    """Returns how every method is drawn: those with the highest means, which the radar chart shows, share no colour."""
    ranked = sorted(scores.groups, key=lambda group: -mean_percent(scores, group))
    untuned = [group.name for group in ranked if not any(run.is_tuned for run in group.runs)]
    return styles_of_methods([group.name for group in ranked], scores.lead.name if scores.lead else None, untuned)


def radar_part(scores: Scores, of_method: dict[str, Look]) -> Part:
    """Returns the radar chart (the paper's Figure 1) of the methods that answered all sets."""
    part = Part("radar", "All sets at a glance")
    if len(scores.benchmarks) < FEWEST_AXES:
        part.missing = f"a radar chart needs {FEWEST_AXES} sets, there are {len(scores.benchmarks)}"
        return part
    whole = [one for one in scores.groups if all(scores.record(one, name) for name in scores.benchmarks)]
    partial = [group.name for group in scores.groups if group not in whole]
    ranked = sorted(whole, key=lambda one: (one is not scores.lead, one.runs[0].is_tuned, -mean_percent(scores, one)))
    shown = [group for group in whole if group in ranked[:MOST_IN_RADAR]]
    if not shown:
        part.missing = "no method answered all sets"
        return part
    records = [
        {"method": group.name, "set": name, "percent": record["percent"], "seeds": record["seeds"]}
        for group in shown
        for name in scores.benchmarks
        if (record := scores.record(group, name))
    ]
    caption = "Percent of each set's maximum, from 0 in the middle to 100 at the rim; means over seeds."
    part.figures.append(ReportFigure("radar", part.title, caption, records, radar(of_method)))
    if partial:
        part.notes.append(f"not drawn, because sets are missing: {', '.join(partial)}")
    if len(whole) > len(shown):
        hidden = ", ".join(group.name for group in whole if group not in shown)
        part.notes.append(
            f"not drawn: {hidden} (at most {MOST_IN_RADAR} methods, those with the lowest means are left out)"
        )
    return part


def mean_percent(scores: Scores, group: Group) -> float:
    """Returns a group's mean over sets, or 0 without one."""
    record = scores.record(group, MEAN)
    return float(record["percent"]) if record else 0.0


def ablation_part(variants: Variants | None) -> Part:
    """Returns the ablation bars (the paper's Figure 4) and their table."""
    part = Part("ablation", "What each part of M2PT is worth")
    if variants is None:
        part.missing = "no run of M2PT without one of its parts (make sweep SWEEP=ablation)"
        return part
    names = {WHOLE: variants.base, **variants.members}
    groups = [Group(name, group.runs, group.resampled) for name, group in names.items()]
    scores = Scores(groups, groups[0])
    records = []
    for column in [*scores.benchmarks, *([MEAN] if scores.mean_name else [])]:
        for group in groups:
            record = scores.record(group, column)
            if record is not None:
                records.append(
                    {
                        "set": column_title(scores, column) if column == MEAN else column,
                        "variant": group.name,
                        "percent": record["percent"],
                        "percent_deviation_over_seeds": record["percent_deviation_over_seeds"],
                        "chance_percent": record["chance_percent"],
                        "seeds": record["seeds"],
                    }
                )
    caption = "Percent of the maximum, mean and standard deviation over seeds. Dotted: the best constant answer."
    part.figures.append(ReportFigure("ablation", part.title, caption, records, grouped_bars))
    part.tables.append(method_table(scores, ""))
    part.notes.append(f"{WHOLE} is {variants.base.name}; the others differ from it in the named part alone")
    return part


def lengths_part(variants: Variants | None) -> Part:
    """Returns the heat map over prompt lengths."""
    part = Part("lengths", "Prompt lengths")
    if variants is None:
        part.missing = "no grid of prompt lengths has run (make sweep SWEEP=lengths)"
        return part
    scores = Scores(list(variants.members.values()), None)
    column = MEAN if scores.mean_name else scores.benchmarks[0]
    records = [
        {
            "textual_length": lengths[0],
            "visual_length": lengths[1],
            "quantity": f"{column_title(scores, column)}, %" if column == MEAN else f"{column}, % of maximum",
            "percent": record["percent"],
            "percent_deviation_over_seeds": record["percent_deviation_over_seeds"],
            "seeds": record["seeds"],
        }
        for lengths, group in variants.members.items()
        if (record := scores.record(group, column))
    ]
    if not records:
        part.missing = "the runs of the grid did not answer the same sets"
        return part
    seeds = sorted({record["seeds"] for record in records})
    caption = (
        f"Mean and standard deviation over seeds ({' or '.join(map(str, seeds))}). The colours reach from the lowest "
        "to the highest cell, not from 0. Hatched: not run."
    )
    part.figures.append(ReportFigure("lengths", part.title, caption, records, length_map))
    own = [arguments_of(variants.base).get(key) for key in LENGTHS]
    part.notes.append(f"all other settings are those of {variants.base.name} ({own[0]} textual, {own[1]} visual rows)")
    if scores.mean_name:
        part.notes.append(f"mean over: {', '.join(scores.members(scores.mean_name))}")
    return part


def cases_part(scores: Scores, roots: Sequence[Path], count: int) -> Part:
    """Returns won and lost questions with their pictures (the paper's Figure 8)."""
    part = Part("cases", "Won and lost")
    if count == 0:
        part.missing = "not asked for (--cases 0)"
        return part
    cases = chosen_cases(scores, count)
    if cases is None:
        part.missing = "needs M2PT and another method"
        return part
    if not cases.chosen:
        part.missing = f"{cases.lead} and {cases.other} have no set with both won and lost questions"
        return part
    rule = RULE.format(lead=cases.lead, other=cases.other, count=count)
    wanted: dict[str, list[str]] = {}
    for case in cases.chosen:
        wanted.setdefault(case.benchmark, []).append(case.row["id"])
    run = next(group for group in scores.groups if group is scores.lead).runs[0]
    part.pictures, without = question_pictures(run, wanted, roots)
    part.cases = cases.chosen
    part.tables = [case_table(cases, rule), counts_table(cases)]
    part.notes = [rule, *cases.notes, *without]
    return part


def attention_part(groups: Sequence[Group], lead: Group | None) -> Part:
    """Returns attention maps (the paper's Figure 3) that ``m2pt attention`` left in a run's folder."""
    part = Part("attention", "Where the model looks")
    part.maps, part.notes = attention_maps(sorted(groups, key=lambda group: group is not lead))
    if not part.maps:
        part.missing = "no run has attention maps (m2pt attention --run RUN)"
    return part


def curves_part(groups: Sequence[Group], of_method: dict[str, Look]) -> Part:
    """Returns the learning curves."""
    part = Part("curves", "Learning curves")
    records, window = curve_records(groups)
    if not records:
        part.missing = "no run has a metrics.csv"
        return part
    averages = "every step" if window == 1 else f"means of {window} adjacent steps"
    caption = (
        f"Mean over seeds, with the range from the lowest to the highest (not of curves of more than {MOST_BANDS} "
        f"methods). Training loss: {averages}. Validation: held-out samples of the tuned tasks."
    )
    part.figures.append(ReportFigure("curves", part.title, caption, records, curves(of_method)))
    drawn = {record["method"] for record in records}
    without = [group.name for group in groups if any(run.is_tuned for run in group.runs) and group.name not in drawn]
    if without:
        part.notes.append(f"no metrics.csv: {', '.join(without)}")
    return part


def cost_part(groups: Sequence[Group]) -> Part:
    """Returns what the runs cost."""
    part = Part("cost", "Cost")
    table = cost_table(groups)
    if table.rows:
        part.tables.append(table)
    else:
        part.missing = "nothing was tuned"
    return part


def search_part(sweeps: Sequence[Sweep], comparison: ComparedGroups) -> Part:
    """Returns the searched learning rates of the sweeps whose runs are in a comparison, and of those without runs."""
    part = Part("rates", "Searched learning rates")
    keys = {"/".join(folder.parts[-2:]) for group in comparison.groups for folder in group.folders}
    own = [sweep for sweep in sweeps if not sweep.runs or any(keys & runs for runs in sweep.runs.values())]
    part.tables = [table for sweep in own if (table := search_table(sweep)) is not None]
    if not part.tables:
        part.missing = "no sweep has searched any: all rates are those that the experiments' files state"
    return part

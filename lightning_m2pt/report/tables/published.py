"""The paper's numbers beside ours, where they measure the same; ``?`` is a number we do not know.

Source: ``published_results.json``, with a source for every number. Comparable is a run on the paper's backbone (the
shipped experiment ``m2pt_vicuna7b`` names the same files), on all questions of the official set, under the rule of the
paper's code: ``mme_m2pt`` for MME; a language model judged all other sets (rule ``judge``), so no score by text rules
stands beside them. What differs otherwise is said below the table: the paper sampled its answers (temperature 0.2, no
seed), and its question files for the judged sets are not public.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_m2pt.configuration.paths import readable
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.means import MMAVG, MMAVG_MEMBERS, benchmark_mean
from lightning_m2pt.metrics.statistics import mean_and_deviation, percentile_interval
from lightning_m2pt.report.tables.contamination import recorded_tasks
from lightning_m2pt.report.tables.formats import Column, ReportTable
from lightning_m2pt.report.tables.groups import interval_text, unit_of, zero_shot_notes
from lightning_m2pt.runs.evaluated import EvaluatedRun, EvaluatedSet, Group

PAPER = "paper"
RESULTS_FILE = Path(__file__).with_name("published_results.json")
UNKNOWN, NOT_COMPARABLE, NOT_MEASURED = "?", "not comparable", ""
TRAINED = "trained_percent"


def published_results() -> dict[str, Any]:
    """Returns the stored setting, sources and numbers."""
    results: dict[str, Any] = json.loads(RESULTS_FILE.read_text(encoding="utf-8"))
    return results


def paper_report(groups: Sequence[Group]) -> ReportTable:
    """Returns our rows, then the published ones.

    Raises:
        BadInputError: If a run has nothing that can be compared, naming what differs.
    """
    results = published_results()
    sets = results["setting"]["sets"]
    columns = [TRAINED, *sets, MMAVG]
    rows: list[tuple[str, ...]] = []
    records: list[dict[str, Any]] = []
    notes: list[str] = []
    for group in groups:
        kept, excluded = comparable_sets(group, results["setting"])
        cells, record = our_cells(group, kept)
        rows.append((group.name, *(cells.get(column, NOT_MEASURED) for column in columns), "this run"))
        records.append({"method": group.name, **{column: record.get(column) for column in columns}, "sources": None})
        notes += [f"{group.name}, {name} {NOT_COMPARABLE}: {reason}" for name, reason in excluded.items()]
        notes += data_notes(group, kept, sets)
        notes += interval_notes(group, kept)
    for entry in results["methods"]:
        cells = entry["cells"]
        used = {name: cells[name]["source"] for name in cells}
        shown = (f"{cells[column]['value']:g}" if column in cells else UNKNOWN for column in columns)
        rows.append((entry["method"], *shown, ", ".join(dict.fromkeys(used.values()))))
        values = {column: cells[column]["value"] if column in cells else None for column in columns}
        records.append({"method": entry["method"], **values, "sources": used})
    notes += [f"{name}: {source}" for name, source in results["sources"].items()]
    notes += [
        f"{UNKNOWN}: not known; all sets but mme were scored by a Vicuna judge, and the paper sampled its answers "
        "(temperature 0.2, no seed)",
        *zero_shot_notes(groups),
    ]
    titles = [Column("method"), Column("trained %", is_number=True)]
    titles += [Column(name, is_number=True) for name in columns[1:]]
    return ReportTable("", [*titles, Column("source")], rows, records, notes)


def comparable_sets(group: Group, setting: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    """Returns the sets of a group that stand beside the paper's, and why the others do not.

    Raises:
        BadInputError: If there is none, naming what differs.
    """
    differing = [reason for run in group.runs for reason in other_model(run, setting)]
    reasons = {name: other_measurement(group.of_set(name), setting["sets"].get(name)) for name in group.benchmarks}
    kept = [name for name, reason in reasons.items() if not reason]
    excluded = {name: reason for name, reason in reasons.items() if reason}
    if differing or not kept:
        differing += [f"{name}: {reason}" for name, reason in excluded.items()]
        raise BadInputError(
            f"{group.name} and the paper did not measure the same; " + "; ".join(dict.fromkeys(differing)),
            where="--against paper",
            expected=f"the backbone of {setting['experiment']}, complete official sets, the paper's rules",
            hint="--rule mme=mme_m2pt scores MME as the paper's code does; the other sets need the rule judge",
        )
    return kept, excluded


def other_model(run: EvaluatedRun, setting: Mapping[str, Any]) -> list[str]:
    """Returns how a run's backbone and tuning data differ from the paper's; nothing if they do not."""
    model = run.config.get("model")
    if not isinstance(model, dict):
        return ["its backbone is not recorded (no config.yaml)"]
    own = arguments(model.get("backbone"))
    reasons = [
        f"backbone {key} is {readable(str(own.get(key)))} (the paper's: {ending})"
        for key, ending in setting["backbone"].items()
        if not str(own.get(key)).endswith(ending)
    ][:1]
    tasks, data = recorded_tasks(run.record), run.config.get("data")
    if run.is_tuned and isinstance(data, dict) and data.get("class_path") != setting["data"]:
        reasons.append(f"tuned on {data.get('class_path')} (the paper: {setting['data']})")
    elif run.is_tuned and tasks is not None and len(tasks) != setting["tuning_tasks"]:
        reasons.append(f"tuned on {len(tasks)} tasks (the paper: {setting['tuning_tasks']})")
    return reasons


def arguments(component: Any) -> dict[str, Any]:
    """Returns the arguments of a configured component, or none if it is not one."""
    found = component.get("init_args") if isinstance(component, dict) else None
    return found if isinstance(found, dict) else {}


def other_measurement(evaluated: Sequence[EvaluatedSet], published: Mapping[str, Any] | None) -> str:
    """Returns how a set's measurement differs from the paper's; empty if it does not."""
    if published is None:
        return "the paper does not have this set"
    rule = evaluated[0].settings["rule"]
    if rule != published["rule"]:
        return f"scored by {rule} (the paper: {published['rule']})"
    if evaluated[0].shots:
        return f"asked with {evaluated[0].shots} worked examples (the paper: none)"
    rows, official = evaluated[0].answered.predictions, Counter(published["questions"])
    asked = Counter(row["subtask"] for row in rows) if "" not in official else Counter({"": len(rows)})
    if asked != official:
        return f"{len(rows):,} questions (all: {official.total():,})"
    return ""


def our_cells(group: Group, kept: Sequence[str]) -> tuple[dict[str, str], dict[str, float | None]]:
    """Returns a group's cells as people and as programs read them; sets that are not comparable say so."""
    cells, record = dict.fromkeys(group.benchmarks, NOT_COMPARABLE), dict[str, float | None]()
    for name in kept:
        mean, deviation = mean_and_deviation([score.value * unit_of(score) for score in group.scores(name)])
        cells[name] = f"{mean:.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")
        record[name] = mean
    if all(name in kept for name in MMAVG_MEMBERS):
        values = {name: mean_and_deviation([score.value for score in group.scores(name)])[0] for name in kept}
        record[MMAVG] = benchmark_mean(values)[1]
        cells[MMAVG] = f"{record[MMAVG]:.2f}"
    trainable = group.runs[0].record.get("trainable")
    if isinstance(trainable, dict) and isinstance(trainable.get("percent"), int | float):
        record[TRAINED] = trainable["percent"]
        cells[TRAINED] = f"{trainable['percent']:g}"
    return cells, record


def interval_notes(group: Group, kept: Sequence[str]) -> list[str]:
    """Returns the 95% interval of every set that is compared."""
    units = {name: unit_of(group.scores(name)[0]) for name in kept}
    shown = {name: interval_text(percentile_interval(group.resampled_mean(name)), unit) for name, unit in units.items()}
    return [f"{group.name}, 95% interval of {name}: {interval}" for name, interval in shown.items()]


def data_notes(group: Group, kept: Sequence[str], sets: Mapping[str, Any]) -> list[str]:
    """Returns what is less than a reason to refuse: unrecorded tuning tasks, and another template."""
    notes = []
    if any(run.is_tuned and recorded_tasks(run.record) is None for run in group.runs):
        notes.append(f"{group.name}: whether it was tuned on all of the paper's tasks cannot be told from its record")
    for name in kept:
        template, theirs = group.of_set(name)[0].settings["template"], sets[name].get("template")
        if theirs not in (None, template):
            notes.append(f"{group.name}, {name}: asked in the template {template} (the paper: {theirs})")
    return notes

"""The table of a sweep's results, from what its complete runs wrote: one row for every variant, seeds averaged.

Statistics are those of every other table (`lightning_m2pt.metrics`); intervals and tests are `m2pt report`'s.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.sweep.jobs import Job
from experiments.sweep.record import State, SweepRecord, read_results
from lightning_m2pt.metrics.coverage import set_name
from lightning_m2pt.metrics.means import NEVER_A_MEMBER, benchmark_mean, limited_notes
from lightning_m2pt.metrics.statistics import mean_and_deviation
from lightning_m2pt.report.tables.formats import Column, ReportTable
from lightning_m2pt.runs.results_file import TUNED, UNTOUCHED
from lightning_m2pt.system.atomic_files import write_atomically

TABLE_FILE = "table.json"


@dataclass(frozen=True)
class SweepRow:
    """One variant's complete runs.

    Attributes:
        label: The variant's label.
        seeds: Seeds of the runs.
        runs: Their folders.
        sets: Names of the sets, with what of each was answered if not all.
        mean_of: Which mean the values are, usually ``MMAvg``; empty if no set but MME was answered.
        values: It in percent, one a run.
        mme: MME's points, one a run that answered it.
        trained_percent: Trained numbers in percent of the model's.
        rates: Learning rate by part where a search chose another than the file's.
    """

    label: str
    seeds: list[int]
    runs: list[str]
    sets: list[str]
    mean_of: str
    values: list[float]
    mme: list[float]
    trained_percent: float
    rates: dict[str, float]


def sweep_rows(jobs: Sequence[Job], record: SweepRecord, rates: Mapping[str, Mapping[str, float]]) -> list[SweepRow]:
    """Returns one row for every variant with complete runs, the frozen model first.

    Args:
        jobs: The sweep's cells.
        record: What became of them.
        rates: Searched learning rates by variant's label.
    """
    runs: dict[str, list[tuple[int, str, dict[str, Any]]]] = {}
    for job in jobs:
        entry = record.read(job)
        if entry is not None and record.state(job) == State.DONE:
            found = (int(job.name.split()[-1]), entry.run, read_results(Path(entry.run)))
            runs.setdefault(job.label, []).append(found)
    rows = [row_of(label, of_label, TUNED, rates.get(label, {})) for label, of_label in runs.items()]
    frozen = {json.dumps(run[2][UNTOUCHED], sort_keys=True): run for of_label in runs.values() for run in of_label}
    if len(frozen) == 1:  # several backbones or question sets have no common one
        of_frozen = row_of(UNTOUCHED, list(frozen.values()), UNTOUCHED, {})
        rows.insert(0, replace(of_frozen, seeds=[], runs=[], trained_percent=0.0))
    return rows


def row_of(
    label: str, found: Sequence[tuple[int, str, dict[str, Any]]], which: str, rates: Mapping[str, float]
) -> SweepRow:
    """Returns one row from its runs' results.

    Args:
        label: The variant's label.
        found: Seed, folder and results of every run.
        which: ``tuned`` or ``frozen``.
        rates: Searched learning rates by part.
    """
    scores = [results[which] for _, _, results in found]
    names = [{name: set_name(name, score.get("part", "")) for name, score in of_run.items()} for of_run in scores]
    percents = [
        {text: of_run[name]["value"] for name, text in of_names.items() if name != NEVER_A_MEMBER}
        for of_run, of_names in zip(scores, names, strict=True)
    ]
    means = [benchmark_mean(values) for values in percents if values]
    return SweepRow(
        label,
        [seed for seed, _, _ in found],
        [run for _, run, _ in found],
        list(dict.fromkeys(text for of_names in names for text in of_names.values())),
        means[0][0] if means else "",
        [value for _, value in means],
        [of_run[NEVER_A_MEMBER]["raw"] for of_run in scores if NEVER_A_MEMBER in of_run],
        found[0][2]["parameters"]["percent"],
        dict(rates),
    )


def results_table(rows: Sequence[SweepRow]) -> ReportTable:
    """Returns the rows as a table for people and for programs."""
    limits = limited_notes((row.label, row.sets) for row in rows)
    titles = list(dict.fromkeys(row.mean_of for row in rows if row.mean_of))
    mean_title = titles[0] if len(titles) == 1 and len(limits) <= 1 else "mean over sets"
    columns = {
        "label": [row.label for row in rows],
        "seeds": [str(len(row.seeds)) if row.seeds else "" for row in rows],
        mean_title: [spread_text(row.values, 1) for row in rows],
        "MME": [spread_text(row.mme, 0) for row in rows],
        "trained %": [f"{row.trained_percent:.3g}" for row in rows],
    }
    shown = {title: texts for title, texts in columns.items() if any(texts)}
    return ReportTable(
        "",
        [Column(title, is_number=title != "label") for title in shown],
        list(zip(*shown.values(), strict=True)),
        [record_of(row) for row in rows],
        ["Mean and standard deviation over seeds; `m2pt report RUNS` has every set with its intervals.", *limits],
    )


def spread_text(values: Sequence[float], digits: int) -> str:
    """Returns mean and standard deviation over seeds."""
    if not values:
        return ""
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.{digits}f}" + ("" if deviation is None else f" ± {deviation:.{digits}f}")


def record_of(row: SweepRow) -> dict[str, Any]:
    """Returns a row with all digits."""
    mean, deviation = mean_and_deviation(row.values) if row.values else (None, None)
    return {
        "label": row.label,
        "seeds": row.seeds,
        "sets": row.sets,
        "mean_of": row.mean_of,
        "mean": mean,
        "standard_deviation": deviation,
        "values": row.values,
        "mme": row.mme,
        "trained_percent": row.trained_percent,
        "searched_rates": row.rates,
        "runs": row.runs,
    }


def write_table(folder: Path, table: ReportTable) -> None:
    """Writes the table's records where the reports find them."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"format": 1, "rows": list(table.records)}
    write_atomically(folder / TABLE_FILE, (json.dumps(content, indent=2) + "\n").encode())

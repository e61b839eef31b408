"""What sweeps leave for reports: the labels of their runs, and the learning rates that they searched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_m2pt.report.tables.formats import Column, ReportTable
from lightning_m2pt.system.strict_json import parse_json

SWEEPS, TABLE_FILE, SEARCH_FILE = "sweeps", "table.json", "search.json"
FORMAT = 1
ACCURACY = "val/answer_accuracy"
STATED = 0
"""Number of the trial with the rates that an experiment's file states."""


@dataclass(frozen=True)
class Sweep:
    """One sweep's folder.

    Attributes:
        name: Its name.
        runs: The last two parts of every run's folder, by label.
        search: The content of its search file; empty if there is none.
    """

    name: str
    runs: dict[str, set[str]] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)

    @property
    def experiments(self) -> int:
        """How many experiments its runs are of."""
        return len({run.split("/")[0] for runs in self.runs.values() for run in runs})


def found_sweeps(outputs: Sequence[Path]) -> tuple[list[Sweep], list[str]]:
    """Returns the sweeps, those with the most experiments first, and a sentence for every file that is none."""
    sweeps, left_out = [], []
    for folder in (path for root in outputs for path in sorted((root / SWEEPS).glob("*")) if path.is_dir()):
        contents = {}
        for name, key in ((TABLE_FILE, "rows"), (SEARCH_FILE, "variants")):
            path = folder / name
            if not path.is_file():
                continue
            content = read_json(path)
            if content is None or content.get("format") != FORMAT or key not in content:
                left_out.append(f"{path}: not a file of format {FORMAT} with {key!r}")
            else:
                contents[name] = content
        if contents:
            rows = contents.get(TABLE_FILE, {}).get("rows", [])
            runs = {row["label"]: {last_parts(run) for run in row["runs"]} for row in rows if row.get("runs")}
            sweeps.append(Sweep(folder.name, runs, contents.get(SEARCH_FILE, {})))
    return sorted(sweeps, key=lambda sweep: (-sweep.experiments, sweep.name)), left_out


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns a JSON object, or None if the file is none."""
    try:
        content = parse_json(path.read_bytes(), path)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def last_parts(run: str) -> str:
    """Returns experiment and run of a run's folder: they hold when the outputs have moved."""
    return "/".join(Path(run).parts[-2:])


def search_table(sweep: Sweep) -> ReportTable | None:
    """Returns the searched learning rates of a sweep, one row a method; None if it searched none."""
    variants: Mapping[str, Mapping[str, Any]] = sweep.search.get("variants", {})
    if not variants:
        return None
    rows, records = [], []
    for label, found in variants.items():
        trials, chosen = found["trials"], found["chosen"]
        ended = [trial for trial in trials if isinstance(trial.get(ACCURACY), int | float)]
        accuracies = {trial["number"]: trial[ACCURACY] for trial in ended}
        rates = next((trial["rates"] for trial in trials if trial["number"] == chosen), None)
        rows.append(
            (
                label,
                f"{len(ended)} of {len(trials)}",
                str(found["steps"]),
                rates_text(found["stated"]),
                percent_text(accuracies.get(STATED)),
                "" if rates is None else "as stated" if chosen == STATED else rates_text(rates),
                percent_text(accuracies.get(chosen)),
            )
        )
        records.append(
            {
                "method": label,
                "trials_with_figures": len(ended),
                "trials": len(trials),
                "steps_of_a_trial": found["steps"],
                "stated_rates": found["stated"],
                "accuracy_of_stated": accuracies.get(STATED),
                "chosen_trial": chosen,
                "chosen_rates": rates,
                "accuracy_of_chosen": accuracies.get(chosen),
            }
        )
    columns = [Column("method"), Column("trials", is_number=True), Column("steps each", is_number=True)]
    columns += [Column("rates as stated"), Column("validation %", is_number=True)]
    columns += [Column("rates chosen"), Column("validation %", is_number=True)]
    return ReportTable(f"sweep {sweep.name}", columns, rows, records, search_notes(sweep, records))


def search_notes(sweep: Sweep, records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns what decided, and whether every method had the same budget."""
    budgets = {(record["trials"], record["steps_of_a_trial"]) for record in records}
    if len(budgets) == 1:
        trials, steps = budgets.pop()
        notes = [f"every method had the same budget: {trials} trials of {steps} steps"]
    else:
        listed = ", ".join(
            f"{record['method']}: {record['trials']} x {record['steps_of_a_trial']}" for record in records
        )
        notes = [f"the methods did not have the same budget (trials x steps): {listed}"]
    unfinished = [record["method"] for record in records if record["chosen_trial"] is None]
    if unfinished:
        notes.append(f"nothing chosen yet: {', '.join(unfinished)}")
    lost = [record["method"] for record in records if record["trials_with_figures"] < record["trials"]]
    if lost:
        notes.append(f"trials without figures diverged or have not ended: {', '.join(lost)}")
    decides = sweep.search.get("decides")
    return [*notes, f"chosen by {decides}"] if isinstance(decides, str) else notes


def rates_text(rates: Mapping[str, float]) -> str:
    """Returns learning rates by part in words."""
    return ", ".join(f"{part} {rate:g}" for part, rate in rates.items())


def percent_text(share: float | None) -> str:
    """Returns a share in percent; empty if there is none."""
    return "" if share is None else f"{100 * share:.1f}"

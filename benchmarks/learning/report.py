"""From stored scores of the learning runs to the tables of both backbones: means, bounds, comparisons."""

import itertools
import json
import math
import statistics
from pathlib import Path
from typing import Any

from benchmarks.report.cells import CONFIDENCE, Cell, Table, difference
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.coverage import set_name
from lightning_m2pt.metrics.means import benchmark_mean
from lightning_m2pt.report.tables.scores import chance_corrected

BACKBONES = ("testbed", "testbed_patch12")
FROZEN, MEASURED = "frozen", "m2pt_base"
LABELS = {
    FROZEN: "frozen",
    "projector": "projector",
    MEASURED: "M2PT",
    "m2pt_patches": "M2PT, patches only",
    "full": "full tuning",
}
BACKBONE_FOLDER = Path("lightning_m2pt/embedded")
INTRODUCTION = (
    "Both embedded backbones, with the rates that the experiments' files state. These runs came before the",
    "[comparison](../../docs/methods.md#the-comparison), which gives every method the same search and is the README's",
    "table; they stay because only they cover the second backbone.",
    "",
    "Percent of each set's maximum, mean ± standard deviation over seeds. MMAvg is the published mean of seven sets,",
    "MME not among them. Chance is the best constant answer; chance-corrected is the mean over all sets, MME included,",
    "of (score - chance) / (100 - chance).",
)
CORRECTED = "chance-corrected"
CEILING = 95.0
"""A set is of no use where every method is above this percentage."""


def columns_of(scores: dict[str, Any]) -> dict[str, float]:
    """Returns percent of the maximum of every set, the mean over sets, and the chance-corrected mean over all."""
    sets = {name: score for name, score in scores.items() if isinstance(score, dict)}
    values = {name: float(score["value"]) for name, score in sets.items()}
    name, mean = benchmark_mean({set_name(name, sets[name].get("part", "")): value for name, value in values.items()})
    corrected = statistics.mean(chance_corrected(score["value"], score["chance"]) for score in sets.values())
    return values | {name: mean, CORRECTED: corrected}


def table_of(content: dict[str, Any]) -> Table:
    """Returns the figures of one backbone by method and column."""
    table: Table = {FROZEN: {name: Cell((value,)) for name, value in columns_of(content[FROZEN]).items()}}
    for method in (name for name in LABELS if name in content["methods"]):
        runs = [columns_of(run) for run in content["methods"][method]["runs"]]
        table[method] = {name: Cell(tuple(run[name] for run in runs)) for name in runs[0]}
    return table


def chances_of(content: dict[str, Any]) -> dict[str, float]:
    """Returns the chance line of every set."""
    return {name: score["chance"] for name, score in content[FROZEN].items()}


def missed_gates(record: dict[str, Any]) -> list[str]:
    """Returns a sentence on the gates that a backbone's record says it misses; nothing where it passes all.

    Args:
        record: The backbone's ``training.json``.
    """
    missed = [
        f"{gate['name'].partition(',')[0]} {gate['figure']:.3f} of {gate['threshold']:.2f}"
        for gate in record["gates"]["gates"]
        if gate["verdict"] == "open"
    ]
    return [f"**This backbone misses gates: {', '.join(missed)}** (docs/testbed.md lists the attempts).", ""] * bool(
        missed
    )


def backbone_section(backbone: str, content: dict[str, Any]) -> list[str]:
    """Returns one backbone's table and what follows from it."""
    table, chance = table_of(content), chances_of(content)
    columns = list(table[FROZEN])
    lines = [f"## Backbone `{backbone}`", ""]
    lines += missed_gates(json.loads((BACKBONE_FOLDER / backbone / "training.json").read_text()))
    lines += ["| | seeds | trained | " + " | ".join(columns) + " |", "| --- | ---: | ---: |" + " ---: |" * len(columns)]
    for method, row in table.items():
        counted = content["methods"][method]["parameters"] if method != FROZEN else None
        trained = f"{counted['trained']:,} ({counted['percent']}%)" if counted else "0"
        seeds = len(row[columns[0]].values) if counted else "-"
        lines.append(f"| {LABELS[method]} | {seeds} | {trained} | " + " | ".join(map(str, row.values())) + " |")
    shown = [f"{chance[column]:.1f}" if column in chance else "" for column in columns]
    lines += [f"| chance | | | {' | '.join(shown)} |", ""]
    return [*lines, *signal_lines(table, content, columns[-2])]


def signal_lines(table: Table, content: dict[str, Any], mean_column: str) -> list[str]:
    """Returns M2PT's lower bounds against chance, and the spread of methods in units of the seeds' deviation."""
    sets, lines = content[FROZEN], []
    if MEASURED in table:
        bounds = {name: table[MEASURED][name].lower_bound(score["n"]) for name, score in sets.items()}
        shown = [f"{name} {bound:.1f} (chance {sets[name]['chance']:.1f})" for name, bound in bounds.items()]
        below = [name for name, bound in bounds.items() if not bound > sets[name]["chance"]]
        lines += [
            f"M2PT's lower {CONFIDENCE:.0%} bounds over seeds and questions: {', '.join(shown)}. "
            f"Not above chance: {', '.join(below) or 'none'}.",
            "",
        ]
    trained = {method: row[mean_column] for method, row in table.items() if method != FROZEN}
    deviation = max((cell.deviation for cell in trained.values()), default=0.0)
    if deviation:
        for names, label in ((trained, "trained methods"), (table, "all rows")):
            means = {method: table[method][mean_column].mean for method in names}
            best, weakest = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
            spread = means[best] - means[weakest]
            lines.append(
                f"{mean_column}, {label}: best ({LABELS[best]}) minus weakest ({LABELS[weakest]}) {spread:.1f} points, "
                f"{spread / deviation:.1f} times the largest standard deviation over seeds ({deviation:.2f})."
            )
    ceiling = [name for name in sets if all(row[name].mean > CEILING for row in table.values())]
    return [*lines, f"Sets above {CEILING:.0f} for every method: {', '.join(ceiling) or 'none'}.", ""]


def verdict(differences: list[tuple[float, float]]) -> str:
    """Returns whether a difference is clear (its 95% interval leaves out zero) and of one sign on every backbone."""
    if any(math.isnan(half) for _, half in differences):
        return "one seed: no verdict"
    signs = {(value > 0) if abs(value) > half else None for value, half in differences}
    if signs == {None}:
        return "not clear on either"
    if None in signs:
        return "**one backbone only**"
    return "on both" if len(signs) == 1 else "**opposite**"


def comparison_lines(tables: dict[str, Table]) -> list[str]:
    """Returns each pair of methods' difference on each backbone, marked where it holds on one backbone only."""
    methods = [name for name in reversed(LABELS) if all(name in table for table in tables.values())]
    column = list(tables[BACKBONES[0]][FROZEN])[-2]
    lines = ["## What holds on both backbones", "", f"Differences of the means ({column}), ± half of the 95% interval."]
    lines += ["", "| difference | " + " | ".join(f"`{name}`" for name in tables) + " | clear |"]
    lines += ["| --- |" + " ---: |" * len(tables) + " --- |"]
    for better, other in itertools.combinations(methods, 2):
        differences = [difference(table[better][column], table[other][column]) for table in tables.values()]
        shown = [f"{value:+.1f}" + ("" if math.isnan(half) else f" ± {half:.1f}") for value, half in differences]
        lines.append(f"| {LABELS[better]} - {LABELS[other]} | {' | '.join(shown)} | {verdict(differences)} |")
    return [*lines, ""]


def write_report(folder: Path) -> None:
    """Writes ``learning.md`` from the stored scores of both backbones, as far as they are there."""
    paths = {name: folder / f"learning_{name}.json" for name in BACKBONES}
    contents = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
    if not contents:
        raise BadInputError(
            "no learning run is stored", where=str(folder), expected="what benchmarks.learning.table writes"
        )
    lines = ["# Learning on the testbed", "", *INTRODUCTION, ""]
    for name, content in contents.items():
        lines += backbone_section(name, content)
    tables = {name: table_of(content) for name, content in contents.items()}
    if len(tables) == len(BACKBONES):
        lines += comparison_lines(tables)
    else:
        lines += [
            f"Measured on the backbone `{next(iter(tables))}` only: whether any of it holds on another is open.",
            "",
        ]
    (folder / "learning.md").write_text("\n".join(lines))

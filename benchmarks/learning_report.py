"""From stored scores of the learning runs to the table and the picture: means, deviations, bounds, comparisons."""

import itertools
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from experiments.results_table import chance_corrected
from lightning_m2pt.metrics.means import benchmark_mean

BACKBONES = ("testbed", "testbed_patch16")
FROZEN, MEASURED = "frozen", "m2pt_base"
LABELS = {FROZEN: "frozen", "projector": "projector", MEASURED: "M2PT", "full": "full tuning"}
COLOURS = {FROZEN: "#999999", "projector": "#56b4e9", MEASURED: "#d55e00", "full": "#009e73"}  # for the colour-blind
FIGURE = Path("docs/figures/learning.png")
CORRECTED = "chance-corrected"
CONFIDENCE = 0.95
CLEAR_ERRORS = 2.0
"""A difference of two means counts as clear beyond so many of its standard errors over seeds."""


@dataclass(frozen=True)
class Cell:
    """A method's figures in one column, one for each seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return statistics.mean(self.values)

    @property
    def deviation(self) -> float:
        """The standard deviation over seeds; 0 of a single value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def error(self) -> float:
        """The standard error of the mean over seeds."""
        return self.deviation / len(self.values) ** 0.5

    @property
    def lower_bound(self) -> float:
        """The lower end of the two-sided 95% interval of the mean (Student's t over seeds)."""
        if len(self.values) == 1:
            return self.mean
        return self.mean - float(student.ppf((1 + CONFIDENCE) / 2, len(self.values) - 1)) * self.error

    def __str__(self) -> str:
        """Mean and deviation."""
        return f"{self.mean:.1f}" + (f" ± {self.deviation:.1f}" if len(self.values) > 1 else "")


Row = dict[str, Cell]
Table = dict[str, Row]


def columns_of(scores: dict[str, Any]) -> dict[str, float]:
    """Returns percent of the maximum of every set, the mean over sets, and the chance-corrected mean over all."""
    sets = {name: score for name, score in scores.items() if isinstance(score, dict)}
    values = {name: float(score["value"]) for name, score in sets.items()}
    name, mean = benchmark_mean(values)
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


def backbone_section(backbone: str, content: dict[str, Any]) -> list[str]:
    """Returns one backbone's table and what follows from it."""
    table, chance = table_of(content), chances_of(content)
    columns = list(table[FROZEN])
    lines = [f"## Backbone `{backbone}`", ""]
    lines += ["| | seeds | trained | " + " | ".join(columns) + " |", "| --- | ---: | ---: |" + " ---: |" * len(columns)]
    for method, row in table.items():
        counted = content["methods"][method]["parameters"] if method != FROZEN else None
        trained = f"{counted['trained']:,} ({counted['percent']}%)" if counted else "0"
        seeds = len(row[columns[0]].values) if counted else "-"
        lines.append(f"| {LABELS[method]} | {seeds} | {trained} | " + " | ".join(map(str, row.values())) + " |")
    shown = [f"{chance[column]:.1f}" if column in chance else "" for column in columns]
    lines += [f"| chance | | | {' | '.join(shown)} |", ""]
    return [*lines, *signal_lines(table, chance, columns[-2])]


def signal_lines(table: Table, chance: dict[str, float], mean_column: str) -> list[str]:
    """Returns M2PT's lower bounds against chance, and the spread of methods in units of the seeds' deviation."""
    measured = table[MEASURED]
    bounds = [f"{name} {measured[name].lower_bound:.1f} (chance {line:.1f})" for name, line in chance.items()]
    below = [name for name, line in chance.items() if measured[name].lower_bound <= line]
    means = {method: row[mean_column].mean for method, row in table.items()}
    deviation = max(row[mean_column].deviation for row in table.values())
    best, weakest = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    spread = means[best] - means[weakest]
    ceiling = [name for name in chance if all(row[name].mean > 95 for row in table.values())]
    return [
        f"M2PT's lower 95% bounds over seeds: {', '.join(bounds)}; not above chance: {', '.join(below) or 'none'}.",
        "",
        f"Best ({LABELS[best]}) minus weakest ({LABELS[weakest]}) on {mean_column}: {spread:.1f} points, "
        f"{spread / deviation:.1f} times the largest standard deviation over seeds of a method ({deviation:.2f}).",
        f"Sets above 95 for every method: {', '.join(ceiling) or 'none'}.",
        "",
    ]


def comparison_lines(tables: dict[str, Table]) -> list[str]:
    """Returns each pair of methods' difference on each backbone, marked where it holds on one backbone only."""
    first = tables[BACKBONES[0]]
    column = list(first[FROZEN])[-2]
    lines = ["## What holds on both backbones", "", f"Differences of the means ({column}) and their standard errors."]
    lines += ["", "| difference | " + " | ".join(f"`{name}`" for name in tables) + " | holds |"]
    lines += ["| --- |" + " ---: |" * len(tables) + " --- |"]
    for better, other in itertools.combinations([name for name in reversed(LABELS) if name in first], 2):
        if not all({better, other} <= set(table) for table in tables.values()):
            continue
        shown, signs = [], set()
        for table in tables.values():
            difference = table[better][column].mean - table[other][column].mean
            error = (table[better][column].error ** 2 + table[other][column].error ** 2) ** 0.5
            shown.append(f"{difference:+.1f} ± {error:.1f}")
            is_clear = abs(difference) > CLEAR_ERRORS * error
            signs.add((difference > 0) if is_clear else None)
        holds = "on both" if len(signs) == 1 and None not in signs else "**one backbone only**"
        if signs == {None}:
            holds = "not clear on either"
        lines.append(f"| {LABELS[better]} - {LABELS[other]} | {' | '.join(shown)} | {holds} |")
    return [*lines, ""]


def draw(table: Table, chance: dict[str, float]) -> None:
    """Draws one group of bars per set, with deviations and chance lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = list(table[FROZEN])[:-1]
    figure, axes = pyplot.subplots(figsize=(10, 3.6), dpi=150)
    width = 0.8 / len(table)
    for position, (method, row) in enumerate(table.items()):
        axes.bar(
            [index + position * width for index in range(len(columns))],
            [row[column].mean for column in columns],
            width,
            yerr=[row[column].deviation for column in columns],
            label=LABELS[method],
            color=COLOURS[method],
            capsize=2,
        )
    for index, column in enumerate(columns):
        if column in chance:
            axes.hlines(chance[column], index - width / 2, index + 0.8 - width / 2, colors="black", linestyles="dotted")
    axes.set_xticks([index + 0.8 / 2 - width / 2 for index in range(len(columns))], columns)
    axes.set_ylabel("percent of maximum")
    axes.set_ylim(0, 100)
    axes.legend(frameon=False, ncols=4, loc="upper left", bbox_to_anchor=(0, 1.14))
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE)


def write_report(folder: Path) -> None:
    """Writes ``learning.md`` and the picture from the stored scores of both backbones, as far as they are there."""
    paths = {name: folder / f"learning_{name}.json" for name in BACKBONES}
    contents = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
    lines = [
        "# Learning on the testbed",
        "",
        "Percent of each set's maximum, mean ± standard deviation over seeds.",
        "",
    ]
    for name, content in contents.items():
        lines += backbone_section(name, content)
    tables = {name: table_of(content) for name, content in contents.items()}
    if len(tables) == len(BACKBONES):
        lines += comparison_lines(tables)
    (folder / "learning.md").write_text("\n".join(lines))
    first = next(iter(contents))
    draw(tables[first], chances_of(contents[first]))

"""The learning table: several seeds of m2pt_base and projector against the frozen model, as mean and deviation.

    python benchmarks/learning.py --seeds 0 1 2

Every cell is an ordinary ``m2pt train``; this script only reads the runs' ``results.json``. It writes
``benchmarks/results/learning.json`` and ``.md`` and the README's picture ``docs/figures/learning.png``.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from experiments.results_table import chance_corrected

RESULTS = Path("benchmarks/results")
FIGURE = Path("docs/figures/learning.png")
EXPERIMENTS = ("projector", "m2pt_base")
LABELS = {"frozen": "frozen", "projector": "projector", "m2pt_base": "M2PT"}
COLOURS = {"frozen": "#999999", "projector": "#56b4e9", "m2pt_base": "#d55e00"}  # readable for the colour-blind


def train(experiment: str, seed: int) -> dict[str, Any]:
    """Runs one cell (or finds it done) and returns its results."""
    words = ["train", "--config", f"experiments/{experiment}.yaml", "--seed_everything", str(seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(
        [sys.executable, "-m", "experiments.main", *words], check=True, capture_output=True, text=True, env=environment
    )
    (line,) = [line for line in answer.stdout.splitlines() if line.startswith("run ")]
    return json.loads((Path(line.split()[-1]) / "results.json").read_text())  # type: ignore[no-any-return]


def means(scores: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Returns percent of the maximum of every set, their mean, and the chance-corrected mean."""
    values = {name: float(score["value"]) for name, score in scores.items()}
    return values | {
        "mean": statistics.mean(values.values()),
        "mean, chance-corrected": statistics.mean(
            chance_corrected(score["value"], score["chance"]) for score in scores.values()
        ),
    }


def summarise(results: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, tuple[float, float]]]:
    """Returns mean and standard deviation over seeds, by row and column."""
    frozen = means(results["m2pt_base"][0]["frozen"])
    table = {"frozen": {column: (value, 0.0) for column, value in frozen.items()}}
    for experiment, runs in results.items():
        columns = [means(run["tuned"]) for run in runs]
        table[experiment] = {
            column: (
                statistics.mean(each[column] for each in columns),
                statistics.stdev(each[column] for each in columns),
            )
            for column in columns[0]
        }
    return table


def markdown(table: dict[str, dict[str, tuple[float, float]]], chance: dict[str, float], counts: dict[str, Any]) -> str:
    """Returns the table as Markdown."""
    columns = list(table["frozen"])
    lines = ["| | trained | " + " | ".join(columns) + " |", "| --- | ---: |" + " ---: |" * len(columns)]
    for row, cells in table.items():
        shown = [f"{mean:.1f}" + (f" ± {spread:.1f}" if row != "frozen" else "") for mean, spread in cells.values()]
        lines.append(f"| {LABELS[row]} | {counts.get(row, '0')} | " + " | ".join(shown) + " |")
    chances = [f"{chance[column]:.1f}" if column in chance else "" for column in columns]
    lines.append(f"| chance | | {' | '.join(chances)} |")
    return "\n".join(lines) + "\n"


def draw(table: dict[str, dict[str, tuple[float, float]]], chance: dict[str, float]) -> None:
    """Draws one group of bars per set, with deviations and chance lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = [*chance, "mean"]
    figure, axes = pyplot.subplots(figsize=(8, 3.4), dpi=150)
    width = 0.8 / len(table)
    for position, (row, cells) in enumerate(table.items()):
        places = [index + position * width for index in range(len(columns))]
        axes.bar(
            places,
            [cells[column][0] for column in columns],
            width,
            yerr=[cells[column][1] for column in columns],
            label=LABELS[row],
            color=COLOURS[row],
            capsize=2,
        )
    for index, column in enumerate(chance):
        axes.hlines(chance[column], index - width / 2, index + 0.8 - width / 2, colors="black", linestyles="dotted")
    axes.set_xticks([index + 0.8 / 2 - width / 2 for index in range(len(columns))], columns)
    axes.set_ylabel("percent of maximum")
    axes.set_ylim(0, 100)
    axes.legend(frameon=False, ncols=3, loc="upper left", bbox_to_anchor=(0, 1.14))
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE)


def main() -> None:
    """Runs all cells, two at a time with one thread each, and writes table and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    cells = [(experiment, seed) for experiment in EXPERIMENTS for seed in seeds]
    train(*cells[0])  # renders data and evaluates the frozen model once, before two cells would do it at a time
    with ThreadPoolExecutor(2) as pool:
        finished = list(pool.map(lambda cell: train(*cell), cells))
    results = {
        experiment: [result for cell, result in zip(cells, finished, strict=True) if cell[0] == experiment]
        for experiment in EXPERIMENTS
    }
    table = summarise(results)
    chance = {name: score["chance"] for name, score in results["m2pt_base"][0]["frozen"].items()}
    counts = {
        experiment: f"{runs[0]['parameters']['trained']:,} ({runs[0]['parameters']['percent']}%)"
        for experiment, runs in results.items()
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {
        "seeds": seeds,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "table": table,
        "chance": chance,
        "tuning_seconds": {name: [run["seconds"]["tuning"] for run in runs] for name, runs in results.items()},
        "frozen_unparsed": {name: score["unparsed"] for name, score in results["m2pt_base"][0]["frozen"].items()},
        "mme_points": {name: [run["tuned"]["mme"]["raw"] for run in runs] for name, runs in results.items()},
        "pope_yes_ratio": {name: [run["tuned"]["pope"]["yes_ratio"] for run in runs] for name, runs in results.items()},
    }
    (RESULTS / "learning.json").write_text(json.dumps(content, indent=2) + "\n")
    (RESULTS / "learning.md").write_text(markdown(table, chance, counts))
    draw(table, chance)


if __name__ == "__main__":
    main()

"""Learning curves from the ``metrics.csv`` of runs: training loss and validation, averaged over seeds."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_m2pt.runs.evaluated import Group
from lightning_m2pt.runs.metrics_file import METRICS_FILE, STEP, read_metrics

QUANTITIES = {
    "train/loss": "training loss",
    "val/loss": "validation loss",
    "val/answer_accuracy": "validation accuracy",
}
AVERAGED = "train/loss"
"""Logged at every step, and noisy: shown as means of adjacent steps."""
MOST_POINTS = 60
MEMORY = "allocated_bytes.all.peak"
"""Ending of the column in which Lightning's DeviceStatsMonitor writes the peak of a GPU's memory."""


def metrics_of(run: Path) -> list[dict[str, str]]:
    """Returns the rows of a run's metrics; none if there is no such file.

    Raises:
        BadInputError: If the file is damaged.
    """
    return [row for _, row in read_metrics(run / METRICS_FILE)]


def series(rows: Sequence[dict[str, str]], name: str) -> dict[int, float]:
    """Returns a quantity by step; what is no finite number is left out."""
    found = {}
    for row in rows:
        try:
            step, value = int(row[STEP]), float(row[name])
        except (KeyError, TypeError, ValueError):
            continue
        if math.isfinite(value):
            found[step] = value
    return found


def averaged(values: dict[int, float], steps: int) -> dict[int, float]:
    """Returns the means over windows of adjacent steps, at the last step of each."""
    windows: dict[int, list[float]] = {}
    for step, value in values.items():
        windows.setdefault(math.ceil(step / steps) * steps, []).append(value)
    return {step: sum(window) / len(window) for step, window in sorted(windows.items())}


def curve_records(groups: Sequence[Group]) -> tuple[list[dict[str, Any]], int]:
    """Returns the points of all curves: mean, lowest and highest over seeds; and the window of the training loss."""
    runs = {group.name: [metrics_of(run.home) for run in group.runs] for group in groups}
    last = max((step for of in runs.values() for rows in of for step in series(rows, AVERAGED)), default=0)
    window = max(1, math.ceil(last / MOST_POINTS))
    records = []
    for name, title in QUANTITIES.items():
        for method, of_runs in runs.items():
            found = [series(rows, name) for rows in of_runs]
            if name == AVERAGED:
                found = [averaged(one, window) for one in found]
            for step in sorted({step for one in found for step in one}):
                values = [one[step] for one in found if step in one]
                records.append(
                    {
                        "quantity": title,
                        "method": method,
                        "step": step,
                        "mean": sum(values) / len(values),
                        "low": min(values),
                        "high": max(values),
                        "seeds": len(values),
                    }
                )
    return records, window


def logged_gpu_memory(run: Path) -> float | None:
    """Returns the highest memory of a GPU in bytes that `DeviceStatsMonitor` logged, or None if it was not there."""
    rows = metrics_of(run)
    names = [name for name in rows[0] if name and name.endswith(MEMORY)] if rows else []
    return max((value for name in names for value in series(rows, name).values()), default=None)

"""From the records of backbones and seeds to one stored file: means, paired intervals, curves."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy
import torch

from benchmarks.learning.prompt_words.intervals import mean_of, paired_gain
from benchmarks.learning.prompt_words.rows import ANSWERS, HELD_OUT, LOSSES, RIGHT, SEARCHED, TABLE, TEXT
from benchmarks.learning.prompt_words.searches import best_of
from benchmarks.learning.prompt_words.setting import DRAWN, PROPOSERS, ROWS, SETS, SHUFFLED, SOFT, UNTOUCHED
from benchmarks.learning.prompt_words.soft import CURVE, SWAPS
from callbacks.predictions import prediction_file
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.predictions import read_predictions
from lightning_m2pt.metrics.statistics import compare
from lightning_m2pt.prompt_search.record import SearchRecord
from lightning_m2pt.runs.scoring import score_file
from lightning_m2pt.system.atomic_files import write_atomically

POINTS = 30
"""Points of a curve."""
OF_ONE_BACKBONE = ("samples", "seed", "backbone", "held_out_sha256")
COMPARED = {"none": UNTOUCHED, "drawn": DRAWN}


def write_summary(path: Path, records: Mapping[str, Sequence[SearchRecord]], folder: Path) -> None:
    """Writes the stored file from the records.

    Args:
        path: The file.
        records: Of each backbone those of its seeds.
        folder: Where answers are.
    """
    settings = next(iter(records.values()))[0].settings
    content = {
        "machine": platform.machine(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "settings": {key: value for key, value in settings.items() if key not in OF_ONE_BACKBONE},
        "backbones": {name: summary_of(of_seeds, folder) for name, of_seeds in records.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def stored_content(path: Path) -> dict[str, Any]:
    """Returns what was stored.

    Raises:
        BadInputError: If nothing is.
    """
    if not path.is_file():
        raise BadInputError(
            "nothing is stored", where=str(path), expected="what python -m benchmarks.learning.prompt_words writes"
        )
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def summary_of(records: Sequence[SearchRecord], folder: Path) -> dict[str, Any]:
    """Returns one backbone's part: rows, curves, what the gradient promises."""
    budget = records[0].settings["budget"]
    grid = [budget * (number + 1) // POINTS for number in range(POINTS)]
    curves = {name: [record.states[name].curve for record in records] for name in PROPOSERS}
    curves[SOFT] = [record.measured[TABLE][SOFT][CURVE] for record in records]
    return {
        "seeds": [record.settings["seed"] for record in records],
        "backbone": records[0].settings["backbone"],
        "held_out": len(records[0].measured[HELD_OUT]["tokens"]),
        "best_of": [best_of(record)[0] for record in records],
        "rows": {name: row_of(name, records, folder) for name in ROWS if is_there(name, records)},
        "searches": {
            name: {
                "prompts": [record.states[name].scored for record in records],
                "moves": [record.states[name].moves for record in records],
                "rows": [record.states[name].rows for record in records],
            }
            for name in PROPOSERS
        },
        "budgets": grid,
        "curves": {name: [on_grid(curve, grid) for curve in of_seeds] for name, of_seeds in curves.items()},
        SWAPS: [record.measured[SWAPS] for record in records],
    }


def is_there(name: str, records: Sequence[SearchRecord]) -> bool:
    """Tells whether all seeds have a row; words of another backbone are missing where there is one backbone."""
    return all(name in record.measured[TABLE] for record in records)


def on_grid(curve: Sequence[Sequence[float]], grid: Sequence[int]) -> list[float | None]:
    """Returns the least loss within each number of rows; None where nothing was scored yet."""
    return [min((loss for rows, loss in curve if rows <= most), default=None) for most in grid]


def row_of(name: str, records: Sequence[SearchRecord], folder: Path) -> dict[str, Any]:
    """Returns one row's figures over seeds, each difference paired."""
    held_out = records[0].measured[HELD_OUT]
    weights = {LOSSES: numpy.array(held_out["tokens"], float), RIGHT: numpy.ones(len(held_out["tokens"]))}
    found = {key: outcomes(records, [name] * len(records), key) for key in weights}
    best = [best_of(record)[0] for record in records]
    differences: dict[str, Any] = {}
    for key, of_samples in weights.items():
        others = {label: [other] * len(records) for label, other in COMPARED.items() if other != name}
        if name == SHUFFLED:
            others["best"] = best
        for label, rows in others.items():
            first = outcomes(records, rows, key)
            gain = paired_gain(first, found[key], of_samples, held_out["pictures"])
            differences[f"{key}_to_{label}"] = list(astuple(gain))
    return {
        "texts": [record.measured[TABLE][name][TEXT][:1] for record in records],
        "searched_loss": [record.measured[TABLE][name][SEARCHED] for record in records],
        "loss": mean_of(found[LOSSES], weights[LOSSES]),
        "accuracy": 100 * mean_of(found[RIGHT], weights[RIGHT]),
        **differences,
        "sets": sets_of(name, records, folder),
    }


def outcomes(records: Sequence[SearchRecord], rows: Sequence[str], key: str) -> numpy.ndarray:
    """Returns (S, n) what rows make of the held-out samples, one row for each seed's record."""
    return numpy.array([record.measured[TABLE][name][key] for record, name in zip(records, rows, strict=True)])


def sets_of(name: str, records: Sequence[SearchRecord], folder: Path) -> dict[str, dict[str, float]]:
    """Returns a row's scores on the sets, and the paired gain over the untouched model; nothing if it was not asked."""
    asked = [record.measured[TABLE][name].get(ANSWERS) for record in records]
    if None in asked:
        return {}
    found = {}
    for each in SETS:
        places = [prediction_file(folder / str(place), each) for place in asked]
        untouched = prediction_file(folder / records[0].measured[TABLE][UNTOUCHED][ANSWERS], each)
        first, second = score_file(untouched)[1], [score_file(place)[1] for place in places]
        gain = compare(read_predictions(places[0]), [first], second)
        found[each] = {
            "score": float(numpy.mean([score.value for score in second])),
            "chance": first.chance,
            "questions": first.n,
            "gain": gain.difference,
            "low": gain.interval.low,
            "high": gain.interval.high,
        }
    return found

"""The learning tables: several seeds of each method against the frozen model, on both embedded backbones.

    python -m benchmarks.learning.table --backbone testbed --seeds m2pt_base=0,1,2,3,4 projector=0,1,2 full=0,1,2
    python -m benchmarks.learning.table --report

Every cell is an ordinary ``m2pt train``; this script only reads the runs' ``results.json``. The first form runs cells
(finished ones are found again) and stores their scores in ``benchmarks/results/learning_BACKBONE.json`` in the place of
what is there; the second writes ``learning.md`` from what is stored.
"""

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.learning.report import BACKBONES, write_report

LOG = logging.getLogger("learning")
RESULTS = Path("benchmarks/results")


def backbone_words(backbone: str) -> list[str]:
    """Returns the command-line words that choose a backbone; the experiments themselves name the first."""
    return [] if backbone == BACKBONES[0] else ["--config", f"experiments/backbones/{backbone}.yaml"]


def train(backbone: str, experiment: str, seed: int) -> dict[str, Any]:
    """Runs one cell (or finds it done) and returns its results."""
    words = ["train", "--config", f"experiments/{experiment}.yaml", *backbone_words(backbone)]
    answer = subprocess.run(
        [sys.executable, "-m", "lightning_m2pt.main", *words, "--seed_everything", str(seed)],
        check=True,
        stdout=subprocess.PIPE,  # errors go to the terminal
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    LOG.info("done: %s on %s, seed %d", experiment, backbone, seed)
    (line,) = [line for line in answer.stdout.splitlines() if line.startswith("run ")]
    return json.loads((Path(line.split()[-1]) / "results.json").read_text())  # type: ignore[no-any-return]


def brief(scores: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns what the report needs of the scores of all sets."""
    kept = ("value", "raw", "maximum", "chance", "n", "unparsed", "yes_ratio", "part")
    return {name: {key: score[key] for key in kept if key in score} for name, score in scores.items()}


def run_cells(backbone: str, seeds: dict[str, list[int]]) -> None:
    """Runs all cells, two at a time with one thread each, and stores their scores."""
    cells = [(experiment, seed) for experiment, listed in seeds.items() for seed in listed]
    train(backbone, *cells[0])  # renders data and evaluates the frozen model once, before two cells would do it
    with ThreadPoolExecutor(2) as pool:
        finished = list(pool.map(lambda cell: train(backbone, *cell), cells))
    content: dict[str, Any] = {
        "machine": platform.machine(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "frozen": brief(finished[0]["frozen"]),
        "methods": {},
    }
    for (experiment, seed), result in zip(cells, finished, strict=True):
        method = content["methods"].setdefault(experiment, {"parameters": result["parameters"], "runs": []})
        method["runs"].append({"seed": seed, "tuning_seconds": result["seconds"]["tuning"], **brief(result["tuned"])})
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"learning_{backbone}.json").write_text(json.dumps(content, indent=1) + "\n")


def seeds_by_experiment(words: list[str]) -> dict[str, list[int]]:
    """Reads words such as ``m2pt_base=0,1,2``."""
    pairs = (word.split("=") for word in words)
    return {experiment: [int(seed) for seed in listed.split(",")] for experiment, listed in pairs}


def main() -> None:
    """Runs cells, or writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=BACKBONES, default=BACKBONES[0])
    parser.add_argument("--seeds", nargs="+", default=["m2pt_base=0,1,2,3,4", "projector=0,1,2", "full=0,1,2"])
    parser.add_argument("--report", action="store_true", help="write the tables from what is stored")
    own = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if not own.report:
        run_cells(own.backbone, seeds_by_experiment(own.seeds))
    write_report(RESULTS)


if __name__ == "__main__":
    main()

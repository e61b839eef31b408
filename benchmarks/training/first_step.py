"""Seconds from the start of ``m2pt fit`` to the end of its first optimizer step, split by what they go into.

    python -m benchmarks.training.first_step --rounds 5

Every round is a process of its own on data that are rendered already. Wall seconds count what other processes took of
the processor; process seconds do not.
"""

import lightning_m2pt.torchvision_guard  # noqa: F401  (before the first import of Lightning)

# isort: split
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from benchmarks.report.machine import machine
from lightning_m2pt.system.console import say

EXPERIMENT = "experiments/m2pt_base.yaml"
TARGET_SECONDS = 12
FILE_VARIABLE = "M2PT_FIRST_STEP_FILE"


class FirstStepClock(Callback):
    """Writes process and wall seconds since the process started at the end of set-up and of the first step."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Imports, configuration and checks of the data are over."""
        self.seconds["checked"] = since_start()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Weights are loaded, the first batch is there."""
        self.seconds.setdefault("first batch", since_start())

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """The first step is done."""
        self.seconds.setdefault("first step", since_start())
        Path(os.environ[FILE_VARIABLE]).write_text(json.dumps(self.seconds))


def since_start() -> list[float]:
    """Returns process seconds and wall seconds of this process so far."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return [time.process_time(), uptime - ticks / os.sysconf("SC_CLK_TCK")]


def one_round() -> dict[str, list[float]]:
    """Runs one step in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "seconds.json"
        clock = json.dumps({"class_path": "benchmarks.training.first_step.FirstStepClock"})
        command = [
            sys.executable,
            "-m",
            "lightning_m2pt.main",
            "fit",
            "--config",
            EXPERIMENT,
            "--trainer.max_steps",
            "1",
        ]
        command += ["--output_root", folder, "--trainer.callbacks+", clock, "--allow-import", "benchmarks"]
        environment = {**os.environ, FILE_VARIABLE: str(result), "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds: dict[str, list[float]] = json.loads(result.read_text())
        return seconds


def main() -> None:
    """Measures and stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/first_step.json"))
    own = parser.parse_args()
    rounds = []
    for number in range(own.rounds):
        rounds.append(one_round())
        say(f"round {number + 1} of {own.rounds}: {rounds[-1]['first step'][1]:.1f} s")
    medians = {}
    for moment in rounds[0]:
        process, wall = zip(*(each[moment] for each in rounds), strict=True)
        medians[moment] = {"process_seconds": statistics.median(process), "wall_seconds": statistics.median(wall)}
    content = {
        "experiment": EXPERIMENT,
        "made_with": machine(),
        "target_seconds": TARGET_SECONDS,
        "medians_since_process_start": medians,
        "rounds": rounds,
    }
    own.output.parent.mkdir(parents=True, exist_ok=True)
    own.output.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""How long the commands take that people wait for, and how much memory the main job needs.

    python benchmarks/report/commands.py --rounds 5            # start-up times
    python benchmarks/report/commands.py --train               # also `m2pt train` on the testbed, into a new folder

Start-up times are medians of wall seconds over alternating rounds; the wrong key is compared with importing
LightningCLI alone, which no command that reads an experiment can avoid.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PYTHON = sys.executable
GUARDED_IMPORT = "import lightning_m2pt.torchvision_guard; import lightning.pytorch.cli"
BASE = "experiments/m2pt_base.yaml"
COMMANDS = {
    "m2pt --help": [PYTHON, "-m", "lightning_m2pt.main", "--help"],
    "import lightning.pytorch.cli": [PYTHON, "-c", GUARDED_IMPORT],
    "wrong key": [PYTHON, "-m", "lightning_m2pt.main", "fit", "--config", BASE, "--model.method.visual_lenght", "3"],
    "wrong value": [
        PYTHON,
        "-m",
        "lightning_m2pt.main",
        "fit",
        "--config",
        BASE,
        "--model.method.visual_length",
        "ten",
    ],
}


def seconds(command: list[str]) -> float:
    """Returns the wall seconds of one command, whatever its exit code."""
    started = time.perf_counter()
    subprocess.run(command, capture_output=True, check=False)
    return time.perf_counter() - started


def train(folder: str) -> dict[str, float]:
    """Runs the main job from nothing but the data; returns wall seconds and the peak resident memory of one process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [PYTHON, "-m", "lightning_m2pt.main", "train", "--config", BASE, "--output_root", folder]
    started = time.perf_counter()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    whole = time.perf_counter() - started
    (results,) = Path(folder).glob("m2pt_base/*/results.json")
    tuning = json.loads(results.read_text())["seconds"]["tuning"]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    return {"whole_seconds": whole, "tuning_seconds": tuning, "peak_gigabytes": peak}


def main() -> None:
    """Measures and stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/commands.json"))
    own = parser.parse_args()
    rounds = [{name: seconds(command) for name, command in COMMANDS.items()} for _ in range(own.rounds)]
    content: dict[str, object] = {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "median_seconds": {name: statistics.median(each[name] for each in rounds) for name in COMMANDS},
        "rounds": own.rounds,
    }
    if own.train:
        with tempfile.TemporaryDirectory() as folder:
            content["train"] = train(folder)
    own.output.parent.mkdir(parents=True, exist_ok=True)
    own.output.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()

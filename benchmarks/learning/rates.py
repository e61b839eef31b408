"""Chooses learning rates on the validation split of the tuned tasks; no held-out set is read.

    python benchmarks/learning/rates.py --config experiments/m2pt_base.yaml --output benchmarks/results/rates_m2pt.json

Every setting is an ordinary ``m2pt fit`` followed by ``m2pt validate``; the table with all settings tried is stored.
"""

import argparse
import itertools
import json
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from experiments.configuration.cli import parse_experiment

LOG = logging.getLogger("rates")
OUTPUTS = Path("outputs/rates")


def words_of(setting: dict[str, float]) -> list[str]:
    """Returns the command-line words of one setting."""
    return [word for part, rate in setting.items() for word in (f"--model.optimizer.learning_rate.{part}", repr(rate))]


def measure(config: str, steps: int, seed: int, setting: dict[str, float], extra: list[str]) -> dict[str, object]:
    """Tunes for some steps and returns the validation figures."""
    name = "-".join([Path(config).stem, *(f"{rate:g}" for rate in setting.values()), f"{steps}", *extra])
    run = OUTPUTS / "".join(character for character in name if character.isalnum() or character in "-_.")
    command = [sys.executable, "-m", "lightning_m2pt.main"]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    common = ["--config", config, "--trainer.max_steps", str(steps), "--seed_everything", str(seed)]
    subprocess.run(
        [*command, "fit", *common, *words_of(setting), *extra, "--run", str(run)],
        check=True,
        stdout=subprocess.DEVNULL,
        env=one_thread,
    )
    answer = subprocess.run(
        [*command, "validate", "--run", str(run)], check=True, capture_output=True, text=True, env=one_thread
    )
    figures = json.loads(answer.stdout.strip().splitlines()[-1])
    LOG.info("%s %s %s", setting, " ".join(extra), figures)
    return {"setting": setting, "extra": extra, **figures}


def main() -> None:
    """Runs the grid, two settings at a time, and stores the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grid", default="{}", help='JSON: {"visual_prompts": [0.05, 0.02], ...}')
    parser.add_argument("--extra", nargs="*", default=[""], help="further command-line words, one setting each")
    parser.add_argument("--output", type=Path, required=True)
    own = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    rates = parse_experiment(["--config", own.config]).config["model"]["optimizer"]["learning_rate"]
    grid = {part: json.loads(own.grid).get(part, [float(rate)]) for part, rate in rates.items()}
    settings = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    jobs = [(setting, extra.split()) for setting in settings for extra in own.extra]
    with ThreadPoolExecutor(2) as pool:
        rows = list(pool.map(lambda job: measure(own.config, own.steps, own.seed, *job), jobs))
    rows.sort(key=lambda row: -float(str(row["val/answer_accuracy"])))
    content = {"config": own.config, "steps": own.steps, "seed": own.seed, "rows": rows}
    own.output.parent.mkdir(parents=True, exist_ok=True)
    own.output.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Stands for ``m2pt`` in tests of sweeps: the same words, folders, signals and exit codes, without a model.

``python -m tests.support.runs.sweep_program train --config FILE --seed_everything 0``; the file says how long a run
takes, which seeds fail, and which learning rate is best. A run counts its starts and notices a second one beside it.
"""

import fcntl
import json
import math
import os
import re
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path


def values_of(words: list[str], name: str) -> list[str]:
    """Returns the values of an option, given as ``--name value`` or ``--name=value``."""
    parts = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    return [parts[place + 1] for place, part in enumerate(parts) if part == f"--{name}"]


def work(run: Path, words: list[str], config: dict, steps: int) -> None:
    """Takes steps from where an earlier start stopped; SIGTERM and SIGINT end it between two, saved."""
    run.mkdir(parents=True, exist_ok=True)
    lock = os.open(run / "busy", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        (run / "doubled").touch()
        sys.exit(1)
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: stopped.append(number))
    record = json.loads((run / "run.json").read_text()) if (run / "run.json").exists() else {"made_with": []}
    started = datetime.now(UTC).isoformat(timespec="seconds")
    record["made_with"].append({"started": started, "command": ["m2pt", *words]})
    (run / "run.json").write_text(json.dumps(record))
    (run / "config.yaml").write_text(json.dumps({"trainer": {"max_steps": steps}}))
    metrics = run / "metrics.csv"
    if not metrics.exists():
        metrics.write_text("step,train/loss\n")
    for step in range(len(metrics.read_text().splitlines()), steps + 1):
        time.sleep(config.get("seconds_a_step", 0.05))
        with metrics.open("a") as file:
            file.write(f"{step},{1 / step}\n")
        if stopped:
            sys.exit(128 + stopped[0])


def train(words: list[str], config: dict, seed: int) -> None:
    root = Path((values_of(words, "output_root") or ["outputs"])[0])
    stem = Path(values_of(words, "config")[0]).stem
    settings = re.sub(r"\W+", "_", "".join(word for word in words if word.startswith("--model")))
    run = root / stem / f"small{settings}-seed{seed}"
    work(run, words, config, config["steps"])
    if str(seed) in config.get("failing", {}):
        sys.stderr.write("Traceback (most recent call last):\n  somewhere\n" + config["failing"][str(seed)] + "\n")
        sys.exit(1)
    value = 50.0 + 3 * seed + len(settings) / 100
    scores = {"vsr": {"value": value, "raw": value / 100}, "mme": {"value": 40.0, "raw": 1120.0 + seed}}
    frozen = {"vsr": {"value": 45.0, "raw": 0.45}, "mme": {"value": 30.0, "raw": 840.0}}
    results = {"tuned": scores, "frozen": frozen, "parameters": {"percent": 0.5}}
    if not config.get("writes_nothing"):
        (run / "results.json").write_text(json.dumps(results))
    sys.stdout.write(f"run          {run}\nadapter      {run}/adapter\n")


def fit(words: list[str], config: dict) -> None:
    run = Path(values_of(words, "run")[0])
    rates = json.loads((values_of(words, "model.optimizer.learning_rate") or ["{}"])[-1])
    if max(rates.values()) > config.get("diverges_above", math.inf):
        sys.stderr.write("error: the loss is not finite\n  hint: lower rates\n")
        sys.exit(4)
    work(run, words, config, int(values_of(words, "trainer.max_steps")[0]))
    distance = sum(abs(math.log(rate / config["best_rate"])) for rate in rates.values())
    sys.stdout.write(json.dumps({"val/loss": distance, "val/answer_accuracy": 1 / (1 + distance)}) + "\n")


if __name__ == "__main__":
    verb, *rest = sys.argv[1:]
    content = json.loads(Path(values_of(rest, "config")[0]).read_text())
    if verb == "train":
        train(sys.argv[1:], content, int(values_of(rest, "seed_everything")[0]))
    else:
        fit(sys.argv[1:], content)

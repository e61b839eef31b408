"""The real pair's training step by numeric type, attention, and how the threads are shared out.

    OMP_NUM_THREADS=1 python -m benchmarks.training.on_real_pair.step_settings --rounds 3

Every setting trains a few steps of ``m2pt_words_smollm2`` under ``m2pt fit``'s Trainer, in processes of its own: one of
one thread, one of two, and two of one thread side by side, as two devices or two runs of a sweep are. The losses of the
first batch are stored, which must agree up to the type's roundings.
"""

import lightning_m2pt.torchvision_guard  # noqa: F401  (before the first import of Lightning)

# isort: split
import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.report.machine import machine
from benchmarks.training.on_real_pair.beside_peft import ONE_PROCESS, folder_of_pair, steps_of_ours
from benchmarks.training.overhead import prepared
from experiments.runs.training import tuning_data
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.prompts import plain_attention
from lightning_m2pt.tuning.losses import supervised_rows

EXPERIMENT = ["--config", "experiments/m2pt_words_smollm2.yaml", *ONE_PROCESS]
FUSED, PRODUCTS = "torch's fused kernel", "matrix products"
STEPS = 6
ROUNDING = {"float32": 1e-4, "bfloat16": 2e-2}
"""By how much a first loss may be off that of float32 and the fused kernel, relative."""


class Numerics(NamedTuple):
    """What computes the step: the base's type, and attention behind past rows."""

    dtype: str
    attention: str


class Sharing(NamedTuple):
    """How many processes train at once, and the threads of each."""

    processes: int
    threads: int


NUMERICS = (Numerics("float32", FUSED), Numerics("bfloat16", FUSED), Numerics("bfloat16", PRODUCTS))
SHARINGS = (Sharing(1, 1), Sharing(1, 2), Sharing(2, 1))


class UnequalStepError(RuntimeError):
    """A setting's first loss is another."""


def first_loss(words: list[str]) -> float:
    """Returns the mean loss of the first batch in training mode, before any step."""
    experiment = prepared(words)
    model = experiment.model.train()
    (batch,) = islice(tuning_data(experiment).train_dataloader(), 1)
    with torch.no_grad():
        return float(supervised_rows(model.backbone, batch, model.shortcuts).losses.mean())


def measured_here(chosen: Numerics, words: list[str], steps: int) -> dict[str, Any]:
    """Trains some steps in this process; returns the first loss, and process and wall seconds of each step."""
    if chosen.attention == FUSED:
        plain_attention.MOST_KEPT = 0
    given = [*EXPERIMENT, "--model.backbone.dtype", chosen.dtype, *words]
    return {"first_loss": first_loss(given), "seconds": steps_of_ours(given, 1 + steps)}


def measured(chosen: Numerics, sharing: Sharing, words: list[str], steps: int) -> list[dict[str, Any]]:
    """Returns what ``measured_here`` found in each of the processes, which begin together.

    Raises:
        RuntimeError: If one of them failed.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(sharing.threads)}
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / f"{number}.json" for number in range(sharing.processes)]
        started = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "benchmarks.training.on_real_pair.step_settings"),
                    *("--one", *chosen, "--steps", str(steps), "--output", str(output), *words),
                ],
                env=environment,
            )
            for output in outputs
        ]
        if any([process.wait() for process in started]):  # a list: all are waited for
            raise RuntimeError(f"{chosen} on {sharing} failed")
        return [json.loads(output.read_text()) for output in outputs]


def require_equal_losses(rows: list[dict[str, Any]]) -> None:
    """Compares first losses with the first row's, float32 by the fused kernel.

    Raises:
        UnequalStepError: If one is further off than its type's roundings.
    """
    (reference, *_) = rows
    for row in rows:
        off = abs(row["first_loss"] - reference["first_loss"]) / reference["first_loss"]
        if not off <= ROUNDING[row["dtype"]]:
            raise UnequalStepError(
                f"{row['dtype']}, {row['attention']}: first loss {row['first_loss']} is {off:.1e} off"
            )


def settings_rows(words: list[str], rounds: int, steps: int) -> list[dict[str, Any]]:
    """Returns a row for each setting: first loss, CPU and wall seconds of a step, steps a second of all processes."""
    every = [(chosen, sharing) for chosen in NUMERICS for sharing in SHARINGS]
    runs: dict[tuple[Numerics, Sharing], list[list[dict[str, Any]]]] = {each: [] for each in every}
    for _ in range(rounds):  # in turn, so that what else the machine does meets all
        for chosen, sharing in every:
            runs[chosen, sharing].append(measured(chosen, sharing, words, steps))
    rows = []
    for (chosen, sharing), found in runs.items():
        timed = [step for run in found for process in run for step in process["seconds"]]
        cpu, wall = (statistics.median(column) for column in zip(*timed, strict=True))
        rows.append(
            chosen._asdict()
            | sharing._asdict()
            | {"first_loss": found[0][0]["first_loss"], "cpu_seconds": cpu, "wall_seconds": wall}
            | {"steps_a_second": sharing.processes / wall}
        )
    require_equal_losses(rows)
    return rows


def main() -> None:
    """Measures one setting for the process that asked, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/step_settings.json"))
    parser.add_argument("--one", nargs=2, metavar=("DTYPE", "ATTENTION"), help=argparse.SUPPRESS)
    own, words = parser.parse_known_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    try:
        folder_of_pair()
    except BadInputError as error:
        parser.exit(2, f"{error}\n")
    content: Any
    if own.one:
        content = measured_here(Numerics(*own.one), words, own.steps)
    else:
        rows = settings_rows(words, own.rounds, own.steps)
        content = {"made_with": machine(), "rounds": own.rounds, "steps": own.steps, "rows": rows}
    own.output.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()

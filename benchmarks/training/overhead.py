"""Lightning with the shipped callbacks and loggers over a bare loop of the same step.

    python benchmarks/training/overhead.py --rounds 7

Both do the same work: the same loader, forward, loss, backward, clipping, optimizer and schedule. Rounds alternate,
times are process time of one thread, and the figure is the ratio of medians per optimizer step.
"""

import lightning_m2pt.torchvision_guard  # noqa: F401  (before the first import of Lightning)

# isort: split
import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, seed_everything
from torch.nn.utils import clip_grad_norm_

from experiments.configuration.cli import Experiment, parse_experiment
from experiments.runs.prepare import check_experiment
from experiments.runs.training import build_trainer, tuning_data
from lightning_m2pt.methods.trained_parameters import trained_parameters
from lightning_m2pt.tuning.losses import supervised_rows

WARM_UP_STEPS = 3


class StepClock(Callback):
    """Process time from the end of the warm-up to the last step."""

    def __init__(self) -> None:
        self.started = self.ended = 0.0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Starts the clock once."""
        if batch_idx == WARM_UP_STEPS:
            self.started = time.process_time()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Reads the clock."""
        self.ended = time.process_time()


def prepared(arguments: list[str]) -> Experiment:
    """Parses, connects and loads."""
    experiment = parse_experiment(arguments)
    check_experiment(experiment)
    tuning_data(experiment).setup("fit")
    seed_everything(experiment.seed, verbose=False)
    experiment.model.configure_model()
    return experiment


def with_lightning(arguments: list[str], steps: int) -> float:
    """Returns process seconds per step under the Trainer with everything the project adds."""
    experiment, clock = prepared(arguments), StepClock()
    chosen = {**experiment.trainer_config, "callbacks": [clock]}
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(experiment, chosen, [], Path(folder), resumed_step=0)
        trainer.fit(experiment.model, datamodule=tuning_data(experiment))
    return (clock.ended - clock.started) / (steps - WARM_UP_STEPS)


def bare(arguments: list[str], steps: int) -> float:
    """Returns process seconds per step of a plain loop over the same loader."""
    experiment = prepared(arguments)
    model, clip = experiment.model, experiment.trainer_config["gradient_clip_val"]
    trained = list(trained_parameters(model).values())
    optimizer = model.optimizer_settings.build(model.method.parts())
    schedule = model.schedule_settings.build(optimizer, steps)
    model.train()
    started = 0.0
    for step, batch in enumerate(tuning_data(experiment).train_dataloader()):
        if step == steps:
            break
        if step == WARM_UP_STEPS:
            started = time.process_time()
        loss = supervised_rows(model.backbone, batch).losses.sum() / batch.step_supervised_tokens
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(trained, clip)
        optimizer.step()
        schedule.step()
    return (time.process_time() - started) / (steps - WARM_UP_STEPS)


def main() -> None:
    """Alternates the two and stores the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="experiments/m2pt_base.yaml")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=33)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/overhead.json"))
    own = parser.parse_args()
    torch.set_num_threads(1)
    arguments = ["--config", own.config, "--trainer.max_steps", str(own.steps)]
    rounds = [(with_lightning(arguments, own.steps), bare(arguments, own.steps)) for _ in range(own.rounds)]
    lightning, plain = (statistics.median(column) for column in zip(*rounds, strict=True))
    content = {
        "milliseconds_per_step": {"lightning": 1000 * lightning, "bare": 1000 * plain},
        "overhead_percent": 100 * (lightning / plain - 1),
        "rounds": [[1000 * value for value in each] for each in rounds],
        "steps_per_round": own.steps - WARM_UP_STEPS,
    }
    own.output.parent.mkdir(parents=True, exist_ok=True)
    own.output.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()

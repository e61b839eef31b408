"""The loop that every training stage runs in: steps, schedule, records, checkpoints."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch.nn import Module, Parameter

from experiments.backbone_recipe.optimisation import RecipeOptimizer, rate_share
from experiments.backbone_recipe.settings import OptimizerSettings, RecipeSettings
from experiments.backbone_recipe.stage_files import StageFiles, StageRecord
from lightning_m2pt.errors import DivergedError


@dataclass(frozen=True)
class StageProgress:
    """Where a stage stands."""

    stage: str
    step: int
    steps: int
    losses: dict[str, float]


ProgressReport: TypeAlias = Callable[[StageProgress], None]


class TrainingStage(Protocol):
    """What a stage must say of itself. A step's data and noise are decided by its number alone."""

    name: str
    steps: int
    optimizer_settings: OptimizerSettings
    own_rates: Mapping[str, float]

    def modules(self) -> dict[str, Module]:
        """Returns the modules whose tensors are saved, by name."""
        ...

    def trained_parameters(self) -> dict[str, Parameter]:
        """Returns what the stage trains, by name."""
        ...

    def gradients(self, step: int) -> dict[str, float]:
        """Computes a step's gradients into the parameters and returns its losses."""
        ...


def use_one_thread() -> None:
    """Limits torch to one thread inside an operation: faster on shared cores, and bit-identical on every run."""
    torch.set_num_threads(1)


def run_stage(stage: TrainingStage, files: StageFiles, settings: RecipeSettings, report: ProgressReport) -> StageRecord:
    """Trains a stage to its end, from its last checkpoint where there is one.

    Args:
        stage: What to train.
        files: Where checkpoints and the result go.
        settings: How often to record and to save.
        report: Called at every recorded step.

    Raises:
        DivergedError: If a loss is not finite.
    """
    optimizer = RecipeOptimizer.build(stage.trained_parameters(), stage.optimizer_settings, stage.own_rates)
    record = _resume(stage, optimizer, files)
    started, started_cpu = time.monotonic() - record.wall_seconds, time.process_time() - record.cpu_seconds
    sums: dict[str, float] = {}
    for step in range(record.step, stage.steps):
        losses = stage.gradients(step)
        if not all(math.isfinite(loss) for loss in losses.values()):
            raise DivergedError(f"the loss is not finite at step {step + 1}: {losses}", where=stage.name)
        optimizer.step(rate_share(step, stage.steps, stage.optimizer_settings))
        sums = {name: sums.get(name, 0.0) + loss for name, loss in losses.items()}
        record.step = step + 1
        if record.step % settings.log_every == 0:
            means = {name: round(total / settings.log_every, 6) for name, total in sums.items()}
            record.losses.append({"step": record.step} | means)
            report(StageProgress(stage.name, record.step, stage.steps, means))
            sums = {}
        record.wall_seconds = round(time.monotonic() - started, 1)
        record.cpu_seconds = round(time.process_time() - started_cpu, 1)
        if record.step % settings.checkpoint_every == 0:
            files.write_checkpoint(_state(stage, optimizer), record)
    return files.finish(_module_state(stage), record)


def _module_state(stage: TrainingStage) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}": tensor
        for part, module in stage.modules().items()
        for name, tensor in module.state_dict().items()
    }


def _state(stage: TrainingStage, optimizer: RecipeOptimizer) -> dict[str, torch.Tensor]:
    return _module_state(stage) | optimizer.state()


def _resume(stage: TrainingStage, optimizer: RecipeOptimizer, files: StageFiles) -> StageRecord:
    checkpoint = files.checkpoint()
    if checkpoint is None:
        return StageRecord(stage.name, files.fingerprint)
    tensors, record = checkpoint
    for part, module in stage.modules().items():
        load_part(module, tensors, part)
    optimizer.load_state({name: tensor for name, tensor in tensors.items() if "/" in name})
    return record


def load_part(module: Module, tensors: Mapping[str, torch.Tensor], part: str) -> None:
    """Loads a module from the tensors whose names begin with its part's name."""
    prefix = f"{part}."
    module.load_state_dict(
        {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix) and "/" not in name
        }
    )

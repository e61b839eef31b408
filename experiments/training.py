"""Builds the Trainer of a run: what the project always adds to the user's own Trainer settings."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy, Strategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.ablation_toggles import AblationToggles
from callbacks.gradient_check import GradientCheck
from callbacks.logged_once import LoggedOnce
from callbacks.loggers import loggers_for
from callbacks.padding_share import PaddingShare
from callbacks.progress import SampleProgressBar
from callbacks.prompt_statistics import PromptStatistics
from callbacks.same_on_all_ranks import SameOnAllRanks
from callbacks.step_checkpoint import StepCheckpoint
from callbacks.task_loss import TaskLosses
from callbacks.trainable_table import TrainableTable
from data_modules.instruction import InstructionDataModule
from experiments.cli import Experiment
from experiments.proven_strategies import class_names, configured_names, refuse_unproven_strategy
from lightning_m2pt.checkpoint_io import VerifiedCheckpointIO
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.launch import check_launch


def tuning_data(experiment: Experiment) -> InstructionDataModule:
    """Returns the data module if it can be tuned on.

    Raises:
        BadInputError: If it is an evaluation set.
    """
    if not isinstance(experiment.data, InstructionDataModule):
        raise BadInputError(
            f"{type(experiment.data).__name__} is an evaluation set",
            where="data",
            expected="an instruction set such as data_modules.vision_flan.VisionFlan",
        )
    return experiment.data


def checkpoints_folder(run: Path) -> Path:
    """Returns where a run's checkpoints stand."""
    return run / "checkpoints"


def prepared_trainer(experiment: Experiment, run: Path, resumed_step: int) -> Trainer:
    """Seeds and returns a Trainer whose processes, steps and settings fit the experiment; writes nothing.

    Raises:
        BadInputError: If a Trainer setting, the launcher or the split of a step is wrong.
    """
    data = tuning_data(experiment)
    refuse_unproven_strategy(configured_names(experiment.config["trainer"].get("strategy")))
    refuse_unusable(experiment.trainer_config)
    # Seeded here and not earlier: nothing between this line and the fit may depend on what ran before.
    seed_everything(experiment.seed, workers=True, verbose=False)
    try:
        trainer = build_trainer(experiment, run, resumed_step)
    except (MisconfigurationException, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BadInputError(reason[:200], where="trainer", expected="settings this machine can run") from error
    check_processes(experiment, trainer.num_devices, trainer.num_nodes)
    refuse_unproven_strategy(class_names(trainer.strategy))
    run_the_same_layers_on_all_ranks(experiment, trainer.strategy)
    trainer.accumulate_grad_batches = data.micro_batches_per_step(trainer.world_size)
    return trainer


def check_processes(experiment: Experiment, devices: int, num_nodes: int) -> None:
    """Compares what a launcher started with the configuration.

    Raises:
        BadInputError: If they differ: each process would take itself for the first.
    """
    settings = {key: experiment.config["trainer"].get(key) for key in ("accelerator", "strategy", "precision")}
    configured = {key: str(value) for key, value in settings.items() if value is not None}
    check_launch(devices, num_nodes, os.environ, configured)


def run_the_same_layers_on_all_ranks(experiment: Experiment, strategy: Strategy) -> None:
    """Switches off what makes ranks run other numbers of layers, where each run gathers weights from all ranks.

    Whether a micro-batch has rows to share depends on its samples. A rank that has none would leave the others waiting
    for its part of a gathering that it never makes.
    """
    if shares_out_weights(strategy):
        experiment.model.shortcuts = replace(experiment.model.shortcuts, shared_rows_once=False)


def shares_out_weights(strategy: Any) -> bool:
    """Tells whether no rank has all weights: FSDP, its second form, or DeepSpeed's stage 3."""
    return isinstance(strategy, FSDPStrategy | ModelParallelStrategy) or bool(getattr(strategy, "zero_stage_3", False))


def refuse_unusable(settings: dict[str, Any]) -> None:
    """Refuses settings that Lightning would take and this project cannot keep its word with.

    Raises:
        BadInputError: For the notebook strategies, and for precisions that convert the trained tensors.
    """
    strategy, precision = settings.get("strategy"), str(settings.get("precision") or "")
    if isinstance(strategy, str) and strategy.startswith(("ddp_fork", "ddp_spawn", "ddp_notebook")):
        raise BadInputError(
            f"{strategy} is made for notebooks",
            where="trainer.strategy",
            expected="ddp, which starts this command again",
        )
    if precision.endswith("-true") and precision != "32-true":
        raise BadInputError(
            f"{precision} would convert the trained tensors, which stay float32",
            where="trainer.precision",
            expected="32-true or a mixed precision",
            hint="model.backbone.dtype sets the frozen base's type",
        )


def build_trainer(experiment: Experiment, run: Path, resumed_step: int) -> Trainer:
    """Returns a Trainer with the run's loggers, checkpoints and callbacks.

    Callbacks of the experiment's file come on top of the project's own, which are always there.
    """
    settings = dict(experiment.trainer_config)
    own: list[Callback] = [
        LoggedOnce(),
        TrainableTable(run, experiment.model.backbone.base_parameters),
        AblationToggles(run),
        SameOnAllRanks(),
        GradientCheck(),  # after it, so that it finds the same on all ranks
        PromptStatistics(),
        TaskLosses(),
        PaddingShare(),
        LearningRateMonitor(logging_interval="step"),
        StepCheckpoint(checkpoints_folder(run), experiment.save_every_n_steps),
    ]
    if settings.get("enable_progress_bar") is not False:
        own.append(SampleProgressBar())
    settings["callbacks"] = [*own, *(settings.get("callbacks") or [])]
    settings["logger"] = loggers_for(run, resumed_step)
    settings["plugins"] = [VerifiedCheckpointIO(), *(settings.get("plugins") or [])]
    settings["default_root_dir"] = str(run)
    settings["use_distributed_sampler"] = False
    settings["log_every_n_steps"] = 1  # one row per optimizer step in metrics.csv
    settings["enable_model_summary"] = False
    settings["num_sanity_val_steps"] = 0
    return Trainer(**settings)


def answering_trainer(experiment: Experiment, callbacks: list[Callback], settings_of: dict[str, Any]) -> Trainer:
    """Returns a Trainer that only answers: one device, no loggers, no checkpoints."""
    return Trainer(
        accelerator=experiment.trainer_config.get("accelerator", "auto"),
        devices=1,
        logger=False,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=callbacks,
        **settings_of,
    )

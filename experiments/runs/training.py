"""Builds the Trainer of a run: what the project always adds to the user's own Trainer settings."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor, ProgressBar, Timer
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler
from lightning.pytorch.strategies import Strategy

from callbacks.ablation_toggles import AblationToggles
from callbacks.best_adapter import BestAdapter
from callbacks.gradient_check import GradientCheck
from callbacks.last_validation import LastValidation
from callbacks.logged_once import LoggedOnce
from callbacks.logger_guards import LoggerGuards
from callbacks.loggers import loggers_for
from callbacks.padding_share import PaddingShare
from callbacks.parameter_table import ParameterTable
from callbacks.progress import SampleProgressBar
from callbacks.prompt_statistics import PromptStatistics
from callbacks.same_on_all_ranks import SameOnAllRanks
from callbacks.sample_answers import SampleAnswers
from callbacks.step_checkpoint import StepCheckpoint
from callbacks.stop_decision import StopDecision
from callbacks.task_loss import TaskLosses
from callbacks.time_limit import TimeLimit
from data_modules.instruction import InstructionDataModule
from experiments.configuration.cli import Experiment
from experiments.trainer.accelerators import check_accelerator, check_devices
from experiments.trainer.asking import can_be_asked, refuse_what_asks
from experiments.trainer.best_adapter import refuse_unmeasured_scores
from experiments.trainer.components import acting_components, refuse_cluster
from experiments.trainer.failures import refusals_named
from experiments.trainer.interval import with_interval
from experiments.trainer.surface import configured_devices, configured_processes, split_decides
from experiments.trainer.whole_steps import check_limits, limit_validation, steps_of_run
from lightning_m2pt.backbones.shortcuts import EVERY_ROW
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.parallel.shared_out import shares_out_weights
from lightning_m2pt.parallel.units import refuse_unless_shardable
from lightning_m2pt.storage.checkpoint_io import VerifiedCheckpointIO
from lightning_m2pt.system.console import say
from lightning_m2pt.system.launch import check_launch, check_node, check_variables
from lightning_m2pt.system.meeting_place import check_meeting_place
from lightning_m2pt.system.ranks import is_of_torchrun
from lightning_m2pt.tuning.own_trainer import check_trainer
from lightning_m2pt.tuning.prompt_first import check_length
from lightning_m2pt.tuning.proven_strategies import class_names, configured_names, refuse_unproven_strategy

PROFILERS: dict[str, type[Profiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}
IN_WHOLE_STEPS = ("limit_train_batches", "limit_val_batches", "overfit_batches", "val_check_interval")
"""Settings that count optimizer steps; a Trainer is told of them when it is known how a step is split."""


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


def require_validation_split(experiment: Experiment) -> None:
    """Looks for records to validate on.

    Raises:
        BadInputError: If there are none.
    """
    data = tuning_data(experiment)
    if not data.read_once()[1]:
        raise BadInputError(
            "there is no validation split",
            where=str(data.root),
            expected="data.validation_file, or data.validation_fraction with at least one record",
        )


def checkpoints_folder(run: Path) -> Path:
    """Returns where a run's checkpoints stand."""
    return run / "checkpoints"


def prepared_trainer(experiment: Experiment, run: Path, resumed_step: int) -> Trainer:
    """Seeds and returns a Trainer whose processes, steps and settings fit the experiment; writes nothing.

    Raises:
        BadInputError: If a Trainer setting, the launcher or the split of a step is wrong.
    """
    data, configured = tuning_data(experiment), with_interval(experiment.config)
    check_machine(experiment)
    refuse_unproven_strategy(configured_names(configured.get("strategy")))
    check_limits(configured, data)
    check_length(experiment.model.schedule_settings.prompt_first_steps, steps_of_run(configured, data))
    chosen, chosen_loggers = experiment.trainer_config, loggers_that_purge(experiment.loggers, resumed_step)
    # Seeded here and not earlier: nothing between this line and the fit may depend on what ran before.
    seed_everything(experiment.seed, workers=True, verbose=False)
    with refusals_named(configured):
        try:
            trainer = build_trainer(experiment, chosen, chosen_loggers, run, resumed_step)
        except (RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise BadInputError(reason[:200], where="trainer", expected="settings this machine can run") from error
    refuse_cluster(getattr(trainer.strategy, "cluster_environment", None))
    check_processes(experiment, trainer.num_devices, trainer.num_nodes)
    refuse_unproven_strategy(class_names(trainer.strategy))
    check_node(trainer.num_nodes, os.environ)
    check_meeting(trainer)
    check_split(experiment, trainer.world_size)
    refuse_other_precision(configured.get("precision"), trainer.precision)
    check_trainer(trainer)
    run_the_same_layers_on_all_ranks(experiment, trainer.strategy)
    trainer.accumulate_grad_batches = data.micro_batches_per_step(trainer.world_size)
    say_smaller_micro_batches(data, trainer)
    limit_validation(configured, data, trainer)
    return trainer


def say_smaller_micro_batches(data: InstructionDataModule, trainer: Trainer) -> None:
    """Says how large micro-batches are, where no even part of a device's share is as large as they might be."""
    share = data.batch_size // trainer.world_size
    samples = share // trainer.accumulate_grad_batches
    if samples < min(data.micro_batch_size or share, share):
        say(f"note: micro-batches of {samples}: {data.micro_batch_size} do not part a device's {share} samples evenly")


def check_machine(experiment: Experiment) -> None:
    """Looks for the accelerator, the devices and the processes of the configuration, before data and weights are read.

    Raises:
        BadInputError: If there are not as many devices, or a launcher started another number of processes.
        EnvironmentFailure: If the accelerator is not here.
    """
    trainer = experiment.config["trainer"]
    check_accelerator(trainer.get("accelerator"), os.environ)
    check_devices(trainer.get("accelerator"), configured_devices(trainer), os.environ)
    check_started(experiment)


def check_started(experiment: Experiment) -> None:
    """Looks whether a launcher started the processes of the configuration, as far as its words say how many.

    Raises:
        BadInputError: If it started another number, or half of what belongs to a launch is there.
    """
    trainer = experiment.config["trainer"]
    devices, nodes = configured_devices(trainer), trainer.get("num_nodes") or 1
    check_node(nodes, os.environ)
    if devices is None:  # a Trainer counts them
        check_variables(os.environ)
    else:
        check_processes(experiment, len(devices) if isinstance(devices, list) else devices, nodes)


def check_meeting(trainer: Trainer) -> None:
    """Looks whether the processes of a Trainer can find each other.

    Raises:
        BadInputError: If they cannot.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if trainer.world_size > 1 and environment is not None and not torch.distributed.is_initialized():
        listens = trainer.is_global_zero and not is_of_torchrun(os.environ)
        check_meeting_place(environment.main_address, environment.main_port, listens=listens)


def check_split(experiment: Experiment, processes: int) -> None:
    """Looks whether the run's name says how many processes there are, where its numbers depend on that.

    Raises:
        BadInputError: If it does not.
    """
    if split_decides(experiment.config) and processes != configured_processes(experiment.config["trainer"]):
        raise BadInputError(
            f"{processes} devices, and with dropout or means of means their number is part of the run's name",
            where="trainer.devices",
            expected=f"--trainer.devices {processes}, or another number, in the configuration",
        )


def refuse_other_precision(configured: Any, taken: str) -> None:
    """Refuses a precision that Lightning has changed for this machine.

    Raises:
        BadInputError: If float16 was asked for and bfloat16 is what it would be.
    """
    if str(configured) in ("16", "16-mixed") and taken != "16-mixed":
        raise BadInputError(
            f"this machine has no {configured}; Lightning would take {taken} without a word",
            where="trainer.precision",
            expected="bf16-mixed or 32-true here",
        )


def check_processes(experiment: Experiment, devices: int, num_nodes: int) -> None:
    """Compares what a launcher started with the configuration.

    Raises:
        BadInputError: If they differ: each process would take itself for the first.
    """
    check_variables(os.environ)
    settings = {key: experiment.config["trainer"].get(key) for key in ("accelerator", "strategy", "precision")}
    configured = {key: str(value) for key, value in settings.items() if value is not None}
    check_launch(devices, num_nodes, os.environ, configured)


def run_the_same_layers_on_all_ranks(experiment: Experiment, strategy: Strategy) -> None:
    """Switches off what makes ranks run other numbers of layers, where each run gathers weights from all ranks.

    Whether a micro-batch has rows to share depends on its samples. A rank that has none would leave the others waiting
    for its part of a gathering that it never makes.
    """
    if shares_out_weights(strategy):
        refuse_unless_shardable(experiment.model.backbone, experiment.model.method)
        experiment.model.shortcuts = EVERY_ROW


def build_trainer(
    experiment: Experiment, chosen: dict[str, Any], chosen_loggers: list[Logger], run: Path, resumed_step: int
) -> Trainer:
    """Returns a Trainer with the run's loggers, checkpoints and callbacks.

    Callbacks and loggers of the experiment's file come on top of the project's own, which are always there.

    Args:
        experiment: The experiment.
        chosen: The Trainer's settings, instantiated.
        chosen_loggers: The user's own loggers.
        run: The run's folder.
        resumed_step: Optimizer steps done in the checkpoint that is resumed; 0 for a new run.
    """
    settings = {key: value for key, value in chosen.items() if key not in IN_WHOLE_STEPS}
    callbacks = as_list(settings.pop("callbacks", None))
    refuse_what_asks(callbacks, settings.get("strategy"))
    checkpoint = StepCheckpoint(checkpoints_folder(run), experiment.save_every_n_steps)
    own: list[Callback] = [
        LoggedOnce(),
        ParameterTable(run, experiment.model.backbone.base_parameters),
        AblationToggles(run),
        SameOnAllRanks(),
        GradientCheck(),  # after it, so that it finds the same on all ranks
        PromptStatistics(),
        TaskLosses(),
        PaddingShare(),
        LastValidation(),
        checkpoint,
    ]
    if not any(isinstance(callback, LearningRateMonitor) for callback in callbacks):
        own.append(LearningRateMonitor(logging_interval="step"))
    if settings.get("enable_progress_bar") is not False and not any(map(is_progress_bar, callbacks)):
        own.append(SampleProgressBar())
    is_asked = any(isinstance(callback, SampleAnswers) for callback in callbacks)
    if not is_asked and can_be_asked(settings.get("strategy")):
        own.append(SampleAnswers())
    if acting_components(experiment.config["trainer"]):
        own.append(StopDecision())
    own += time_limits(settings.pop("max_time", None), callbacks, checkpoint)
    own.append(LoggerGuards(chosen_loggers, run, resumed_step, made_here="logger" not in experiment.trainer_objects))
    refuse_unmeasured_scores(callbacks)
    chosen_last = sorted(callbacks, key=lambda callback: isinstance(callback, BestAdapter))  # behind what it goes by
    settings["callbacks"] = [*own, *(callback for callback in chosen_last if type(callback) is not Timer)]
    settings["logger"] = [*loggers_for(run, resumed_step), *chosen_loggers]
    settings["plugins"] = [VerifiedCheckpointIO(), *as_list(settings.get("plugins"))]
    settings["profiler"] = profiler_in(run, settings.get("profiler"))
    settings["default_root_dir"] = str(run)
    settings["use_distributed_sampler"] = False
    settings["log_every_n_steps"] = 1  # one row per optimizer step in metrics.csv
    settings["enable_model_summary"] = False
    settings["num_sanity_val_steps"] = 0
    return Trainer(**settings)


def as_list(value: Any) -> list[Any]:
    """Returns a setting that takes one or several as a list."""
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def is_progress_bar(callback: Any) -> bool:
    """Tells whether a callback is a progress bar, of which a Trainer takes one."""
    return isinstance(callback, ProgressBar)


def time_limits(max_time: Any, callbacks: list[Any], checkpoint: StepCheckpoint) -> list[Callback]:
    """Returns what stops a run whose time is over: for ``max_time``, and in place of each of Lightning's Timers."""
    timers = [callback.time_remaining() for callback in callbacks if type(callback) is Timer]
    seconds = [timedelta(seconds=limit) for limit in timers if limit is not None]
    return [TimeLimit(limit, checkpoint.stop) for limit in [*as_list(max_time), *seconds]]


def loggers_that_purge(value: Any, resumed_step: int) -> list[Logger]:
    """Returns the user's own loggers, which log beside the run's.

    Args:
        value: The setting; True stands for the run's own.
        resumed_step: From here on TensorBoard forgets what a stopped run has logged already.
    """
    loggers = [] if isinstance(value, bool) else as_list(value)
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger) and logger._kwargs.get("purge_step") is None:
            logger._kwargs["purge_step"] = resumed_step
    return loggers


def profiler_in(run: Path, profiler: Any) -> Profiler | None:
    """Returns a profiler that writes into the run's folder: at its end what it says would be seen by nobody."""
    made = PROFILERS[profiler.lower()]() if isinstance(profiler, str) else profiler
    if made is not None:
        made.dirpath = made.dirpath or str(run)
        made.filename = made.filename or "profile"
    return made

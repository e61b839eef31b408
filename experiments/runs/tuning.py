"""Tunes an experiment in its run's folder: every check, the Trainer, checkpoints, the adapter, the record.

What ``m2pt fit`` does and what Python calls is this one way.
"""

import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor

from callbacks.best_adapter import BestAdapter
from callbacks.last_validation import LastValidation
from callbacks.lock_check import LockCheck
from callbacks.logger_guards import LoggerGuards
from callbacks.same_start import SameStart
from callbacks.stop_decision import StopDecision
from callbacks.time_limit import OutOfTime
from experiments.configuration.cli import Experiment
from experiments.runs.folder import refuse_other_settings, run_folder, template_content
from experiments.runs.lengths import check_sample_lengths
from experiments.runs.lock import alone_in
from experiments.runs.memory import decide_recomputation, plan_of
from experiments.runs.opening import empty_run_folder, is_being_emptied, open_run_folder, refuse_foreign_folder
from experiments.runs.peak_memory import peak_memory
from experiments.runs.prepare import check_experiment
from experiments.runs.regularised import check_regularised
from experiments.runs.start import start_of
from experiments.runs.training import check_machine, check_started, checkpoints_folder, prepared_trainer, tuning_data
from experiments.trainer.best_adapter import sets_chosen_by
from experiments.trainer.failures import refusals_named
from experiments.trainer.logger_settings import name_logged_runs
from experiments.trainer.surface import configured_processes, refuse_endless
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.parallel.common_end import CommonEnd
from lightning_m2pt.parallel.shared_out import would_be_zero, would_share_out_weights
from lightning_m2pt.parallel.units import refuse_unless_shardable, refuse_untried_under_zero
from lightning_m2pt.report.adapter_card import write_adapter_cards
from lightning_m2pt.report.tables.contamination import TASKS
from lightning_m2pt.runs.loading import ADAPTER, BEST
from lightning_m2pt.storage.adapter_base import adapter_base_of
from lightning_m2pt.storage.adapter_folder import TEMPLATE_DIGEST, refuse_unless_saved, save_adapter
from lightning_m2pt.storage.adapter_template import template_content as saved_template
from lightning_m2pt.storage.checkpoint import latest_checkpoint, step_of
from lightning_m2pt.storage.run_record import (
    BEST_ADAPTER,
    CHOSEN_BY_SETS,
    COMPLETED,
    LAST_VALIDATION,
    read_run_record,
    update_run_record,
)
from lightning_m2pt.system.console import is_main_process, log_file, say
from lightning_m2pt.system.launch_notices import launch_notices
from lightning_m2pt.system.rank_group import ranks_of_job
from lightning_m2pt.tuning.module import regularisers_of
from lightning_m2pt.tuning.positions import run_rows
from lightning_m2pt.tuning.prompt_first import check_length, refuse_under_zero
from lightning_m2pt.tuning.proven_strategies import configured_names, refuse_unproven_strategy
from lightning_m2pt.tuning.regularisers.base import refuse_regularisers_where_cut_up
from lightning_m2pt.tuning.sample_order import refuse_uneven_shares

MEMORY = "peak_memory_bytes"


def fit(experiment: Experiment, *, force: bool = False, folder: Path | None = None) -> Path:
    """Checks, tunes and saves the adapter, alone in the run's folder; returns it.

    Raises:
        BadInputError: If data, configuration and backbone do not fit together, or another process tunes there.
        EnvironmentFailure: If the run's folder cannot be written.
    """
    check_tuning(experiment)
    run = folder or run_folder(experiment)
    with alone_in(run) as still_alone:
        tune(experiment, run, still_alone, force=force)
    return run


def check_tuning_settings(experiment: Experiment) -> None:
    """Looks at the settings of a tuning alone, before anything is read or rendered: not at this machine.

    Raises:
        BadInputError: If nothing is trained, nothing says until when, the devices cannot share a step evenly, or the
            strategy does not fit.
    """
    if not experiment.model.method.part_names():
        raise BadInputError(
            f"method {experiment.model.method.name} trains nothing",
            where="model.method",
            expected="a method with trained parts",
            hint="`m2pt evaluate` evaluates the frozen model",
        )
    trainer = experiment.config["trainer"]
    refuse_endless(trainer)
    if (trainer.get("max_steps") or -1) > 0:
        check_length(experiment.model.schedule_settings.prompt_first_steps, trainer["max_steps"])
    refuse_uneven_shares(tuning_data(experiment).batch_size, configured_processes(trainer))
    check_strategy(experiment)


def check_strategy(experiment: Experiment) -> None:
    """Compares the configured strategy with what is tuned.

    Raises:
        BadInputError: If it is not proven, at all or for this method or backbone.
    """
    strategy = experiment.config["trainer"].get("strategy")
    refuse_unproven_strategy(configured_names(strategy))
    if would_share_out_weights(strategy):
        refuse_unless_shardable(experiment.model.backbone, experiment.model.method)
        refuse_regularisers_where_cut_up(regularisers_of(experiment.model))
    if would_be_zero(strategy):
        refuse_untried_under_zero(experiment.model.backbone, experiment.model.method)
        refuse_regularisers_where_cut_up(regularisers_of(experiment.model))
        if experiment.model.gradient_norm is not None:
            experiment.model.gradient_norm.refuse_under_zero()
        refuse_under_zero(experiment.model.schedule_settings.prompt_first_steps)


def check_tuning(experiment: Experiment) -> None:
    """Looks for everything that tuning reads, before weights are loaded.

    Raises:
        BadInputError: If data, configuration and backbone do not fit together.
    """
    data = tuning_data(experiment)
    check_tuning_settings(experiment)
    check_started(experiment)
    check_experiment(experiment)
    check_machine(experiment)
    data.check()
    check_regularised(experiment)
    check_sample_lengths(experiment.model, data)


def tune(experiment: Experiment, run: Path, still_alone: Callable[[], None], *, force: bool) -> None:
    """Tunes a checked experiment in a folder where nobody else does; a finished run is left as it is.

    Args:
        experiment: What is tuned.
        run: The run's folder.
        still_alone: Raises if another process has come into the folder; asked after every batch.
        force: Start the run over.

    Raises:
        BadInputError: If the folder holds something else, or a run of other settings.
        EnvironmentFailure: If it cannot be written, or another process has come into it.
    """
    data = tuning_data(experiment)
    refuse_foreign_folder(run)
    force = force or is_being_emptied(run)
    if not force:
        refuse_other_settings(run, experiment)
        if COMPLETED in read_run_record(run):
            say(f"already tuned: {run}   (--force or FORCE=1 does it again)")
            return
    newest = None if force else latest_checkpoint(checkpoints_folder(run))
    resumed_step = step_of(newest) if newest else 0
    name_logged_runs(experiment.trainer_values, None if force else run)
    trainer, common_end = prepared_trainer(experiment, run, resumed_step), CommonEnd()

    def connected() -> None:
        common_end.watch()
        ranks_of_job()  # needed at the end alone; that processes do not reach each other is known before weights load

    same_start = SameStart(lambda: start_of(experiment, resumed_step), connected)
    # A connector sets the attribute, unknown to type checkers.
    trainer.callbacks[:0] = [same_start, LockCheck(still_alone)]  # type: ignore[attr-defined]
    rows = run_rows(experiment.model.backbone.shape, experiment.model.method)
    largest = data.largest_micro_batch(trainer.world_size, rows)
    plan = plan_of(experiment.config["trainer"], trainer.world_size)
    processes = trainer.world_size // trainer.num_nodes
    decide_recomputation(experiment, trainer.strategy.root_device, largest, plan, processes)
    say_launch_notices(experiment, trainer)
    # Everything that can be refused has been: from here on the folder changes.
    if is_main_process():
        if force:
            empty_run_folder(run)
        open_run_folder(run, experiment)
        update_run_record(run, TASKS, data.training_tasks())
    open_loggers(trainer)
    started, out_of_time = time.monotonic(), False
    with log_file(run), common_end.around(trainer), refusals_named(experiment.config["trainer"]):
        try:
            trainer.fit(experiment.model, datamodule=data, ckpt_path=newest and str(newest), weights_only=False)
        except OutOfTime:
            out_of_time = True
    if trainer.is_global_zero:
        still_alone()
        keep(experiment, run, trainer, round(time.monotonic() - started, 1), out_of_time=out_of_time)


def say_launch_notices(experiment: Experiment, trainer: Trainer) -> None:
    """Says what about the launch is hardly meant."""
    device, chosen = trainer.strategy.root_device.type, experiment.config["trainer"].get("accelerator")
    is_chosen = chosen not in (None, "auto")
    for notice in launch_notices(os.environ, device=device, is_chosen=is_chosen, has_srun=bool(shutil.which("srun"))):
        say(notice)


def open_loggers(trainer: Trainer) -> None:
    """Begins what the user's own loggers log to.

    Raises:
        EnvironmentFailure: If one cannot.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, LoggerGuards):
            callback.open(trainer)


def keep(experiment: Experiment, run: Path, trainer: Trainer, seconds: float, *, out_of_time: bool = False) -> None:
    """Saves the adapter, reads it back, and marks the run as completed.

    It is if it took all its steps, or a callback ended it early; not if its time was over before the last validation.
    """
    steps = trainer.global_step
    save_tuned(experiment, run / ADAPTER, steps)
    keep_best(experiment, run, trainer)
    planned, stopped_by = int(trainer.estimated_stepping_batches), stop_reason(trainer)
    if out_of_time or (steps < planned and stopped_by is None):
        write_adapter_cards(run)
        say(f"stopped after {steps} of {planned} steps: the same command goes on")
        return
    memory = peak_memory(trainer.strategy.root_device)
    ended = {"optimizer_steps": steps, "seconds": seconds, MEMORY: memory}
    if steps < planned:
        say(f"complete after {steps} of {planned} steps: {stopped_by}")
        ended["stopped_by"] = stopped_by
    for last in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(last, LastValidation) and last.measured and last.step == steps:
            update_run_record(run, LAST_VALIDATION, last.measured)
    update_run_record(run, COMPLETED, ended)
    write_adapter_cards(run)


def keep_best(experiment: Experiment, run: Path, trainer: Trainer) -> None:
    """Saves the adapter of the best step where one was asked for, and records what chose it."""
    if sets := sets_chosen_by(experiment.config["trainer"]):
        update_run_record(run, CHOSEN_BY_SETS, sets)
    for best in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(best, BestAdapter):
            chosen = best.chosen(trainer.global_step)
            if best.tensors:
                save_tuned(experiment, run / BEST, best.step, chosen, best.tensors)
                say(f"best adapter: {best.monitor} {best.value:.4g} at step {best.step} of {trainer.global_step}")
            else:
                say(f"no best adapter: {best.monitor} was never a finite number")
            update_run_record(run, BEST_ADAPTER, {**chosen, "evaluated": best.evaluated})


def save_tuned(
    experiment: Experiment,
    folder: Path,
    steps: int,
    chosen: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Saves an adapter and reads it back.

    Args:
        experiment: What was tuned.
        folder: The adapter's folder.
        steps: Optimizer steps that the adapter has had.
        chosen: What chose it, if it is not that of the last step.
        tensors: Its tensors; None takes those of the method as they are.
    """
    backbone, method = experiment.model.backbone, experiment.model.method
    save_adapter(
        folder,
        method,
        adapter_base_of(backbone),
        f"# {method.name} adapter\n",  # `write_adapter_cards` says more, once the run's record does
        template=experiment.data.template.name,
        template_sha256=template_content(experiment.data).get(TEMPLATE_DIGEST, ""),
        chosen=chosen,
        tensors=tensors,
        tuned={"steps": steps, "seed": experiment.seed},
        content_of_template=saved_template(experiment.data.template),
    )
    refuse_unless_saved(folder, method, tensors)


def stop_reason(trainer: Trainer) -> str | None:
    """Returns why a callback has ended the run before its last step; None if none has."""
    decisions = [callback for callback in trainer.callbacks if isinstance(callback, StopDecision)]  # type: ignore[attr-defined]
    return decisions[0].reason() if decisions else None

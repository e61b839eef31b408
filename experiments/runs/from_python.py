"""Tuning and evaluating from Python: objects in, a run's folder and scores out, by the way that ``m2pt`` goes."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_modules.benchmark import BenchmarkDataModule
from data_modules.instruction import InstructionDataModule
from experiments.configuration.environment import refuse_trainer_variables
from experiments.runs import tuning
from experiments.runs.evaluation import AnsweringOptions, check_benchmarks, evaluate_frozen, evaluate_tuned
from experiments.runs.loading import load_evaluated, load_run
from experiments.runs.objects import LARGEST_SEED, experiment_of_objects, refuse_number
from experiments.runs.prepare import connect_experiment, require_benchmarks
from experiments.runs.training import tuning_data
from experiments.runs.ways_to_answer import PremiseRule
from lightning_m2pt.answering.decoding import AnsweringMethod
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.score import Score
from lightning_m2pt.report.adapter_card import write_adapter_cards
from lightning_m2pt.runs.loading import ADAPTER
from lightning_m2pt.storage.run_record import COMPLETED, read_run_record
from lightning_m2pt.tuning.module import TuningModule, is_built


def fit(
    model: TuningModule,
    data: InstructionDataModule,
    trainer: Mapping[str, Any],
    folder: str | Path,
    *,
    seed: int = 0,
    save_every_n_steps: int = 50,
    validate_every_n_steps: int = 0,
    force: bool = False,
) -> Path:
    """Tunes as ``m2pt fit`` does: the same checks, order, checkpoints, log files and adapter (but its card).

    The same call goes on where a run was stopped, and does nothing where it is complete. It seeds the generators of
    Python, numpy and torch.

    Args:
        model: Backbone and method. Its method is new; its backbone may have been loaded before.
        data: What is tuned on.
        trainer: Arguments of Lightning's Trainer, as ``{"max_steps": 300, "callbacks": [...]}``; classes of your own
            among them.
        folder: The run's folder. Nothing names it: no configuration describes what is handed over. ``run.json`` records
            what can be read off the objects, and a call with others in the same folder is refused.
        seed: Decides prompts, order and dropout.
        save_every_n_steps: Optimizer steps between two checkpoints.
        validate_every_n_steps: Optimizer steps between two validations, over all epochs; 0 leaves it to the Trainer.
            The last step is always validated.
        force: Start the run over.

    Returns:
        The run's folder, with the adapter in ``adapter``. The model holds the adapter that the run is evaluated with:
        that of the last step, or the best one where a ``BestAdapter`` says so.

    Raises:
        BadInputError: If something does not fit together, or the method has been built before.
        EnvironmentFailure: If the folder cannot be written.
    """
    refuse_trainer_variables(os.environ)
    refuse_number("seed", seed, 0, LARGEST_SEED)
    refuse_number("save_every_n_steps", save_every_n_steps, 1)
    refuse_number("validate_every_n_steps", validate_every_n_steps, 0)
    experiment = experiment_of_objects(
        model, data, (), trainer, Path(folder), seed, save_every_n_steps, validate_every_n_steps
    )
    refuse_built(model)
    tuning_data(experiment)
    try:
        run = tuning.fit(experiment, force=force, folder=Path(folder))
    finally:
        data.leave_run()
    if COMPLETED in read_run_record(run) and is_built(model.method):
        load_evaluated(run, experiment)
    return run


def save(model: TuningModule, data: InstructionDataModule, folder: str | Path) -> Path:
    """Saves the adapter of a module that ``trainer.fit(model, data)`` has tuned, as ``m2pt fit`` saves it.

    Args:
        model: As it is now.
        data: What it was tuned on: the adapter says in which template.
        folder: A folder; the adapter goes into ``adapter`` within, where ``m2pt`` and ``evaluate`` look for it.

    Returns:
        The adapter's folder.

    Raises:
        BadInputError: If nothing is loaded, or what was saved does not read back.
    """
    experiment = experiment_of_objects(model, data, (), {}, Path(folder), 0, 1)
    if not is_built(model.method):
        raise BadInputError(
            "nothing has been tuned yet", where="model", expected="a module that a Trainer's fit was given"
        )
    experiment.seed = data.seed()
    steps = model.trainer.global_step
    tuning.save_tuned(experiment, Path(folder) / ADAPTER, steps)
    write_adapter_cards(Path(folder))
    return Path(folder) / ADAPTER


def evaluate(
    model: TuningModule,
    benchmarks: BenchmarkDataModule | Sequence[BenchmarkDataModule],
    folder: str | Path,
    *,
    answer: AnsweringMethod = "greedy",
    premise: PremiseRule | None = None,
    accelerator: str = "auto",
    force: bool = False,
) -> dict[str, Score]:
    """Answers and scores evaluation sets as ``m2pt evaluate`` does; answers that are there are not made again.

    Args:
        model: As it is if it is loaded; otherwise the adapter of the run in ``folder`` is loaded into it. Of a method
            that trains nothing the untouched model answers.
        benchmarks: One set or several.
        folder: A run's folder, or one of its own: ``predictions`` and ``scores`` are written there.
        answer: How questions are answered.
        premise: What ``contextual_calibration`` (a ``ContentFree``) or ``likelihood_pmi`` (a ``DomainPremise``) set
            against a question; None takes the published.
        accelerator: Where, as Lightning's Trainer has it.
        force: Answer again.

    Returns:
        Every set's score by its name.

    Raises:
        BadInputError: If data are wrong, there is no adapter, or answers of another model are there.
    """
    sets = [benchmarks] if isinstance(benchmarks, BenchmarkDataModule) else list(benchmarks)
    trainer = {"accelerator": accelerator}
    first = next(iter(sets), None)
    if first is None:
        raise BadInputError("no evaluation sets", where="benchmarks", expected="one or more data modules")
    experiment = experiment_of_objects(model, first, sets, trainer, Path(folder), 0, 1)
    require_benchmarks(experiment)
    connect_experiment(experiment)
    check_benchmarks(experiment, method=answer, premise=premise)
    options = AnsweringOptions(answer, force, premise=premise)
    if not model.method.part_names():
        return evaluate_frozen(experiment, options)[1]
    if not (model.backbone.is_loaded and is_built(model.method)):
        load_run(Path(folder), experiment)
    return evaluate_tuned(experiment, Path(folder), options=options)


def refuse_built(model: Any) -> None:
    """Refuses a method that has tensors already: a new run begins with new ones.

    Raises:
        BadInputError: If it has.
    """
    if isinstance(model, TuningModule) and model.method.built_shapes is not None:
        raise BadInputError(
            "the method has been built, and perhaps tuned, before",
            where="model.method",
            expected="a new method: TuningModule(model.backbone, M2PT(...)); the backbone need not be loaded again",
            hint="trainer.fit(model, data) of Lightning's own goes on from the tensors as they are",
        )

"""An experiment of objects that Python hands over, checked as one that a configuration describes."""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import Trainer

from data_modules.base import DataModule
from data_modules.benchmark import BenchmarkDataModule
from experiments.configuration.cli import Experiment, ExperimentParser, refuse_same_names
from experiments.configuration.errors import as_bad_input
from experiments.trainer.described import Described, described
from experiments.trainer.interval import INTERVAL, refuse_two_intervals
from experiments.trainer.surface import check_trainer
from lightning_m2pt.configuration.parser_settings import PARSER
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.tuning.module import TuningModule

LARGEST_SEED = 2**32 - 1
TAKE_OBJECTS = ("callbacks", "logger", "plugins", "profiler", "strategy")
"""Settings of a Trainer that take objects."""


def experiment_of_objects(
    model: TuningModule,
    data: DataModule,
    benchmarks: Sequence[BenchmarkDataModule],
    trainer: Mapping[str, Any],
    folder: Path,
    seed: int,
    save_every_n_steps: int,
    validate_every_n_steps: int = 0,
) -> Experiment:
    """Returns an experiment of a run whose folder is given: no hash can name what no configuration describes.

    Args:
        model: Backbone and method, nothing loaded.
        data: What is tuned on, or asked.
        benchmarks: Evaluation sets.
        trainer: Arguments of Lightning's Trainer: plain values and objects.
        folder: The run's folder.
        seed: Decides prompts, order and dropout.
        save_every_n_steps: Optimizer steps between two checkpoints.
        validate_every_n_steps: Optimizer steps between two validations, over all epochs; 0 leaves it to the Trainer.

    Raises:
        BadInputError: If something is none of these, or the settings do not fit together.
    """
    values, objects = trainer_values(trainer)
    refuse_other_kinds(model, data)
    plain = {**values.as_dict(), **{key: described(value) for key, value in objects.items()}}
    check_trainer(plain)
    refuse_two_intervals({INTERVAL: validate_every_n_steps, "trainer": plain})
    model.check()
    refuse_same_names(benchmarks)
    return Experiment(
        name=folder.name,
        config={
            "seed_everything": seed,
            "save_every_n_steps": save_every_n_steps,
            **({INTERVAL: validate_every_n_steps} if validate_every_n_steps else {}),
            "model": {
                "backbone": Described(model.backbone),
                "method": Described(model.method),
                "optimizer": described(model.optimizer_settings),
                "schedule": described(model.schedule_settings),
                "loss_average": model.loss_average,
                "shortcuts": described(model.shortcuts),
                "gradient_norm": described(model.gradient_norm),
                "regularisers": described(list(model.regularisers)),
            },
            "data": Described(data),
            "benchmarks": described(list(benchmarks)),
            "trainer": plain,
        },
        model=model,
        data=data,
        benchmarks=list(benchmarks),
        output_root=folder.parent,
        seed=seed,
        save_every_n_steps=save_every_n_steps,
        trainer_values=values,
        trainer_objects=objects,
        is_of_objects=True,
    )


def refuse_other_kinds(model: Any, data: Any) -> None:
    """Looks whether what Python hands over is of its kind.

    Raises:
        BadInputError: Naming the first that is not.
    """
    for name, value, kind in (("model", model, TuningModule), ("data", data, DataModule)):
        if not isinstance(value, kind):
            raise BadInputError(
                f"a {type(value).__name__} is given", where=name, expected=f"a {kind.__module__}.{kind.__name__}"
            )


def refuse_number(name: str, value: Any, least: int, most: int = 0) -> None:
    """Refuses what is no whole number of a range.

    Args:
        name: What it is called.
        value: What is given.
        least: The smallest that fits.
        most: The largest that fits; 0 for no limit.

    Raises:
        BadInputError: If it does not fit.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most and value > most):
        expected = f"a whole number, {least} or more" + f", at most {most}" * bool(most)
        raise BadInputError(f"{value!r:.40} does not fit", where=name, expected=expected)


def trainer_values(trainer: Any) -> tuple[Namespace, dict[str, Any]]:
    """Returns a Trainer's arguments: plain values as a parser reads them, defaults included, and objects.

    Raises:
        BadInputError: If they are no arguments, one is unknown, or a value is of another type.
    """
    if not isinstance(trainer, Mapping):
        raise BadInputError(
            f"a {type(trainer).__name__} is given",
            where="trainer",
            expected='the arguments of one, as in {"max_steps": 300}: how a step is split and where it saves follow',
            hint="a Trainer that is made already tunes by its own trainer.fit(model, data)",
        )
    known = list(inspect.signature(Trainer).parameters)
    for name in trainer:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            raise BadInputError(
                "unknown argument",
                where=f"trainer.{name}",
                expected="one of Lightning's Trainer",
                hint=f"did you mean {near[0]}?" if near else "",
            )
    objects = {key: value for key, value in trainer.items() if key in TAKE_OBJECTS and is_of_objects(value)}
    parser = ExperimentParser(**PARSER)
    parser.add_lightning_class_args(Trainer, "trainer")
    plain = {key: value for key, value in trainer.items() if key not in objects}
    try:
        return parser.parse_object({"trainer": plain}, env=False)["trainer"], objects
    except (ArgumentError, TypeError, ValueError) as error:
        raise as_bad_input(error, [], []) from error


def is_of_objects(value: Any) -> bool:
    """Tells whether a setting's value is neither plain nor a description that the parser could read."""
    if isinstance(value, list | tuple):
        return any(map(is_of_objects, value))
    return not (value is None or isinstance(value, bool | str | Mapping))

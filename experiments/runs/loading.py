"""From a run's folder, or an adapter's, back to an experiment."""

import gc
from collections.abc import Sequence
from pathlib import Path

import torch

from experiments.configuration.catalogue import EXPERIMENTS
from experiments.configuration.cli import Experiment, parse_experiment
from experiments.runs.prepare import check_experiment
from lightning_m2pt.parallel.fully_sharded import FullyShardedStrategy
from lightning_m2pt.parallel.zero import ZeroStrategy
from lightning_m2pt.runs.adapter_settings import method_settings, names_experiment
from lightning_m2pt.runs.loading import BEST, evaluated_adapter, load_weights, load_with_adapter, take_adapter
from lightning_m2pt.runs.model_of_adapter import words_of_adapter
from lightning_m2pt.runs.model_of_run import config_file

ONE_DEVICE = EXPERIMENTS / "parts/one_device.yaml"
ADAPTER_ALONE = EXPERIMENTS / "parts/adapter_alone.yaml"
"""What an adapter is read with that says its base: it sets no evaluation set."""


def experiment_of(run: Path | None, adapter: Path | None, words: Sequence[str]) -> Experiment:
    """Parses what a verb is told: a run with words on top, an adapter on the base of words, or words alone.

    Args:
        run: A run's folder.
        adapter: An adapter's folder; at most one of the two is given.
        words: ``--config FILE`` and settings.

    Raises:
        BadInputError: If a folder is none of these, or a word is wrong.
    """
    if run is not None:
        return experiment_of_run(run, words)
    return parse_experiment(words) if adapter is None else experiment_of_adapter(adapter, words)


def experiment_of_run(run: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Parses the resolved configuration a run keeps, with overrides on top.

    The strategy and the devices that it was tuned with are not its own any more: of these only the overrides count.

    Raises:
        BadInputError: If the folder is no run.
    """
    config = config_file(run)
    words = ["--config", str(config), "--config", str(ONE_DEVICE), *overrides]
    return parse_experiment(words, name=run.resolve().parent.name, was_run=True)


def experiment_of_adapter(adapter: Path, words: Sequence[str]) -> Experiment:
    """Parses an experiment with an adapter's method in the place of its own; its base as well if no word names one.

    Raises:
        BadInputError: If the folder is no adapter, neither it nor a word says where the base is, or a word is wrong.
    """
    if names_experiment(words):
        return parse_experiment([*method_settings(adapter), *words])
    return parse_experiment(["--config", str(ADAPTER_ALONE), *words_of_adapter(adapter, words), *words])


def load_run(run: Path, experiment: Experiment) -> None:
    """Loads the frozen weights and the run's adapter into the experiment's model.

    Args:
        run: The run's folder.
        experiment: Its model is not loaded yet; it will be asked in the templates of its evaluation sets.

    Raises:
        BadInputError: If the adapter is missing, damaged, or belongs to another backbone or other arguments; known
            before any weight is loaded.
    """
    load_weights(run, experiment.model, templates_of(experiment))


def load_evaluated(run: Path, experiment: Experiment) -> None:
    """Brings the adapter that a run is evaluated with into a model, which may have been tuned just now.

    Raises:
        BadInputError: If the adapter is missing or damaged.
    """
    if not experiment.model.backbone.is_loaded:
        load_run(run, experiment)
    elif (folder := evaluated_adapter(run)).name == BEST:
        take_adapter(folder, experiment.model)


def is_in_pieces(experiment: Experiment) -> bool:
    """Tells whether a strategy has just tuned a model that is not whole on this device, or not its own any more."""
    if not experiment.model.backbone.is_loaded:
        return False
    return isinstance(experiment.trainer_config.get("strategy"), FullyShardedStrategy | ZeroStrategy)


def read_anew(words: Sequence[str]) -> Experiment:
    """Parses and connects an experiment with a model that is not loaded; memory that nobody holds is given back first.

    Args:
        words: What the experiment was read from before.
    """
    gc.collect()  # a model and its Trainer hold each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    experiment = parse_experiment(words)
    check_experiment(experiment)
    return experiment


def load_tuned(run: Path | None, adapter: Path | None, experiment: Experiment) -> None:
    """Loads the frozen weights and a run's adapter, or one by itself; does nothing if neither is given.

    Args:
        run: A run's folder.
        adapter: An adapter's folder; at most one of the two is given.
        experiment: Its model is not loaded yet; it will be asked in the templates of its evaluation sets.

    Raises:
        BadInputError: If the adapter is missing, damaged, or belongs to another backbone or other arguments; known
            before any weight is loaded.
    """
    if run is not None:
        load_run(run, experiment)
    elif adapter is not None:
        load_with_adapter(adapter, experiment.model, templates_of(experiment))


def templates_of(experiment: Experiment) -> list[str]:
    """Returns the labels of the templates that an experiment's evaluation sets are asked in."""
    return [benchmark.template_label for benchmark in experiment.benchmarks]

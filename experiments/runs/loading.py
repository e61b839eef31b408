"""From a run's folder back to an experiment."""

from collections.abc import Sequence
from pathlib import Path

from experiments.configuration.cli import Experiment, parse_experiment
from lightning_m2pt.runs.loading import load_weights
from lightning_m2pt.runs.model_of_run import config_file


def experiment_of_run(run: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Parses the resolved configuration a run keeps, with overrides on top.

    Raises:
        BadInputError: If the folder is no run.
    """
    config = config_file(run)
    return parse_experiment(["--config", str(config), *overrides], name=run.resolve().parent.name, was_run=True)


def load_run(run: Path, experiment: Experiment) -> None:
    """Loads the frozen weights and the run's adapter into the experiment's model.

    Args:
        run: The run's folder.
        experiment: Its model is not loaded yet; it will be asked in the templates of its evaluation sets.

    Raises:
        BadInputError: If the adapter is missing, damaged, or belongs to another backbone or other arguments; known
            before any weight is loaded.
    """
    load_weights(run, experiment.model, [benchmark.template.name for benchmark in experiment.benchmarks])

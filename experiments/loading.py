"""From a run's folder back to a model."""

from collections.abc import Sequence
from pathlib import Path

from experiments.cli import Experiment, parse_experiment
from lightning_m2pt.adapter import check_adapter, load_adapter
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.run_record import CONFIG_FILE

ADAPTER = "adapter"


def experiment_of_run(run: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Parses the resolved configuration a run keeps, with overrides on top.

    Raises:
        BadInputError: If the folder is no run.
    """
    config = run / CONFIG_FILE
    if not config.is_file():
        raise BadInputError(
            "no run here", where=str(run), expected="a folder outputs/EXPERIMENT/RUN", hint="ls outputs/*/"
        )
    return parse_experiment(["--config", str(config), *overrides], name=run.resolve().parent.name, was_run=True)


def load_run(run: Path, experiment: Experiment) -> None:
    """Loads the frozen weights and the run's adapter into the experiment's model.

    Raises:
        BadInputError: If the adapter is missing, damaged, or belongs to another backbone or other arguments; known
            before any weight is loaded.
    """
    model = experiment.model
    if not model.method.part_names():
        model.configure_model()
        return
    check_adapter(run / ADAPTER, model.method, model.backbone.fingerprint())
    model.configure_model()
    load_adapter(run / ADAPTER, model.method)

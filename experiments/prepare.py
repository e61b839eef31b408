"""What every verb does before weights are loaded: files are there, testbed data are rendered."""

from pathlib import Path

from experiments.cli import Experiment
from lightning_m2pt.errors import BadInputError

TESTBED_ROOT = Path("data/testbed")
TESTBED_SEED = 0


def check_experiment(experiment: Experiment) -> None:
    """Looks for the backbone's files, renders the testbed if the experiment uses it, and connects the data modules.

    Raises:
        BadInputError: If files are missing.
    """
    experiment.model.backbone.check_files()
    render_testbed_if_used(experiment)
    experiment.connect()


def render_testbed_if_used(experiment: Experiment) -> None:
    """Renders the testbed's data if a data module reads them; does nothing if they are complete."""
    roots = [data_module.root for data_module in [experiment.data, *experiment.benchmarks]]
    if any(root.is_relative_to(TESTBED_ROOT) for root in roots):
        from experiments.testbed import testbed

        if not testbed.is_complete(TESTBED_ROOT, TESTBED_SEED):
            testbed.main(["--root", str(TESTBED_ROOT), "--seed", str(TESTBED_SEED)])


def require_benchmarks(experiment: Experiment) -> None:
    """Raises BadInputError if the experiment names no evaluation set."""
    if not experiment.benchmarks:
        raise BadInputError(
            "no evaluation sets", where="benchmarks", expected="a list of data modules in the experiment's file"
        )

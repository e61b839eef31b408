"""From a run's folder back to a model."""

from collections.abc import Sequence
from pathlib import Path

from experiments.configuration.cli import Experiment, parse_experiment
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.adapter import check_adapter, load_adapter, read_adapter_config
from lightning_m2pt.storage.run_record import CONFIG_FILE, is_unfinished, read_run_record
from lightning_m2pt.system.console import say

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


def load_run(run: Path, experiment: Experiment, templates: Sequence[str] = ()) -> None:
    """Loads the frozen weights and the run's adapter into the experiment's model.

    Args:
        run: The run's folder.
        experiment: Its model is not loaded yet.
        templates: Names of the templates it will be asked in; none: those of the experiment's evaluation sets.

    Raises:
        BadInputError: If the adapter is missing, damaged, or belongs to another backbone or other arguments; known
            before any weight is loaded.
    """
    model = experiment.model
    if not model.method.part_names():
        model.configure_model()
        return
    check_adapter(run / ADAPTER, model.method, model.backbone.fingerprint(), model.backbone.former_fingerprint())
    say_differences(run, experiment, templates or [benchmark.template.name for benchmark in experiment.benchmarks])
    model.configure_model()
    load_adapter(run / ADAPTER, model.method)


def say_differences(run: Path, experiment: Experiment, templates: Sequence[str]) -> None:
    """Says so where a model is asked otherwise than it was tuned, or before it is, which is allowed.

    Before format 2 an adapter says nothing of this.

    Args:
        run: The run's folder, with its adapter.
        experiment: What its model is loaded into.
        templates: Names of the templates it will be asked in.
    """
    config, dtype = read_adapter_config(run / ADAPTER), experiment.model.backbone.dtype_name
    others = sorted({template for template in templates if template != config.get("template")})
    if is_unfinished(read_run_record(run)):
        say("note: tuning was stopped before its last step: the command that began it goes on with it")
    if config.get("base_dtype") not in (None, dtype):
        say(f"note: tuned on a base in {config['base_dtype']}, which is in {dtype} now")
    if config.get("template") is not None and others:
        say(f"note: tuned with the template {config['template']}, asked in {', '.join(others)} now")

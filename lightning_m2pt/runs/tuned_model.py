"""What a command looks at: a run's model, or an adapter by itself on the base of an experiment."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.named_templates import Template
from lightning_m2pt.runs.adapter_settings import names_experiment
from lightning_m2pt.runs.loading import ADAPTER, evaluated_adapter, load_with_adapter
from lightning_m2pt.runs.model_of_adapter import model_of_adapter
from lightning_m2pt.runs.model_of_run import model_of_run, runs_near, template_of_run
from lightning_m2pt.storage.adapter_folder import CONFIG_FILE as ADAPTER_FILE
from lightning_m2pt.storage.adapter_folder import read_adapter_config
from lightning_m2pt.storage.adapter_template import adapter_template
from lightning_m2pt.storage.run_record import CONFIG_FILE as RUN_FILE
from lightning_m2pt.system.checkout import checkout_module
from lightning_m2pt.tuning.module import TuningModule

READS_EXPERIMENTS = "experiments.runs.loading"


@dataclass(frozen=True)
class TunedModel:
    """A run's folder, or an adapter's.

    Attributes:
        run: The run's folder; None with an adapter by itself.
        adapter: The adapter's folder.
    """

    run: Path | None
    adapter: Path

    def model(self, words: Sequence[str], verb: str) -> TuningModule:
        """Makes backbone and method; no weights are loaded.

        Args:
            words: Settings; with an adapter that does not say its base ``--config FILE`` among them, which needs a
                checkout.
            verb: What needs it, for messages.

        Raises:
            BadInputError: If a folder is none of these, a word is wrong, or there is no checkout.
        """
        if self.run is not None:
            return model_of_run(self.run, words)
        found = None if names_experiment(words) else model_of_adapter(self.adapter, words)
        if found is not None:
            return found
        reader = checkout_module(READS_EXPERIMENTS, f"{verb} --adapter")
        model: TuningModule = reader.experiment_of_adapter(self.adapter, words).model
        return model

    def load(self, model: TuningModule, templates: Sequence[str] = ()) -> None:
        """Loads the frozen weights and the adapter.

        Raises:
            BadInputError: If the adapter is missing, damaged, or of another backbone or other arguments.
        """
        load_with_adapter(self.adapter, model, templates)

    def template(self) -> Template:
        """Returns the template in which the model is asked where nothing else says one.

        Raises:
            BadInputError: If an adapter says none, or before format 3 the name of a file.
        """
        if self.run is not None:
            return template_of_run(self.run)
        template = adapter_template(read_adapter_config(self.adapter), str(self.adapter / ADAPTER_FILE))
        if template is None:
            raise BadInputError(
                "the adapter does not say its template",
                where=str(self.adapter),
                expected="questions of sets, which have templates of their own",
            )
        return template

    def results(self, name: str, output: Path | None) -> Path:
        """Returns the folder of what is found; it may not be there yet.

        Args:
            name: What it is called in a run's ``figures``.
            output: The folder that the command line names, if it does.

        Raises:
            BadInputError: If an adapter is looked at and no folder is named.
        """
        if output is None and self.run is None:
            raise BadInputError(
                "an adapter has no folder for results", where="command line: --adapter", expected="--output DIR"
            )
        return output or (self.run or self.adapter) / "figures" / name


def tuned_model(run: Path | None, adapter: Path | None) -> TunedModel:
    """Returns what a command line names; exactly one of the two is given."""
    return TunedModel(run, adapter or evaluated_adapter(run or Path()))


def tuned_at(folder: Path) -> TunedModel:
    """Returns what a folder is: a run, or an adapter by itself.

    Raises:
        BadInputError: If it is neither.
    """
    if (folder / RUN_FILE).is_file():
        return tuned_model(folder, None)
    if (folder / ADAPTER_FILE).is_file():
        return tuned_model(None, folder)
    if (folder / ADAPTER / ADAPTER_FILE).is_file():  # a run of which the configuration was not kept
        return tuned_model(None, evaluated_adapter(folder))
    raise BadInputError(
        "neither a run nor an adapter",
        where=str(folder),
        expected=f"a folder with {RUN_FILE}, as `m2pt fit` makes it, or with {ADAPTER_FILE}",
        hint=runs_near(folder),
    )

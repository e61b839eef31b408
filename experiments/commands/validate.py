"""Runs ``m2pt validate``; its flags and what it is for are in ``parsers``."""

import json
from collections.abc import Sequence

from callbacks.progress import SampleProgressBar
from experiments.commands.parsers.validate import argument_parser
from experiments.configuration.cli import Experiment
from experiments.runs.answering import answering_trainer, started_ranks
from experiments.runs.loading import experiment_of, load_tuned
from experiments.runs.prepare import check_experiment
from experiments.runs.training import require_validation_split, tuning_data
from experiments.trainer.whole_steps import validation_limit
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.runs.adapter_settings import names_experiment
from lightning_m2pt.system.console import say


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own, rest = argument_parser().parse_known_args(list(arguments))
    if own.adapter is not None and not names_experiment(rest) and not any(word.startswith("--data") for word in rest):
        raise BadInputError(
            "an adapter does not say on which data it was validated",
            where="command line: --adapter",
            expected="--data CLASS and its settings, or --config FILE",
        )
    experiment = experiment_of(own.run, own.adapter, rest)
    answering_trainer(experiment, [])  # devices and launcher fit together, before anything is read
    check_experiment(experiment)
    require_validation_split(experiment)
    started_ranks(experiment)
    load_tuned(own.run, own.adapter, experiment)
    say(json.dumps(validate(experiment)))
    return ExitCode.DONE


def validate(experiment: Experiment, *, limited: bool = False) -> dict[str, float]:
    """Returns ``val/loss`` per supervised token and ``val/answer_accuracy`` of the model as it is now.

    Args:
        experiment: The experiment, its model loaded.
        limited: Whether ``trainer.limit_val_batches``, a setting of a training, counts here too.
    """
    data = tuning_data(experiment)
    data.validation_limit = validation_limit(experiment.config["trainer"], data) if limited else None
    trainer = answering_trainer(experiment, [SampleProgressBar()])
    measured = trainer.validate(experiment.model, datamodule=data, verbose=False)
    return {name: float(value) for name, value in measured[0].items()}

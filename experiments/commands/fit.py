"""Runs ``m2pt fit``; its flags and what it is for are in ``parsers``."""

import json
from collections.abc import Sequence

from experiments.commands.parsers.fit import argument_parser
from experiments.commands.validate import require_validation_split, validate
from experiments.configuration.cli import parse_experiment
from experiments.runs.loading import load_evaluated
from experiments.runs.prepare import check_experiment
from experiments.runs.tuning import fit
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.storage.run_record import COMPLETED, read_run_record
from lightning_m2pt.system.console import say


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own, rest = argument_parser().parse_known_args(list(arguments))
    experiment = parse_experiment(rest)
    if own.validate:
        check_experiment(experiment)
        require_validation_split(experiment)
    run = fit(experiment, force=own.force, folder=own.run)
    say(f"adapter: {run / 'adapter'}")
    if own.validate and COMPLETED in read_run_record(run):
        load_evaluated(run, experiment)
        say(json.dumps(validate(experiment)))
    return ExitCode.DONE

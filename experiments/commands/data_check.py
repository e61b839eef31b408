"""Runs ``m2pt data check``; its flags and what it is for are in ``parsers``."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from data_modules.benchmark import BenchmarkDataModule, TemplateName
from experiments.commands.own_file import experiment_of_words
from experiments.commands.parsers.data_check import JSON, argument_parser
from experiments.commands.parsers.data_show import DEFAULT_CONFIG
from experiments.configuration.cli import Experiment
from experiments.datasets.evaluation_sets import EVALUATION_SETS, default_data_root, folder_of
from experiments.datasets.set_check import SetCheck, checked_set
from experiments.datasets.set_check_report import as_json, shown
from experiments.runs.prepare import connect_experiment
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.system.collector import without_collector
from lightning_m2pt.system.console import OUT, people_read_errors, say
from lightning_m2pt.tuning.positions import room_for_rows, run_rows

TEMPLATE: TemplateName = "plain"  # of sets of which pictures alone are compared


@without_collector()
def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    own, rest = argument_parser().parse_known_args(list(arguments))
    files = [word for file in own.config or [DEFAULT_CONFIG] for word in ("--config", file)]
    with people_read_errors(own.format == JSON):
        experiment = experiment_of_words(own.file, own.rule, own.template, files, rest)
        connect_experiment(experiment)
        shape, method = experiment.model.backbone.shape, experiment.model.method
        check = checked_set(
            experiment.data,
            SetCheck(type(experiment.data).__name__, own.file or str(experiment.data.root), depth=own.overlap),
            compared_sets(experiment, own.sets or default_data_root()),
            run_rows(shape, method),
            room_for_rows(shape, method),
            own.decode,
        )
    if own.format == JSON:
        sys.stdout.write(json.dumps(as_json(check), indent=1) + "\n")
    else:
        for part in shown(check):
            if isinstance(part, str):
                say(part)
            else:
                OUT.print(part)
    return ExitCode.BAD_INPUT if check.mistakes else ExitCode.DONE


def compared_sets(experiment: Experiment, data_root: Path) -> list[BenchmarkDataModule]:
    """Returns the evaluation sets of an experiment, then those that lie on disk beside them; never the checked one."""
    found = [each for each in experiment.benchmarks if each.root.resolve() != experiment.data.root.resolve()]
    places = {each.root.resolve() for each in [experiment.data, *found]}
    for name, kind in EVALUATION_SETS.items():
        folder = folder_of(name, data_root)
        if folder.is_dir() and folder.resolve() not in places:
            found.append(kind(str(folder), TEMPLATE))  # type: ignore[call-arg]
    return found

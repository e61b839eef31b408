"""Runs ``m2pt predict`` and ``m2pt test``; their flags and what they are for are in ``parsers``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_modules.benchmark import BenchmarkDataModule
from experiments.commands.evaluate import answers_come_from, recorded_config
from experiments.commands.parsers.predict import answering_parser
from experiments.configuration.cli import Experiment
from experiments.configuration.path_settings import paths_in_names
from experiments.runs.answering import answering_trainer, started_ranks
from experiments.runs.evaluation import check_benchmarks, evaluate_frozen, evaluate_tuned
from experiments.runs.folder import short_hash, template_content, without_later_settings
from experiments.runs.loading import experiment_of, load_tuned
from experiments.runs.prepare import check_experiment
from lightning_m2pt.commands.parsers.tuned import check_output
from lightning_m2pt.configuration.tree import PROMPT_TEXT
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.report.tables.backbone_gates import say_missed_gates
from lightning_m2pt.report.tables.scores import score_table
from lightning_m2pt.storage.adapter_folder import TEMPLATE_DIGEST
from lightning_m2pt.system.console import OUT, say


def main(arguments: Sequence[str]) -> int:
    """Runs the verb; the first word says which."""
    verb, *words = arguments
    own, rest = answering_parser(verb, None).parse_known_args(words)
    check_output(own)
    experiment = experiment_of(own.run, own.adapter, rest)
    if not isinstance(experiment.data, BenchmarkDataModule):
        raise BadInputError(
            f"{type(experiment.data).__name__} is no evaluation set",
            where="data",
            expected="an evaluation set, such as --data data_modules.mme.MME --data.root DIR --data.template NAME",
            hint="`m2pt evaluate` takes the list under benchmarks",
        )
    experiment.benchmarks = [experiment.data]
    answering_trainer(experiment, [])  # devices and launcher fit together, before anything is read
    check_experiment(experiment)
    check_benchmarks(experiment)
    ranks = started_ranks(experiment)
    load_tuned(own.run, own.adapter, experiment)
    if own.adapter:
        folder = own.output
        scores = evaluate_tuned(experiment, folder)
    elif own.run:
        folder = own.run / "evaluations" / f"{verb}-{experiment.data.name}-{short_hash(decides(own.run, experiment))}"
        scores = evaluate_tuned(experiment, folder)
    else:
        folder, scores = evaluate_frozen(experiment)
    if verb == "test" and not ranks.rank:
        OUT.print(score_table(list(scores.values()), OUT.width))
        say_missed_gates(experiment.config)
    say(f"predictions: {folder / 'predictions' / f'{experiment.data.name}.jsonl'}")
    return ExitCode.DONE


def decides(run: Path, experiment: Experiment) -> dict[str, Any]:
    """Returns what tells an answered set from others of a run: the set, and the model where it is not the run's own."""
    data = without_later_settings(experiment.config["data"])
    if PROMPT_TEXT in experiment.config:
        data = {**data, PROMPT_TEXT: template_content(experiment.data).get(TEMPLATE_DIGEST)}
    model, recorded = answers_come_from(experiment.config["model"]), recorded_config(run, experiment.opened)
    same_model = "model" in recorded and answers_come_from(recorded["model"]) == model
    named = paths_in_names({"data": data, "model": model}, experiment.opened)
    return named["data"] if same_model else named

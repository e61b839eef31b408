"""Runs ``m2pt check``; its flags and what it is for are in ``parsers``."""

import re
from collections.abc import Sequence

from data_modules.base import DataModule
from data_modules.benchmark import BenchmarkDataModule
from data_modules.instruction import InstructionDataModule
from data_modules.questions import Questions
from experiments.commands.parsers.check import DECODE, VERIFY, argument_parser
from experiments.configuration.cli import Experiment, parse_experiment
from experiments.datasets.check_report import mistakes_in, report_lines
from experiments.datasets.check_sets import check_sets
from experiments.datasets.evaluation_sets import default_data_root
from experiments.runs.lengths import check_question_lengths, check_sample_lengths
from experiments.runs.prepare import connect_experiment, refuse_tuned_benchmarks
from experiments.runs.regularised import check_regularised
from experiments.runs.tuning import check_strategy
from experiments.trainer.surface import configured_processes, refuse_endless
from experiments.trainer.whole_steps import check_limits, steps_of_run
from lightning_m2pt.backbones.decoders.reference import notice_of_reference
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.inputs.mistakes import mistakes_of
from lightning_m2pt.metrics.known_sizes import number_of_pictures, verdict_on
from lightning_m2pt.system.collector import without_collector
from lightning_m2pt.system.console import say
from lightning_m2pt.tuning.prompt_first import check_length
from lightning_m2pt.tuning.sample_order import refuse_uneven_shares

OWN_FLAGS = {VERIFY, DECODE}
NAMES = re.compile(r"\w+(,\w+)*")


@without_collector()
def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own, rest = argument_parser().parse_known_args(list(arguments))
    has_file = any(word.startswith(("--config", "-c")) for word in rest)
    if own.benchmarks is not None and NAMES.fullmatch(own.benchmarks) and not has_file:
        if rest:
            raise BadInputError(f"unknown argument {rest[0]!r:.60}", where="command line", expected="see --help")
        return check_sets(own.benchmarks, own.root or default_data_root(), own.decode)
    experiment = parse_experiment([word for word in arguments if word not in OWN_FLAGS])
    check_strategy(experiment)
    tuned_on = experiment.data if experiment.model.method.part_names() else None
    if isinstance(tuned_on, InstructionDataModule):
        refuse_endless(experiment.config["trainer"])
        refuse_uneven_shares(tuned_on.batch_size, configured_processes(experiment.config["trainer"]))
    connect_experiment(experiment)
    notice = notice_of_reference(experiment.model.backbone.shape)
    if notice:
        say(f"    note: {notice}")
    if own.verify:
        experiment.model.backbone.verify_files()
        say("ok  weights: read again, and as they were")
    found = [
        mistake
        for data_module in [experiment.data, *experiment.benchmarks]
        for mistake in checked(experiment, data_module, own.decode)
    ]
    if len(found) == 1:
        raise found[0]
    if found:
        say(f"error: {len(found):,} mistakes in the data of {experiment.name}, listed above")
        return ExitCode.BAD_INPUT
    refuse_tuned_benchmarks(experiment)
    check_regularised(experiment)
    if isinstance(tuned_on, InstructionDataModule):
        check_limits(experiment.config["trainer"], tuned_on)
        first_steps = experiment.model.schedule_settings.prompt_first_steps
        check_length(first_steps, steps_of_run(experiment.config["trainer"], tuned_on))
    pictures = "pictures" if own.decode else "image headers"
    say(f"ok  {experiment.name}: configuration, files, annotations and {pictures}")
    return ExitCode.DONE


def checked(experiment: Experiment, data_module: DataModule, decode: bool) -> tuple[BadInputError, ...]:
    """Checks one set, says what was found, and returns the mistakes."""
    name, place = type(data_module).__name__, str(data_module.root)
    if isinstance(data_module, Questions):
        name, place = data_module.name, data_module.file
    mistakes = mistakes_in(data_module, decode) or too_long(experiment, data_module)
    if mistakes:
        say(f"bad {name:<12} {len(mistakes):>8,} mistake{'s' * (len(mistakes) > 1)} in {place}")
        for line in report_lines(mistakes):
            say(f"    {line}")
        return mistakes
    say(f"ok  {name:<12} {len(data_module.items()):>8,} in {place}")
    if isinstance(data_module, BenchmarkDataModule):
        say_if_older(data_module)
    return ()


def too_long(experiment: Experiment, data_module: DataModule) -> tuple[BadInputError, ...]:
    """Returns what of a set does not fit into the language model's positions."""
    try:
        if isinstance(data_module, InstructionDataModule):
            check_sample_lengths(experiment.model, data_module)
        if isinstance(data_module, BenchmarkDataModule):
            check_question_lengths(experiment.model, data_module, data_module.max_new_tokens)
    except BadInputError as error:
        return mistakes_of(error)
    return ()


def say_if_older(module: BenchmarkDataModule) -> None:
    """Says so if a set has the size of a known revision that is not the one scores are reported on today."""
    questions = module.questions()
    pictures = number_of_pictures(questions, module.questions_per_group)
    verdict = verdict_on(module.name, questions, pictures, module.revisions)
    if verdict.is_older:
        say(f"    note: {module.name} is {verdict.note}")

"""``m2pt check``: reads configuration, annotations and image headers of an experiment; loads no weights.

With ``--benchmarks all`` or names (``--benchmarks mme,pope``) and no ``--config``: reads the evaluation sets below
``--data.root`` instead and says what was found there, how many questions, and whether that is the official number.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from data_modules.benchmark import BenchmarkDataModule
from data_modules.instruction import InstructionDataModule
from data_modules.known_sizes import number_of_pictures, verdict_on
from experiments.check_sets import check_sets
from experiments.cli import parse_experiment, split_arguments
from experiments.console import VerbParser, say
from experiments.evaluation_sets import default_data_root
from experiments.lengths import check_question_lengths, check_sample_lengths
from experiments.prepare import check_experiment
from lightning_m2pt.errors import BadInputError, ExitCode

NAMES = re.compile(r"\w+(,\w+)*")


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    parser = VerbParser(prog="m2pt check", description=__doc__, add_help=False, allow_abbrev=False)
    parser.add_argument("--benchmarks", metavar="NAMES", help="evaluation sets by name, separated by commas, or all")
    parser.add_argument("--data.root", dest="root", type=Path, metavar="DIR", help="folder of the sets' folders")
    own, rest = split_arguments(parser, arguments)
    has_file = any(word.startswith(("--config", "-c")) for word in rest)
    if own.benchmarks is not None and NAMES.fullmatch(own.benchmarks) and not has_file:
        if rest:
            raise BadInputError(f"unknown argument {rest[0]!r:.60}", where="command line", expected="see --help")
        return check_sets(own.benchmarks, own.root or default_data_root())
    experiment = parse_experiment(arguments)
    check_experiment(experiment)
    for data_module in [experiment.data, *experiment.benchmarks]:
        data_module.check()
        if isinstance(data_module, InstructionDataModule):
            check_sample_lengths(experiment.model, data_module)
        if isinstance(data_module, BenchmarkDataModule):
            check_question_lengths(experiment.model, data_module, data_module.max_new_tokens)
        say(f"ok  {type(data_module).__name__:<12} {len(data_module.items()):>8,} in {data_module.root}")
        if isinstance(data_module, BenchmarkDataModule):
            say_if_older(data_module)
    say(f"ok  {experiment.name}: configuration, files, annotations and image headers")
    return ExitCode.DONE


def say_if_older(module: BenchmarkDataModule) -> None:
    """Says so if a set has the size of a known revision that is not the one scores are reported on today."""
    questions = module.questions()
    verdict = verdict_on(module.name, questions, number_of_pictures(questions, module.questions_per_group))
    if verdict.is_older:
        say(f"    note: {module.name} is {verdict.note}")

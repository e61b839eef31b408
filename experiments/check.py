"""``m2pt check``: reads configuration, annotations and image headers of an experiment; loads no weights."""

from collections.abc import Sequence

from experiments.cli import parse_experiment, split_arguments
from experiments.console import VerbParser, say
from experiments.prepare import check_experiment
from lightning_m2pt.errors import ExitCode


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    parser = VerbParser(prog="m2pt check", description=__doc__, add_help=False)
    _, rest = split_arguments(parser, arguments)
    experiment = parse_experiment(rest)
    check_experiment(experiment)
    for data_module in [experiment.data, *experiment.benchmarks]:
        data_module.check()
        say(f"ok  {type(data_module).__name__:<12} {len(data_module.items()):>8,} in {data_module.root}")
    say(f"ok  {experiment.name}: configuration, files, annotations and image headers")
    return ExitCode.DONE

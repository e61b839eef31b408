"""``m2pt evaluate``: answer and score every benchmark of an experiment, or of a tuned run.

With ``--run DIR`` the run's adapter answers; ``--knock-out PART`` leaves a component out. With ``--config`` alone the
experiment's own run answers if it was tuned, and the untouched model if its method trains nothing.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from experiments.cli import Experiment, parse_experiment, split_arguments
from experiments.console import OUT, VerbParser, say
from experiments.evaluation import evaluate_frozen, evaluate_tuned
from experiments.loading import experiment_of_run, load_run
from experiments.prepare import check_experiment, require_benchmarks
from experiments.results_table import score_table
from experiments.run_folder import CONFIG_FILE, run_folder, short_hash
from experiments.training import check_processes
from lightning_m2pt.errors import ExitCode


def argument_parser() -> argparse.ArgumentParser:
    """Returns the flags that are not part of an experiment."""
    parser = VerbParser(
        prog="m2pt evaluate", description=__doc__, add_help=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, help="a tuned run's folder")
    parser.add_argument(
        "--knock-out",
        nargs="+",
        default=[],
        metavar="PART",
        help="visual_prompts, textual_prompts, interaction, lm_head",
    )
    parser.add_argument("--force", action="store_true", help="answer again even if the answers are there")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own, rest = split_arguments(argument_parser(), arguments)
    experiment = experiment_of_run(own.run, rest) if own.run else parse_experiment(rest)
    require_benchmarks(experiment)
    check_processes(experiment, devices=1, num_nodes=1)
    knocked_out = frozenset(own.knock_out)
    experiment.model.method.check_knock_out(knocked_out)
    check_experiment(experiment)
    for benchmark in experiment.benchmarks:
        benchmark.check()
    if not experiment.model.method.part_names() and not knocked_out:
        folder, scores = evaluate_frozen(experiment, force=own.force)
    else:
        run = own.run or run_folder(experiment)
        load_run(run, experiment)
        folder = evaluation_folder(run, experiment, knocked_out)
        scores = evaluate_tuned(experiment, folder, knocked_out, force=own.force)
    OUT.print(score_table(list(scores.values())))
    say(f"predictions: {folder / 'predictions'}\nscores:      {folder / 'scores'}")
    return ExitCode.DONE


def evaluation_folder(run: Path, experiment: Experiment, knocked_out: frozenset[str]) -> Path:
    """Returns the run's own folder for its own evaluation, and a folder of its own for any other.

    Args:
        run: The run's folder.
        experiment: The experiment as it is evaluated.
        knocked_out: Parts that are left out.
    """
    decides = {key: experiment.config[key] for key in ("model", "benchmarks")}
    recorded = json.loads((run / CONFIG_FILE).read_text())
    if not knocked_out and all(recorded.get(key) == value for key, value in decides.items()):
        return run
    name = "-".join(["without", *sorted(knocked_out)]) if knocked_out else "changed"
    return run / "evaluations" / f"{name}-{short_hash({**decides, 'knocked_out': sorted(knocked_out)})}"

"""Runs ``m2pt fit``; its flags and what it is for are in ``parsers``."""

import json
from collections.abc import Sequence
from pathlib import Path

from experiments.commands.parsers.fit import argument_parser
from experiments.commands.validate import validate
from experiments.configuration.cli import Experiment, parse_experiment
from experiments.runs.loading import is_in_pieces, load_evaluated, read_anew
from experiments.runs.prepare import check_experiment
from experiments.runs.training import require_validation_split
from experiments.runs.tuning import fit
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.runs.loading import ADAPTER, BEST, evaluated_adapter
from lightning_m2pt.storage.run_record import COMPLETED, LAST_VALIDATION, read_run_record
from lightning_m2pt.system.console import say
from lightning_m2pt.system.rank_group import ranks_of_job


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own, rest = argument_parser().parse_known_args(list(arguments))
    experiment = parse_experiment(rest)
    if own.validate:
        check_experiment(experiment)
        require_validation_split(experiment)
        if experiment.config["trainer"].get("limit_val_batches") == 0:
            raise BadInputError(
                "nothing is left to validate on",
                where="trainer.limit_val_batches",
                expected="1 or more, or null, where --validate is given",
            )
    run = fit(experiment, force=own.force, folder=own.run)
    is_complete = ranks_of_job().of_first(lambda: COMPLETED in read_run_record(run))
    # A run that is to be evaluated with its best and never had one is refused by what evaluates it.
    chosen = evaluated_adapter(run) if is_complete and (run / BEST).is_dir() else run / ADAPTER
    say(f"adapter: {chosen}")
    if own.validate and is_complete:
        say(json.dumps(validation_of_run(experiment, run, rest)))
    return ExitCode.DONE


def validation_of_run(experiment: Experiment, run: Path, words: Sequence[str]) -> dict[str, float]:
    """Returns what ``m2pt validate`` measures of a complete run, on what ``trainer.limit_val_batches`` leaves.

    Args:
        experiment: The experiment; if its model is loaded, it was tuned just now.
        run: The run's folder.
        words: What the experiment was read from.
    """
    ranks = ranks_of_job()
    measured: dict[str, float] = ranks.of_first(lambda: read_run_record(run).get(LAST_VALIDATION, {}))
    if measured and experiment.model.backbone.is_loaded and evaluated_adapter(run).name != BEST:
        return measured  # after the last step, of these very tensors
    whole = read_anew(words) if is_in_pieces(experiment) else experiment
    load_evaluated(run, whole)
    return validate(whole, limited=True)

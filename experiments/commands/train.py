"""Runs ``m2pt train``; its flags and what it is for are in ``parsers``."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.commands.parsers.train import argument_parser
from experiments.configuration.cli import Experiment, parse_experiment
from experiments.runs.answering import answering_trainer, started_ranks
from experiments.runs.evaluation import AnsweringOptions, check_benchmarks, evaluate_frozen, evaluate_tuned
from experiments.runs.folder import run_folder
from experiments.runs.loading import is_in_pieces, load_evaluated, read_anew
from experiments.runs.lock import alone_in
from experiments.runs.memory import refuse_base_larger_than_device
from experiments.runs.prepare import check_experiment, require_benchmarks
from experiments.runs.training import check_machine, check_started
from experiments.runs.tuning import MEMORY, check_tuning, check_tuning_settings, tune
from lightning_m2pt.configuration.tree import PROMPT_TEXT
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.metrics.predictions import PredictionFile, read_predictions
from lightning_m2pt.metrics.score import Score
from lightning_m2pt.metrics.statistics import Floats
from lightning_m2pt.report.adapter_card import write_adapter_cards
from lightning_m2pt.report.page.cost import GIB
from lightning_m2pt.report.tables.backbone_gates import say_missed_gates
from lightning_m2pt.report.tables.frozen_and_tuned import comparison_table
from lightning_m2pt.report.tables.outcome import (
    NONE,
    OTHER_WORDS,
    asking_line,
    difference_line,
    gains_of,
    last_lines,
    next_command,
    score_line,
)
from lightning_m2pt.report.tables.scores import score_table
from lightning_m2pt.report.tables.selection import selection_notes
from lightning_m2pt.runs.loading import evaluated_adapter
from lightning_m2pt.runs.results_file import RESULTS_FILE, TUNED, UNTOUCHED
from lightning_m2pt.storage.run_record import COMPLETED, read_run_record
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.console import OUT, is_main_process, say, short_path
from lightning_m2pt.tuning.parameter_counts import parameter_counts


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own, rest = argument_parser().parse_known_args(list(arguments))
    started = time.monotonic()
    experiment = parse_experiment(rest)
    require_benchmarks(experiment)
    if not experiment.model.method.part_names():
        return evaluate_only(experiment, force=own.force)
    check_tuning_settings(experiment)
    check_started(experiment)
    check_experiment(experiment)
    check_machine(experiment)
    check_benchmarks(experiment)  # before tuning: what cannot be answered is known before hours have gone
    check_tuning(experiment)
    refuse_base_larger_than_device(experiment, answering_trainer(experiment, []).strategy.root_device)
    run = run_folder(experiment)
    with alone_in(run) as still_alone:
        tune(experiment, run, still_alone, force=own.force)
        # All processes answer. A run that was stopped short on purpose has nothing to compare yet.
        if started_ranks(experiment).of_first(lambda: COMPLETED in read_run_record(run)):
            if is_in_pieces(experiment):
                del experiment
                experiment = read_anew(rest)
            evaluate_and_compare(experiment, run, force=own.force, started=started)
    return ExitCode.DONE


def evaluate_and_compare(experiment: Experiment, run: Path, *, force: bool, started: float) -> None:
    """Evaluates the untouched and the tuned model, and reports both.

    Args:
        experiment: The experiment; its model is loaded from the run if it was not tuned just now.
        run: The run's folder.
        force: Answer again.
        started: When the command began, on the monotonic clock.
    """
    load_evaluated(run, experiment)
    options = AnsweringOptions(force=force, on_other="replace")
    frozen_folder, frozen = evaluate_frozen(experiment, options)
    tuned = evaluate_tuned(experiment, run, options=options)
    if not is_main_process():
        return
    answered = {name: read_predictions(run / "predictions" / f"{name}.jsonl") for name in tuned}
    gains = gains_of(frozen, tuned, answered)
    report(experiment, run, frozen, tuned, answered, gains, time.monotonic() - started)
    after = next_command(short_path(run), short_path(frozen_folder), experiment.model.method.part_names())
    for line in last_lines(score_line(tuned), difference_line(frozen, tuned, gains), short_path(run), after):
        say(line)
    say(asking_line(short_path(run)))


def evaluate_only(experiment: Experiment, *, force: bool) -> int:
    """Evaluates a method that trains nothing."""
    check_experiment(experiment)
    check_benchmarks(experiment)
    folder, scores = evaluate_frozen(experiment, AnsweringOptions(force=force))
    if not is_main_process():
        return ExitCode.DONE
    OUT.print(score_table(list(scores.values()), OUT.width))
    say_missed_gates(experiment.config)
    difference = OTHER_WORDS if experiment.config.get(PROMPT_TEXT) else NONE
    after = next_command(short_path(folder), None, ())
    for line in last_lines(score_line(scores), difference, short_path(folder), after):
        say(line)
    return ExitCode.DONE


def report(
    experiment: Experiment,
    run: Path,
    frozen: dict[str, Score],
    tuned: dict[str, Score],
    answered: dict[str, PredictionFile],
    gains: dict[str, Floats],
    seconds: float,
) -> None:
    """Shows the table, what was trained, how long it took and where everything is; stores it as ``results.json``."""
    method, completed = experiment.model.method, read_run_record(run)[COMPLETED]
    counted = parameter_counts(method.parameter_parts(), experiment.model.backbone.base_parameters())
    OUT.print(comparison_table(frozen, tuned, method.name, gains, OUT.width))
    say_missed_gates(experiment.config)
    for note in selection_notes(method.name, [content.header for content in answered.values()], read_run_record(run)):
        say(note)
    say(f"trained      {counted['trained']:,} parameters, {counted['percent']}% of the model")
    say(f"time         {completed['seconds']:.0f} s tuning, {seconds:.0f} s this command")
    if memory := completed.get(MEMORY):  # runs of earlier versions have none
        say("memory       " + ", ".join(f"{size / GIB:.2f} GiB {what}" for what, size in memory.items()) + " at most")
    for label, path in [
        ("data", experiment.data.root),
        ("run", run),
        ("adapter", evaluated_adapter(run)),
        ("predictions", run / "predictions"),
        ("TensorBoard", run / "tb"),
    ]:
        say(f"{label:<12} {short_path(path)}")
    content = {
        UNTOUCHED: {name: {**scored.to_json(), "parsed": None} for name, scored in frozen.items()},
        TUNED: {name: {**scored.to_json(), "parsed": None} for name, scored in tuned.items()},
        "adapter": experiment.model.chosen or {"step": completed["optimizer_steps"]},
        "parameters": counted,
        "seconds": {"tuning": completed["seconds"]},
        MEMORY: {"tuning": memory},
    }
    write_atomically(run / RESULTS_FILE, (json.dumps(content, indent=2) + "\n").encode())
    write_adapter_cards(run)  # which have the untouched model's scores from now on

"""Runs ``m2pt evaluate``; its flags and what it is for are in ``parsers``."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_modules.few_shot import add_examples
from experiments.commands.parsers.evaluate import argument_parser
from experiments.configuration.chosen_sets import choose_benchmarks
from experiments.configuration.cli import Experiment
from experiments.configuration.parts import FILE_NAME
from experiments.configuration.path_settings import absolute_paths, paths_in_names
from experiments.runs.answering import answering_trainer, started_ranks
from experiments.runs.evaluation import (
    AnsweringOptions,
    ask_with,
    check_benchmarks,
    evaluate_frozen,
    evaluate_tuned,
    known_frozen,
)
from experiments.runs.folder import (
    NOT_DECIDING_BACKBONE_KEYS,
    NOT_DECIDING_METHOD_KEYS,
    run_folder,
    short_hash,
    template_content,
    without_keys,
    without_later_settings,
)
from experiments.runs.loading import experiment_of, load_run, load_tuned
from experiments.runs.prepare import check_experiment, require_benchmarks
from experiments.runs.shot_draws import draws_table
from experiments.runs.ways_to_answer import PremiseRule
from lightning_m2pt.answering.content_free import ContentFree
from lightning_m2pt.answering.decoding import AnsweringMethod
from lightning_m2pt.answering.domain_premise import DomainPremise
from lightning_m2pt.answering.near_ties import depends_on_batch
from lightning_m2pt.commands.parsers.tuned import check_output
from lightning_m2pt.configuration.paths import absolute
from lightning_m2pt.configuration.recorded import recorded_configuration
from lightning_m2pt.configuration.tree import PROMPT_TEXT
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.metrics.predictions import ADAPTER_CHOSEN, read_predictions
from lightning_m2pt.metrics.score import Score
from lightning_m2pt.report.tables.backbone_gates import say_missed_gates
from lightning_m2pt.report.tables.formats import for_programs, terminal
from lightning_m2pt.report.tables.outcome import (
    NONE,
    OTHER_WORDS,
    difference_line,
    gains_of,
    last_lines,
    next_command,
    score_line,
)
from lightning_m2pt.report.tables.scores import score_table
from lightning_m2pt.report.tables.selection import selection_notes
from lightning_m2pt.storage.adapter_folder import TEMPLATE_DIGEST
from lightning_m2pt.storage.run_record import CONFIG_FILE, read_run_record
from lightning_m2pt.system.console import OUT, people_read_errors, say, short_path
from lightning_m2pt.tuning.module import is_built

NO_DRAWS = (None,)
"""Each question has examples of its own, or none."""
OF_METHOD = {
    "calibration_text": "contextual_calibration",
    "calibration_picture": "contextual_calibration",
    "premise": "likelihood_pmi",
}
"""Which way to answer a flag belongs to."""


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own, rest = argument_parser().parse_known_args(list(arguments))
    draws = draws_of(own)
    premise = premise_of_flags(own)
    names = None
    for given in own.benchmarks:  # a list and names may both be there: the names choose among the list's sets
        if given.lstrip().startswith("[") or FILE_NAME.fullmatch(given):
            rest = [*rest, "--benchmarks", given]
        else:
            names = given
    check_output(own)
    with people_read_errors(own.json):
        experiment = experiment_of(own.run, own.adapter, rest)
        require_benchmarks(experiment)
        choose_benchmarks(experiment, names)
        move_benchmarks(experiment, own.data_root)
        answering_trainer(experiment, [])  # devices and launcher fit together, before anything is read
        knocked_out = frozenset(own.knock_out)
        experiment.model.method.check_knock_out(knocked_out)
        check_experiment(experiment)
        check_benchmarks(experiment, own.shots, own.answer, premise, draws[-1])
        options = AnsweringOptions(own.answer, own.force, shared_prefix=own.shared_prefix == "true", premise=premise)
        if draws == NO_DRAWS:
            return evaluated_once(experiment, own, options)
        evaluated = evaluated_draws(experiment, own, options, draws)
        if started_ranks(experiment).rank:
            return ExitCode.DONE  # the first process talks
        table = draws_table(own.shots, [scores for _, scores in evaluated])
        for draw, (folder, _) in zip(draws, evaluated, strict=True):
            say(f"draw {draw}: {short_path(folder)}")
        if not own.json:
            say(terminal([table], OUT.width).rstrip())
    if own.json:
        OUT.print(for_programs([table]), markup=False, highlight=False, soft_wrap=True, end="")
    return ExitCode.DONE


def draws_of(own: Namespace) -> tuple[int | None, ...]:
    """Returns the numbers of the draws of examples; ``NO_DRAWS`` where none are asked for.

    Raises:
        BadInputError: If flags are given that say nothing without others.
    """
    if own.shot_draws is None:
        if own.json:
            raise BadInputError(
                "there is nothing to print",
                where="command line: --json",
                expected="--shots K --shot-draws N",
                hint="`m2pt score PREDICTIONS --json` prints scores, `m2pt report FOLDER --format json` tables",
            )
        return NO_DRAWS
    if not own.shots:
        raise BadInputError(
            f"{own.shot_draws} draws of no examples", where="command line: --shot-draws", expected="--shots K as well"
        )
    return tuple(range(own.shot_draws))


def premise_of_flags(own: Namespace) -> PremiseRule | None:
    """Returns what a calibrated method sets against a question.

    Raises:
        BadInputError: If a flag is given that is not of the method, or says nothing.
    """
    for flag, method in OF_METHOD.items():
        if getattr(own, flag) is not None and own.answer != method:
            raise BadInputError(
                f"--answer {own.answer} has nothing to do with it",
                where=f"command line: --{flag.replace('_', '-')}",
                expected=f"--answer {method}",
            )
    if own.answer == "contextual_calibration":
        given = ContentFree()
        return ContentFree(tuple(own.calibration_text or given.texts), own.calibration_picture or given.picture)
    return DomainPremise(own.premise) if own.answer == "likelihood_pmi" else None


def evaluated_draws(
    experiment: Experiment, own: Namespace, options: AnsweringOptions, draws: Sequence[int | None]
) -> list[tuple[Path, dict[str, Score]]]:
    """Evaluates every draw of examples; returns its folder and its scores by set.

    Raises:
        BadInputError: If a set cannot be asked with one of the draws; before weights are loaded.
    """
    for draw in draws:
        for benchmark in experiment.benchmarks:
            ask_with(experiment, benchmark, own.shots, own.answer, options.premise, draw)
    evaluated = []
    for draw in draws:
        for benchmark in experiment.benchmarks:
            add_examples(benchmark, own.shots, draw)
        say(f"draw {draw} of {len(draws)}, counted from 0: the same {own.shots} examples before all questions")
        evaluated.append(evaluated_folder(experiment, own, options, draw)[:2])
    return evaluated


def evaluated_folder(
    experiment: Experiment, own: Namespace, options: AnsweringOptions, draw: int | None = None
) -> tuple[Path, dict[str, Score], dict[str, Any]]:
    """Evaluates the experiment as it is asked now.

    Returns:
        The folder, the scores by set, and the run's record if a run has answered.
    """
    model, knocked_out = experiment.model, frozenset(own.knock_out)
    is_ready = model.backbone.is_loaded and is_built(model.method)
    if not model.method.part_names() and not knocked_out:
        return *evaluate_frozen(experiment, options), {}
    if own.adapter:
        if not is_ready:
            load_tuned(None, own.adapter, experiment)
        folder = own.output if draw is None else own.output / f"draw-{draw}"
        return folder, evaluate_tuned(experiment, folder, knocked_out, options), {}
    run = own.run or run_folder(experiment)
    folder = evaluation_folder(
        run, experiment, knocked_out, own.answer, own.shots, options.shared_prefix, options.premise, draw
    )
    record = read_run_record(run)
    if not is_ready:
        load_run(run, experiment)
    return folder, evaluate_tuned(experiment, folder, knocked_out, options), record


def evaluated_once(experiment: Experiment, own: Namespace, options: AnsweringOptions) -> int:
    """Evaluates, and says what came out."""
    folder, scores, record = evaluated_folder(experiment, own, options)
    if started_ranks(experiment).rank:
        return ExitCode.DONE  # the first process talks
    OUT.print(score_table(list(scores.values()), OUT.width))
    say_missed_gates(experiment.config)
    for note in selection_notes("here", [{ADAPTER_CHOSEN: experiment.model.chosen}], record):
        say(note)
    say(f"predictions: {folder / 'predictions'}\nscores:      {folder / 'scores'}")
    for line in outcome_of(experiment, folder, scores, own, options):
        say(line)
    return ExitCode.DONE


def outcome_of(
    experiment: Experiment, folder: Path, scores: dict[str, Score], own: Namespace, options: AnsweringOptions
) -> list[str]:
    """Returns the last lines: score, difference, where it is, what comes next.

    Args:
        experiment: The experiment as it was evaluated.
        folder: Where predictions and scores are.
        scores: The scores by set.
        own: The verb's own flags.
        options: How questions were answered.
    """
    parts = experiment.model.method.part_names()
    if not parts:
        difference, frozen = OTHER_WORDS if experiment.config.get(PROMPT_TEXT) else NONE, None
    else:
        known = known_frozen(experiment, options)
        frozen = known[0] if known else None
        answered = {name: read_predictions(folder / "predictions" / f"{name}.jsonl") for name in scores}
        gains = gains_of(known[1], scores, answered) if known else None
        difference = difference_line(known[1] if known else None, scores, gains)
    has_run = not own.adapter and not own.knock_out and (folder / CONFIG_FILE).is_file()
    after = next_command(short_path(folder), frozen and short_path(frozen), parts if has_run else ())
    return last_lines(score_line(scores), difference, short_path(folder), after)


def move_benchmarks(experiment: Experiment, root: Path | None) -> None:
    """Says where an experiment's sets are.

    Args:
        experiment: Its ``benchmarks`` and their configuration are changed.
        root: Folder that holds a folder of every set's name; None keeps the experiment's own.

    Raises:
        BadInputError: If one of them is a file of its own.
    """
    if root is not None:
        for benchmark, config in zip(experiment.benchmarks, experiment.config["benchmarks"], strict=True):
            if "root" not in config["init_args"]:
                raise BadInputError(
                    f"{benchmark.name} is a file of its own and has no folder below a common one",
                    where="command line: --data.root",
                    expected="sets that come with the project",
                    hint="name the others with --benchmarks, or this one's file in the experiment",
                )
            benchmark.root = Path(absolute(str(root / benchmark.name)))
            config["init_args"]["root"] = str(benchmark.root)


def evaluation_folder(
    run: Path,
    experiment: Experiment,
    knocked_out: frozenset[str],
    method: AnsweringMethod,
    shots: int,
    shared_prefix: bool = True,
    premise: PremiseRule | None = None,
    draw: int | None = None,
) -> Path:
    """Returns the run's own folder for its own evaluation, and a folder of its own for any other.

    Args:
        run: The run's folder.
        experiment: The experiment as it is evaluated; some of the run's sets are still its own evaluation.
        knocked_out: Parts that are left out.
        method: How questions are answered.
        shots: How many examples stand before every question.
        shared_prefix: Whether questions about one picture are computed together; a folder of its own only where that
            may change answers.
        premise: What a calibrated method sets against a question.
        draw: Number of the draw of examples; None where each question has its own.
    """
    recorded = recorded_config(run, experiment.opened)
    model = answers_come_from(experiment.config["model"])
    benchmarks, own = (
        [without_later_settings(each) for each in config.get("benchmarks", [])]
        for config in (experiment.config, recorded)
    )
    own_sets = all(config in own for config in benchmarks)
    words: list[str] = [method] if method != "greedy" else []
    words += [f"{shots}-shot"] if shots else []
    words += [f"draw-{draw}"] if draw is not None else []
    words += ["without", *sorted(knocked_out)] if knocked_out else []
    prompt, tuned_with = experiment.config.get(PROMPT_TEXT), recorded.get(PROMPT_TEXT)
    words += [f"prompt-{Path(str(prompt)).stem}"] if prompt != tuned_with else []
    if not shared_prefix and depends_on_batch(experiment.model.backbone.dtype_name):
        words.append("unshared")
    same_model = "model" in recorded and answers_come_from(recorded["model"]) == model
    if not words and same_model and own_sets:
        return run
    decides = {
        "model": model,
        "benchmarks": None if own_sets else benchmarks,
        "knocked_out": sorted(knocked_out),
        "method": method,
        "shots": shots,
        **({} if premise is None else {"premise": asdict(premise)}),
        **({} if draw is None else {"draw": draw}),
        **({PROMPT_TEXT: words_of_sets(experiment)} if prompt != tuned_with else {}),
    }
    return (
        run
        / "evaluations"
        / f"{'-'.join(words or ['changed'])}-{short_hash(paths_in_names(decides, experiment.opened))}"
    )


def words_of_sets(experiment: Experiment) -> dict[str, str]:
    """Returns what stands around the questions of each set, as one hash; wherever the prompt's file lies."""
    return {
        each.name: template_content(each).get(TEMPLATE_DIGEST, each.template.name) for each in experiment.benchmarks
    }


def recorded_config(run: Path, opened: Sequence[str]) -> dict[str, Any]:
    """Returns a run's resolved configuration; empty if there is none.

    Args:
        run: The run's folder.
        opened: Packages whose classes it may name.
    """
    path = run / CONFIG_FILE
    return absolute_paths(recorded_configuration(path), opened) if path.is_file() else {}


def answers_come_from(model: dict[str, Any]) -> dict[str, Any]:
    """Returns what of a model's configuration decides answers once it is tuned: method and backbone.

    Shortcuts, rates and memory settings do not. Configurations of earlier versions lack some of them, and the folder of
    such a run is still that of its own evaluation.
    """
    return {
        "method": without_later_settings(without_keys(model["method"], NOT_DECIDING_METHOD_KEYS)),
        "backbone": without_keys(model["backbone"], NOT_DECIDING_BACKBONE_KEYS),
    }

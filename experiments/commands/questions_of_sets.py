"""The questions of a run's sets that ``m2pt attention`` and ``m2pt attribution`` look at the model with."""

from collections.abc import Sequence
from pathlib import Path

from data_modules.base import as_sample
from data_modules.benchmark import BenchmarkDataModule
from experiments.commands.evaluate import move_benchmarks
from experiments.configuration.cli import Experiment
from experiments.runs.loading import experiment_of
from experiments.runs.prepare import check_experiment, require_benchmarks
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.samples import Question
from lightning_m2pt.inspection.samples import InspectedQuestion, question_batch


def tuned_with_sets(run: Path | None, adapter: Path | None, words: Sequence[str], data_root: Path | None) -> Experiment:
    """Returns the experiment of a run or of an adapter, which has evaluation sets.

    Args:
        run: The run's folder.
        adapter: In its place, an adapter's folder.
        words: What the command line sets on top; with an adapter, the experiment's file.
        data_root: Folder that holds a folder of every set's name; None keeps the run's own.

    Raises:
        BadInputError: If the folder is none of these, or there are no sets.
    """
    experiment = experiment_of(run, adapter, words)
    require_benchmarks(experiment)
    move_benchmarks(experiment, data_root)
    return experiment


def questions_of_sets(experiment: Experiment, names: Sequence[str], several: int) -> list[InspectedQuestion]:
    """Returns the questions that are named, as batches of one.

    Args:
        experiment: Its model is not loaded.
        names: ``SET:ID``, or ``SET`` for its first few; without any, the first set's first few.
        several: How many a few are.

    Raises:
        BadInputError: If data are missing or damaged, or there is no such set or question.
    """
    check_experiment(experiment)
    return [
        InspectedQuestion(
            benchmark.name,
            question.id,
            question.text,
            question.target,
            benchmark.template_label,
            question_batch(as_sample(question), benchmark.template, benchmark.processor),
            benchmark.max_new_tokens,
            benchmark.processor.bound(benchmark.template).end_token_ids,
        )
        for benchmark, question in chosen_questions(experiment.benchmarks, names, several)
    ]


def chosen_questions(
    benchmarks: Sequence[BenchmarkDataModule], names: Sequence[str], several: int
) -> list[tuple[BenchmarkDataModule, Question]]:
    """Returns the questions that ``SET:ID`` or ``SET`` (its first few) name; without any, the first set's first few.

    Raises:
        BadInputError: If there is no such set or question; near ones are named.
    """
    by_name = {benchmark.name: benchmark for benchmark in benchmarks}
    chosen = []
    for name in names or [next(iter(by_name))]:
        set_name, has_id, question_id = name.partition(":")
        if set_name not in by_name:
            raise BadInputError(
                f"the run has no set {set_name!r:.40}", where="command line: --sample", expected=", ".join(by_name)
            )
        questions = by_name[set_name].questions()
        found = [one for one in questions if one.id == question_id] if has_id else questions[:several]
        if not found:
            examples = ", ".join(question.id for question in questions[:several])
            raise BadInputError(
                f"{set_name} has no question {question_id!r:.60}",
                where="command line: --sample",
                expected=f"SET:ID, with ids such as {examples}",
                hint=f"`m2pt data show --set {set_name}` shows pictures and questions",
            )
        chosen += [(by_name[set_name], question) for question in found]
    return chosen

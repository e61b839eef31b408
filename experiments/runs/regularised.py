"""Looks at what the loss's further terms read, and at names of classes, before weights are loaded."""

from collections.abc import Iterable
from itertools import islice

from data_modules.benchmark import BenchmarkDataModule
from data_modules.instruction import InstructionDataModule
from experiments.configuration.cli import Experiment
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.closed_set import SYNONYMS
from lightning_m2pt.tuning.module import regularisers_of
from lightning_m2pt.tuning.regularisers.base import pixel_prompting

MOST_NAMES = 2
"""A set has so many different answers for each class at most, if it is about the classes."""


def check_regularised(experiment: Experiment) -> None:
    """Looks at teachers' files, at the answers they will be shown, and whether classes have one name.

    Args:
        experiment: Connected; its annotations are read here, if they are not yet.

    Raises:
        BadInputError: If something is missing or does not fit.
    """
    model = experiment.model
    for each in regularisers_of(model):
        each.check_files()
        each.check_processor(experiment.data.processor)
    if not isinstance(experiment.data, InstructionDataModule) or pixel_prompting(model.method) is None:
        return
    answers = answers_of(experiment.data)
    for each in regularisers_of(model):
        each.check_answers(answers)
    for benchmark in experiment.benchmarks:
        refuse_other_names(answers, benchmark)


def answers_of(data: InstructionDataModule) -> list[str]:
    """Returns the answers of the training part, each once, in order."""
    table = data.indexed().table
    turns = int(table.turn_starts[table.training])
    return list(dict.fromkeys(islice(table.texts["answers"], turns)))


def refuse_other_names(answers: Iterable[str], benchmark: BenchmarkDataModule) -> None:
    """Refuses to train on a closed set's classes under other names than those whose likelihood is compared.

    A set is about the classes where half of its answers or more are classes as people read them, or other names of
    theirs (words of digits), whatever their case, spaces and full stops, and there are at most twice as many answers
    as classes.

    Args:
        answers: What is trained on, each once.
        benchmark: What is evaluated on.

    Raises:
        BadInputError: If a closed set's class has another name in training.
    """
    candidates = benchmark.candidates if benchmark.classes else []
    other_names = [name for each in benchmark.classes for name in (each, *SYNONYMS.get(each, ()))]
    known = {loosely(each) for each in (*candidates, *other_names)}
    given = list(answers)
    matching = sum(loosely(each) in known for each in given)
    if not candidates or len(given) > MOST_NAMES * len(candidates) or 2 * matching < len(given):
        return
    other = [each for each in given if each not in candidates]
    if other:
        raise BadInputError(
            f"training says {other[0]!r:.40}, which {benchmark.name} does not compare",
            where="data",
            expected=f"the classes' names as it compares them: {', '.join(candidates)}"[:160],
        )


def loosely(name: str) -> str:
    """Returns a class's name without what people do not hear."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())

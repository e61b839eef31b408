"""Which of an experiment's evaluation sets a command asks, by their names."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lightning_m2pt.errors import BadInputError

if TYPE_CHECKING:
    from experiments.configuration.cli import Experiment

FLAG, ALL = "--benchmarks", "all"
OF_CLASSES_AND_FILES = frozenset(".[{:/\\")
"""Signs of a class, a list or a file; no name of a shipped set has one."""


def split_off_names(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Returns the names that ``--benchmarks`` gives, the last time it gives names, and all words but these.

    Args:
        words: The words of a command line; ``--benchmarks CLASS``, a list and a file stay where they are.
    """
    names, others, rest = None, [], iter(words)
    for word in rest:
        flag, has_value, text = word.partition("=")
        if flag != FLAG:
            others.append(word)
            continue
        value = text if has_value else next(rest, None)
        if value and value != "null" and not value.startswith("--") and not OF_CLASSES_AND_FILES & set(value):
            names = value
        else:
            others += [word] if has_value or value is None else [word, value]
    return names, others


def choose_benchmarks(experiment: "Experiment", names: str | None) -> None:
    """Leaves the named sets in an experiment.

    Args:
        experiment: Its ``benchmarks`` and their configuration are changed.
        names: Names with commas between them; None or ``all`` keeps every set.

    Raises:
        BadInputError: If the experiment has no set of a name.
    """
    configured: list[dict[str, Any]] = experiment.config["benchmarks"]
    pairs = {
        benchmark.name: (benchmark, config) for benchmark, config in zip(experiment.benchmarks, configured, strict=True)
    }
    wanted = list(pairs) if names in {None, ALL} else [name.strip() for name in str(names).split(",")]
    for name in wanted:
        if name not in pairs:
            raise BadInputError(
                f"the experiment has no set {name!r:.40}",
                where="command line: --benchmarks",
                expected=", ".join(pairs) or "a list of data modules in the experiment's file, which has none",
            )
    chosen = [pairs[name] for name in dict.fromkeys(wanted)]
    experiment.benchmarks = [benchmark for benchmark, _ in chosen]
    experiment.config["benchmarks"] = [config for _, config in chosen]

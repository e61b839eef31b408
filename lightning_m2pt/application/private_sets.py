"""Which data sets of a run are a person's own: all that do not come with the project."""

from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from lightning_m2pt.configuration.recorded import recorded_configuration
from lightning_m2pt.metrics.rules import RULES
from lightning_m2pt.runs.evaluated import PREDICTIONS
from lightning_m2pt.storage.run_record import CONFIG_FILE

SHIPPED = frozenset({"vision_flan"}.union(*(rule.default_of for rule in RULES.values())))
"""Names of the sets that come with the project."""
PUBLIC_MODULES = tuple(
    f"data_modules.{name}."
    for name in (
        *("cifar10", "cifar100", "few_shot", "mme", "mixture", "mnist", "pope", "snli_ve", "text_vqa"),
        *("vision_flan", "vision_flan_held_out", "vsr"),
    )
)
"""Beginnings of the class paths of these sets, and of what puts sets together."""
NAME, FILE = "name", "file"
"""Arguments of a set of one's own: what it is called, and whose stem it is called by without one."""
SHORTEST = 3
"""Shorter names stand in every text."""


def private_set_names(run: Path | None) -> set[str]:
    """Returns the names under which a run knows sets of a person's own.

    Args:
        run: The run's folder; None for an adapter by itself, which says nothing of sets.

    Raises:
        BadInputError: If the run's configuration is damaged.
    """
    if run is None:
        return set()
    names = {path.stem for path in (run / PREDICTIONS).glob("*.jsonl")}
    if (run / CONFIG_FILE).is_file():
        config = recorded_configuration(run / CONFIG_FILE)
        for of_set in own_sets([config.get("data"), config.get("benchmarks")]):
            names |= set(names_of(of_set))
    return {name for name in names - SHIPPED if len(name) >= SHORTEST}


def own_sets(value: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401  (a tree of plain values)
    """Yields the sets in a part of a configuration whose classes read files of anybody's."""
    if isinstance(value, list):
        for inner in value:
            yield from own_sets(inner)
    elif isinstance(value, dict):
        if "class_path" in value and not str(value["class_path"]).startswith(PUBLIC_MODULES):
            yield value
        for inner in value.values():
            yield from own_sets(inner)
        sets, names = value.get("sets"), value.get("names")
        if isinstance(sets, list) and isinstance(names, list):  # a mixture calls its sets what it likes
            for inner, name in zip(sets, names, strict=False):
                yield from ({**one, "init_args": {NAME: name}} for one in own_sets(inner))


def names_of(of_set: dict[str, Any]) -> Iterator[str]:
    """Yields what a set of one's own is called: its name or its file's, and its class if that is one's own, too."""
    arguments = of_set.get("init_args")
    given = arguments if isinstance(arguments, dict) else {}
    name, file = given.get(NAME), given.get(FILE)
    if isinstance(name, str):
        yield name
    elif isinstance(file, str):
        yield PurePath(file).stem
    class_path = str(of_set["class_path"])
    if not class_path.startswith("data_modules."):
        yield class_path.rpartition(".")[2]

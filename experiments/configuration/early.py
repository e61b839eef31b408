"""Refuses a mistyped key before torch is imported: with the schema that an earlier command has kept.

Only a refusal can come of it, never an acceptance, and only where the full parse would refuse the same key in the same
words: one key, of a group of settings or of a class that comes with the project. In any doubt, the full parse decides.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.configuration.composition import GROUPS, check_names, compose, read_words, value_at
from experiments.configuration.errors import refusal_of, unknown_key_among
from experiments.configuration.parts import read_sources
from experiments.configuration.stored_description import stored_schema
from lightning_m2pt.configuration.tree import ARGUMENTS, CLASS_PATH, TOP_LEVEL_KEYS
from lightning_m2pt.errors import M2PTError

TRAINER_PREFIX = "PL_TRAINER_"
COMPONENTS = ("model.backbone", "model.method", "data")
LIST = "benchmarks"


class DoubtError(Exception):
    """Something that only the full parse can judge."""


def refuse_wrong_key(words: Sequence[str]) -> None:
    """Looks for a key that no group and no class takes.

    Args:
        words: The words of a command line that are an experiment's.

    Raises:
        BadInputError: Naming the only one there is, with file and line, or the command line.
    """
    schema = stored_schema()
    if schema is None or any(name.startswith(TRAINER_PREFIX) for name in os.environ):
        return
    try:
        command = read_words(words)
        sources = read_sources(command)
        tree = compose(sources.trees, sources.settings, lambda class_path, name: name in names_of(schema, class_path))
        check_names(tree)
        found = list(wrong_keys(tree, schema)) if set(tree) <= set(TOP_LEVEL_KEYS) else []
    except (M2PTError, DoubtError, AttributeError, LookupError, TypeError, ValueError):
        return  # the full parse meets it, too, and says what it is
    if len(found) == 1:
        groups, name, accepted = found[0]
        raise refusal_of(unknown_key_among(groups, name, accepted), sources.written, list(words))


def names_of(schema: Mapping[str, Any], owner: str) -> list[str]:
    """Returns what a group or a class takes.

    Raises:
        DoubtError: If it is not known, or takes more than it names.
    """
    described = schema["$defs"].get(owner)
    if not described or described["additionalProperties"] is not False:
        raise DoubtError
    return list(described["properties"])


def wrong_keys(tree: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[tuple[list[str], str, list[str]]]:
    """Yields every unknown key: the groups it stands in, its name, and what stands there otherwise.

    Raises:
        DoubtError: If a group is something else than a group.
    """
    for group in filter(None, GROUPS):
        settings = value_at(tree, group)
        if settings is None:
            continue
        if not isinstance(settings, Mapping) or CLASS_PATH in settings or ARGUMENTS in settings:
            raise DoubtError
        accepted = names_of(schema, group)
        yield from ((group.split("."), name, accepted) for name in settings if name not in accepted)
    for key in COMPONENTS:
        yield from wrong_arguments(key.split("."), value_at(tree, key), schema)
    listed = tree.get(LIST)
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, Mapping):
            yield from wrong_arguments([LIST, str(item.get(CLASS_PATH)).rpartition(".")[2]], item, schema)


def wrong_arguments(
    groups: list[str], component: object, schema: Mapping[str, Any]
) -> Iterator[tuple[list[str], str, list[str]]]:
    """Yields the unknown arguments of a component whose class comes with the project; of others none."""
    if not isinstance(component, Mapping) or not set(component) <= {CLASS_PATH, ARGUMENTS}:
        return
    class_path, arguments = component.get(CLASS_PATH), component.get(ARGUMENTS)
    if not isinstance(class_path, str) or "." not in class_path or class_path not in schema["$defs"]:
        return
    if not isinstance(arguments, Mapping):
        return
    accepted = names_of(schema, class_path)
    yield from ((groups, name, accepted) for name in arguments if name not in accepted)

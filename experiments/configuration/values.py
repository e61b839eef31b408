"""Values that fit no setting, whatever its type, and texts of which a type made a number that nobody wrote."""

import math
from collections.abc import Mapping
from typing import Any

import yaml
from jsonargparse import Namespace

from experiments.configuration.schema import GROUPS, OUR_PACKAGES, class_named, takes_both
from lightning_m2pt.configuration.strict_yaml import value_of
from lightning_m2pt.configuration.tree import ARGUMENTS, CLASS_PATH, key_inside, key_of_item, leaves
from lightning_m2pt.errors import BadInputError

MOST_DIGITS = 18
LARGEST = 2**63 - 1
PLACEHOLDER = "???"


def check_values(tree: Mapping[str, Any]) -> None:
    """Looks at every scalar of a composed tree.

    Raises:
        BadInputError: At the first placeholder, empty text, or number that no computer's integer holds.
    """
    check_texts(tree)
    for key, value in leaves(tree):
        problem, expected = "", ""
        if isinstance(value, str):
            digits = value.strip().lstrip("+-")
            if value == PLACEHOLDER:
                problem, expected = "??? is still to be filled in", "a value"
            elif digits.isdecimal() and len(digits) > MOST_DIGITS:
                problem, expected = f"a number of {len(digits)} digits", f"at most {MOST_DIGITS} digits"
            elif "\0" in value:
                problem, expected = "a NUL character", "text"
        elif isinstance(value, int) and abs(value) > LARGEST:
            problem, expected = f"{str(value)[:20]}... is too large", f"at most {LARGEST}"
        elif isinstance(value, float) and not math.isfinite(value):
            problem, expected = f"{value} is no number", "a finite number"
        if problem:
            raise BadInputError(problem, where=key, expected=expected)


def check_texts(value: Any, key: str = "") -> None:
    """Looks for empty texts where this project reads them; other packages' classes have some as defaults (``prefix``).

    Args:
        value: A composed tree, or a part of it.
        key: Its dotted key.

    Raises:
        BadInputError: At the first one.
    """
    if isinstance(value, Mapping):
        class_path = value.get(CLASS_PATH)
        if isinstance(class_path, str) and class_path.partition(".")[0] not in OUR_PACKAGES:
            return
        for name, inner in value.items():
            check_texts(inner, key_inside(key, name))
    elif isinstance(value, list):
        for item in value:
            check_texts(item, key_of_item(key, item))
    elif isinstance(value, str) and not value.strip():
        raise BadInputError("an empty text", where=key, expected="a value, or null for none")


def check_read(given: Any, read: Any, key: str = "") -> None:
    """Compares what was given with what the parser read from it.

    The parser reads a number's text by YAML's old rules: ``1:30`` would be 90, ``1_0`` ten, and ``.nan`` a number.

    Args:
        given: The composed value.
        read: The parsed one.
        key: The dotted key of both.

    Raises:
        BadInputError: At the first number that is not what its text says.
    """
    if isinstance(given, Mapping) and isinstance(read, (Mapping, Namespace)):
        for name, inner in given.items():
            check_read(inner, read.get(name), key_inside(key, name))
    elif isinstance(given, list) and isinstance(read, (list, tuple)):
        for before, after in zip(given, read, strict=False):
            check_read(before, after, key_of_item(key, before))
    elif isinstance(given, str) and isinstance(read, (bool, int, float)) and not says(given, read):
        raise BadInputError(f"{given!r:.40} is no number", where=key, expected="such as 10, 0.01 or 1e-3")


def keep_whole_numbers(given: Any, read: Any, group: str = "", owner: Any = None) -> None:
    """Makes whole numbers of those that the parser has read as others, where a setting takes both.

    Which of ``int`` and ``float`` such a setting's type names first, and so which is tried first, depends on what else
    the process has asked ``typing`` for: it takes equal unions for one. Lightning counts batches by the one and takes
    the other for a share, and a run's name is made of what was read.

    Args:
        given: The composed value.
        read: The parsed one, or the parsed one written out again, which is changed.
        group: The dotted key of both.
        owner: The class whose arguments they are, if they are any's.
    """
    if isinstance(given, list) and isinstance(read, list):
        for before, after in zip(given, read, strict=False):
            keep_whole_numbers(before, after, key_of_item(group, before))
    if not (isinstance(given, Mapping) and isinstance(read, (dict, Namespace))):
        return
    if CLASS_PATH in given:
        owner = class_named(str(read.get(CLASS_PATH)))
    for name, inner in given.items():
        value = read.get(name)
        if name == ARGUMENTS:
            keep_whole_numbers(inner, value, group, owner)
        elif isinstance(value, float) and is_whole(inner) and takes_both(owner or GROUPS.get(group), name):
            read[name] = int(value)
        else:
            keep_whole_numbers(inner, value, key_inside(group, name))


def is_whole(given: Any) -> bool:
    """Tells whether a value, or what a text says, is a whole number without a point."""
    try:
        value = value_of(given) if isinstance(given, str) else given
    except yaml.YAMLError:
        return False
    return isinstance(value, int) and not isinstance(value, bool)


def says(text: str, number: float) -> bool:
    """Tells whether a text means a number, or true or false, as people write it."""
    try:
        value = value_of(text)
    except yaml.YAMLError:
        return False
    return isinstance(value, (int, float)) and isinstance(value, bool) == isinstance(number, bool) and value == number

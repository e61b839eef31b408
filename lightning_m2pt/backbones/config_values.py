"""Values of configuration files that strangers wrote: each is what it must be, or is refused by its key.

A size bounds what is built from it, so every size has a largest value that no model comes near.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from lightning_m2pt.errors import BadInputError

SHOWN = 60
"""Characters of a wrong value that a message shows."""


def shown_value(value: object) -> str:
    """Returns a value as messages show it: on one line, short, without control characters."""
    return f"{value!r:.{SHOWN}}"


def bad_key(path: Path, key: str, what: str, expected: str, hint: str = "") -> BadInputError:
    """Returns the refusal of one key of a configuration file."""
    return BadInputError(what, where=f"{path}: {key}", expected=expected, hint=hint)


def mapping(content: Mapping[str, Any], key: str, path: Path, within: str = "") -> dict[str, Any]:
    """Returns a JSON object.

    Raises:
        BadInputError: If the key is missing or holds something else.
    """
    value = content.get(key)
    if not isinstance(value, dict):
        what = "this key is missing" if key not in content else f"{shown_value(value)} is no JSON object"
        raise bad_key(path, within + key, what, "a JSON object")
    return value


def whole_number(
    content: Mapping[str, Any], key: str, path: Path, most: int, *, least: int = 1, default: int | None = None
) -> int:
    """Returns a whole number; ``true`` is none, and neither are ``"4"`` and 4.0.

    Args:
        content: Where the key stands.
        key: Its name; what stands before its last dot is shown in messages alone.
        path: The file, for messages.
        most: The largest that is believed.
        least: The smallest that has a meaning.
        default: What a missing key or ``null`` stands for; None makes the key needed.

    Raises:
        BadInputError: If the key is missing, no whole number, or out of range.
    """
    name = key.rpartition(".")[2]
    value = content.get(name)
    if value is None and default is not None:
        return default
    expected = f"a whole number from {least:,} to {most:,}"
    if name not in content:
        raise bad_key(path, key, "this key is missing", expected)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise bad_key(path, key, f"{shown_value(value)} does not fit", expected)
    return value


def real_number(
    content: Mapping[str, Any], key: str, path: Path, most: float, *, least: float = 0.0, default: float | None = None
) -> float:
    """Returns a finite number above ``least`` and at most ``most``.

    Raises:
        BadInputError: If the key is missing without a default, no number, or out of range.
    """
    name = key.rpartition(".")[2]
    value = content.get(name)
    if value is None and default is not None:
        return default
    if not is_real(value) or not least < value <= most:
        what = "this key is missing" if name not in content else f"{shown_value(value)} does not fit"
        raise bad_key(path, key, what, f"a number above {least:g} and at most {most:g}")
    return float(value)


def is_real(value: object) -> TypeGuard[int | float]:
    """Tells whether a JSON value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def divisible(path: Path, key: str, number: int, by_key: str, by: int) -> int:
    """Returns ``number // by``.

    Raises:
        BadInputError: If it does not divide.
    """
    if number % by:
        raise bad_key(path, key, f"{number} is no multiple of {by_key}, {by}", "sizes that divide")
    return number // by


def one_of(content: Mapping[str, Any], key: str, path: Path, accepted: Sequence[Any], reason: str) -> None:
    """Refuses a value that is not among the accepted; a missing key is accepted.

    Raises:
        BadInputError: Naming the value, what is accepted, and the reason.
    """
    name = key.rpartition(".")[2]
    if name in content and not any(equal_json(content[name], value) for value in accepted):
        listed = " or ".join("null" if value is None else shown_value(value) for value in accepted)
        raise bad_key(path, key, f"{shown_value(content[name])} is not supported", listed, reason)


def equal_json(value: object, accepted: object) -> bool:
    """Tells whether two JSON values are equal; ``true`` is not 1, but 1 is 1.0."""
    return value == accepted and isinstance(value, bool) == isinstance(accepted, bool)

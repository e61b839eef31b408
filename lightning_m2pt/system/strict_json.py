"""Reading JSON that nobody vouches for.

The library's reader takes what is no JSON (``NaN``), keeps the last of two equal keys without a word, and nests as
deep as the stack allows, so that the value breaks whoever walks through it later. Here all of that is refused.
"""

import json
import math
from collections.abc import Sequence
from typing import Any, NoReturn

from lightning_m2pt.errors import BadInputError

DEEPEST = 100
"""Levels of lists and objects; what this project writes has at most a dozen."""


class RefusedJsonError(ValueError):
    """Something the library would have taken; the sentence says what."""


def parse_json(text: str | bytes, file: object, first_line: int = 1, expected: str = "", hint: str = "") -> Any:
    """Returns the JSON value in a text.

    Args:
        text: The text, or its bytes in UTF-8.
        file: The file it is from, for errors; also ``FILE: PART``.
        first_line: The line of the file at which it begins; 0 leaves lines out of errors.
        expected: What would have been right, for errors.
        hint: What to do about it, for errors.

    Raises:
        BadInputError: If it is no UTF-8 or no JSON (``NaN`` and ``Infinity`` are none), has a key twice, a number of
            thousands of digits, or more than ``DEEPEST`` levels; names the line where it is known.
    """
    expected = expected or "a complete JSON file in UTF-8"
    place = f"{file}:{first_line}" if first_line else str(file)
    try:
        decoded = text if isinstance(text, str) else text.decode("utf-8")
        value = json.loads(
            decoded, object_pairs_hook=object_of_pairs, parse_float=finite_float, parse_constant=refuse_constant
        )
    except json.JSONDecodeError as error:
        place = f"{file}:{first_line + error.lineno - 1}" if first_line else str(file)
        raise BadInputError(
            f"this is not valid JSON: {error.msg} at column {error.colno}",
            where=place,
            expected=expected,
            hint=hint or "was it cut off? Download or unpack it again",
        ) from error
    except UnicodeDecodeError as error:
        raise BadInputError("this is not UTF-8 text", where=place, expected=expected, hint=hint) from error
    except RefusedJsonError as error:
        raise BadInputError(str(error), where=place, expected=expected, hint=hint) from error
    except RecursionError as error:
        raise too_deep(place) from error
    except ValueError as error:  # Python turns no texts of thousands of digits into whole numbers
        raise BadInputError(
            "the JSON holds a number of thousands of digits", where=place, expected=expected, hint=hint
        ) from error
    if is_deeper(value, DEEPEST):
        raise too_deep(place)
    return value


def object_of_pairs(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object.

    Raises:
        RefusedJsonError: If a key is there twice.
    """
    content = dict(pairs)
    if len(content) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise RefusedJsonError(f"the key {twice!r:.80} is there twice in one JSON object")
    return content


def refuse_constant(name: str) -> NoReturn:
    """Refuses ``NaN`` and ``Infinity``.

    Raises:
        RefusedJsonError: Always.
    """
    raise RefusedJsonError(f"this is not valid JSON: {name} is no JSON number")


def finite_float(text: str) -> float:
    """Returns a number with a point or an exponent.

    Raises:
        RefusedJsonError: If it is beyond what a float holds: Python would make it infinite.
    """
    number = float(text)
    if not math.isfinite(number):
        raise RefusedJsonError(f"the number {text:.40} is too large")
    return number


def is_deeper(value: Any, levels: int) -> bool:
    """Tells whether a JSON value has more levels of lists and objects; looks level by level, without recursion."""
    level = [value]
    for _ in range(levels):
        level = [
            inside
            for item in level
            if isinstance(item, list | dict)
            for inside in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return any(isinstance(item, list | dict) for item in level)


def too_deep(place: str) -> BadInputError:
    """Returns the error about a value of too many levels."""
    return BadInputError("the JSON is nested too deeply", where=place, expected=f"at most {DEEPEST} levels")

"""What the writers of peers' formats share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_m2pt.errors import BadInputError

SPACE_FOR_BREAK = str.maketrans("\n\t", "  ")
ANSWERS = ("yes", "no")


@dataclass(frozen=True)
class Export:
    """Files to write, by their name within the output folder, and what a person has to know about them."""

    files: Mapping[str, bytes]
    note: str = ""


def flattened(text: str) -> str:
    """Returns a text with a space for every newline and tab, as our rules read it."""
    return text.translate(SPACE_FOR_BREAK)


def encoded(text: str) -> bytes:
    """Returns UTF-8; half a character, which an answer may hold, becomes a question mark."""
    return text.encode(errors="replace")


def yes_or_no(row: Mapping[str, Any]) -> str:
    """Returns the lower-case target of a yes/no question.

    Raises:
        BadInputError: If it is neither.
    """
    target: str = row["target"].lower()
    if target not in ANSWERS:
        raise BadInputError(
            f"the target of {row['id']!r:.80} is {row['target']!r:.40}", where="target", expected=" or ".join(ANSWERS)
        )
    return target

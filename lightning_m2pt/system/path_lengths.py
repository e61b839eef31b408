"""Names that are too long for any file, and where a user has written one."""

import os
from collections.abc import Sequence
from pathlib import Path

from lightning_m2pt.errors import BadInputError

LONGEST_PART, LONGEST_PATH = 255, 4095
"""Bytes of a name between two slashes, and of a whole path, that the usual file systems and Linux allow."""
SHOWN = 40
LEAST_ALIKE = 100
"""Bytes of a name from which on it is found again within the name of a draft that is made of it."""


def refuse_too_long(path: str | Path, where: str) -> None:
    """Refuses a path that no file can have.

    Args:
        path: The path.
        where: The key or flag that has it.

    Raises:
        BadInputError: Naming the place and the beginning of the name.
    """
    text = str(path)
    if len(os.fsencode(text)) > LONGEST_PATH:
        raise too_long(text, where, LONGEST_PATH)
    for part in text.split("/"):
        if len(os.fsencode(part)) > LONGEST_PART:
            raise too_long(part, where, LONGEST_PART)


def too_long(name: str, where: str, most: int) -> BadInputError:
    """Returns the error about a name, or a whole path, that is longer than it may be."""
    return BadInputError(
        f"{name:.{SHOWN}}... is no file's name: it has {len(os.fsencode(name)):,} bytes",
        where=where,
        expected=f"at most {most:,} bytes" + (" between two slashes" if most == LONGEST_PART else ""),
    )


def refused_by_the_system(path: str, words: Sequence[str]) -> BadInputError:
    """Returns the error about a path that the system has called too long.

    Args:
        path: As the system was asked for it; it may be the name of a draft, which is longer than what was written.
        words: The command line, in which the name is looked for.
    """
    longest = max(path.split("/"), key=len)
    is_part = len(os.fsencode(longest)) > LONGEST_PART
    name, most = (longest, LONGEST_PART) if is_part else (path, LONGEST_PATH)
    for before, word in zip(["", *words], words, strict=False):
        flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        parts = [part for part in value.split("/") if len(os.fsencode(part)) > LEAST_ALIKE]
        if value and (value in path if not is_part else any(part in longest for part in parts)):
            named = flag if equals else before if before.startswith("--") else ""
            return too_long(name, "command line" + (f": {named}" if named else ""), most)
    return too_long(name, "a path", most)

"""Texts from files, made fit to show: nothing drives a terminal or turns the direction of writing, lists are short."""

import re
from collections.abc import Collection

UNSAFE = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # control characters: an escape sequence clears a screen, or writes what was never said
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # signs that turn the direction of writing
    "\u2028\u2029"  # line and paragraph separators
    "\ufeff\ufff9-\ufffb"  # byte order mark, annotations
    "\U000e0000-\U000e007f"  # tags: letters that nobody sees
    "\ud800-\udfff"  # halves of characters, which cannot be written at all
    "]"
)
# Joiners stay: Persian and emoji need them.

NAMED, LONGEST_NAME = 3, 160


def visible(text: str, kept: str = "") -> str:
    r"""Returns a text in which every unsafe character is written as its escape, such as ``\x1b``.

    Args:
        text: Any text.
        kept: Unsafe characters that are meant, such as line breaks.
    """
    return UNSAFE.sub(lambda match: match[0] if match[0] in kept else escape_of(match[0]), text)


def escape_of(character: str) -> str:
    """Returns a character's escape, as Python writes it."""
    return repr(character)[1:-1]


def counted(names: Collection[str], named: int = NAMED) -> str:
    """Returns the first few names, in ASCII and of bearable length, and how many more there are."""
    listed = ", ".join(f"{ascii(name)[1:-1]:.{LONGEST_NAME}}" for name in list(names)[:named])
    return listed if len(names) <= named else f"{listed} and {len(names) - named} more"

"""Help as wide as the terminal: argparse folds what it says of flags, and leaves written texts as they stand."""

import re
import shutil
import textwrap

NARROWEST = 30
"""Columns that are left for the second of two; what has less begins below the first."""
BELOW = 4
COMMANDS = ("m2pt ", "make ")
"""What a line that can be copied begins with: it stays one."""
TWO_COLUMNS = re.compile(r"(\s*\S(?:.*?\S)?\s{2,})(\S.*)")


def fitted(text: str) -> str:
    """Returns a text whose lines are no longer than the terminal is wide; words and command lines stay whole.

    A paragraph, which is lines without indentation, is filled anew where one of its lines is too long; of two columns
    the second is folded.

    Args:
        text: A verb's help.
    """
    # Where there is no terminal, COLUMNS or 80, as for argparse.
    width = shutil.get_terminal_size().columns
    made: list[str] = []
    paragraph: list[str] = []
    for line in [*text.split("\n"), ""]:
        if line and not line[0].isspace():
            paragraph.append(line)
            continue
        made += filled(paragraph, width)
        paragraph = []
        made += [line] if len(line) <= width else folded(line, width)
    return "\n".join(made[:-1])


def filled(paragraph: list[str], width: int) -> list[str]:
    """Returns a paragraph's lines, filled anew if one of them is too long."""
    if all(len(line) <= width for line in paragraph):
        return paragraph
    return wrapped(" ".join(paragraph), width, "")


def folded(line: str, width: int) -> list[str]:
    """Returns an indented line that is too long as several."""
    indent = line[: len(line) - len(line.lstrip())]
    columns = TWO_COLUMNS.fullmatch(line)
    if columns is None:
        is_command = line.startswith(COMMANDS, len(indent))
        return [line] if is_command else wrapped(line.strip(), width, indent, indent)
    first, second = columns[1], columns[2]
    if width - len(first) >= NARROWEST:
        return wrapped(second, width, first, " " * len(first))
    below = indent + " " * BELOW
    return [first.rstrip(), *wrapped(second, width, below, below)]


def wrapped(text: str, width: int, first: str, others: str = "") -> list[str]:
    """Returns a text as lines, between words alone, behind what its first and its other lines begin with."""
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )

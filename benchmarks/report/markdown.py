"""Markdown tables and lines, and the marked places of pages that a command fills."""

import textwrap
from collections.abc import Sequence

from lightning_m2pt.errors import BadInputError

WIDTH = 120
"""Of the pages' lines."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns a Markdown table; all columns but the first are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def wrapped(sentence: str, bullet: str = "") -> list[str]:
    """Returns the lines of a sentence, as an item of a list if a bullet is given."""
    return textwrap.wrap(bullet + sentence, WIDTH, subsequent_indent=" " * len(bullet), break_on_hyphens=False)


def with_block(page: str, name: str, lines: Sequence[str]) -> str:
    """Returns the page with the lines in the marked place of that name.

    Raises:
        BadInputError: If the page has no such place.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise BadInputError(f"no place {begin.strip()} ... {end.strip()}", where="page")
    return before + begin + "\n" + "\n".join(lines) + end + after

"""Answers on standard output: nothing that a model says drives the terminal."""

import sys
from collections.abc import Iterable

from rich.text import Text

from lightning_m2pt.system.console import LAYOUT, OUT
from lightning_m2pt.visible_text import visible

NO_ANSWER = "(no answer)"


def write_line(text: str, name: str = "") -> None:
    """Writes one line, behind whose answer it is if that is said; line breaks in it are written as escapes."""
    OUT.print(Text(f"{name}: {visible(text)}" if name else visible(text)), soft_wrap=True)


def write_streamed(pieces: Iterable[str], name: str = "") -> None:
    """Writes an answer: on a terminal as it grows, elsewhere as one line.

    Args:
        pieces: They join to it.
        name: Whose answer it is; empty where nothing stands before it.
    """
    if not sys.stdout.isatty():
        write_line("".join(pieces), name)
        return
    if name:
        OUT.print(Text(f"{name}: ", style="dim"), end="")
    is_empty = True
    try:
        for piece in pieces:
            is_empty = False
            OUT.print(Text(visible(piece, LAYOUT)), end="", soft_wrap=True)
        if is_empty:
            OUT.print(Text(NO_ANSWER, style="dim"), end="")
    finally:
        OUT.print()

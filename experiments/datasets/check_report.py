"""What ``m2pt check`` says of many mistakes: grouped by kind, the first of each kind with their places, all counted."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data_modules.base import DataModule, OnPicture, nobody_asks
from lightning_m2pt.errors import BadInputError, M2PTError
from lightning_m2pt.inputs.mistakes import PARTICULARS, mistakes_of
from lightning_m2pt.system.console import OUT

LISTED = 10
"""Mistakes of one kind that are listed; the others are counted."""


def mistakes_in(data_module: DataModule, decode: bool) -> tuple[BadInputError, ...]:
    """Returns all mistakes of a data set; where people watch, a bar shows how many pictures are still to be decoded."""
    try:
        with picture_bar(type(data_module).__name__, decode) as on_picture:
            data_module.check(decode, on_picture)
    except BadInputError as error:
        return mistakes_of(error)
    return ()


@contextmanager
def picture_bar(name: str, decode: bool) -> Iterator[OnPicture]:
    """Shows how many pictures were decoded, of how many, and the time left."""
    if not decode:
        yield nobody_asks
        return
    with counting_bar(f"{name}: pictures") as on_picture:
        yield on_picture


@contextmanager
def counting_bar(words: str) -> Iterator[OnPicture]:
    """Shows how much of something is done, of how much, and the time left, where people watch."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=OUT, transient=True, disable=not OUT.is_terminal) as progress:
        task = progress.add_task(words, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@dataclass(frozen=True)
class Kind:
    """Mistakes of one kind.

    Attributes:
        expected: What stood there if it were right.
        hint: What to do about the first of them.
        mistakes: All of them, in the order in which they were found.
    """

    expected: str
    hint: str
    mistakes: tuple[M2PTError, ...]


def kinds_of(mistakes: Sequence[M2PTError]) -> list[Kind]:
    """Returns mistakes kind by kind: those that say the same but for quoted values, paths and numbers."""
    kinds: dict[tuple[str, str], list[M2PTError]] = {}
    for mistake in mistakes:
        kinds.setdefault((PARTICULARS.sub("…", mistake.what), mistake.expected), []).append(mistake)
    return [Kind(expected, found[0].hint, tuple(found)) for (_, expected), found in kinds.items()]


def report_lines(mistakes: Sequence[M2PTError]) -> list[str]:
    """Returns the mistakes kind by kind: their number, what was expected, and the first of them."""
    lines = []
    for kind in kinds_of(mistakes):
        told = [f"expected: {kind.expected}" if kind.expected else "", f"hint: {kind.hint}" if kind.hint else ""]
        lines.append("; ".join([f"{len(kind.mistakes):,} of this kind", *filter(None, told)]))
        lines += [f"    {mistake.where}: {mistake.what}" for mistake in kind.mistakes[:LISTED]]
        if len(kind.mistakes) > LISTED:
            lines.append(f"    and {len(kind.mistakes) - LISTED:,} more")
    return lines

"""What ``m2pt check`` says of many mistakes: grouped by kind, the first of each kind with their places, all counted."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data_modules.base import DataModule, OnPicture, nobody_asks
from lightning_m2pt.errors import BadInputError, M2PTError
from lightning_m2pt.inputs.mistakes import mistakes_of
from lightning_m2pt.system.console import OUT

LISTED = 10
"""Mistakes of one kind that are listed; the others are counted."""
PARTICULARS = re.compile(r"'[^']*'|\"[^\"]*\"|\S*[/\d]\S*")
"""What differs between two mistakes of one kind: quoted values, paths and numbers."""


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
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=OUT, transient=True, disable=not OUT.is_terminal) as progress:
        task = progress.add_task(f"{name}: pictures", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def report_lines(mistakes: Sequence[M2PTError]) -> list[str]:
    """Returns the mistakes kind by kind: their number, what was expected, and the first of them."""
    kinds: dict[tuple[str, str], list[M2PTError]] = {}
    for mistake in mistakes:
        kinds.setdefault((PARTICULARS.sub("…", mistake.what), mistake.expected), []).append(mistake)
    lines = []
    for (_, expected), found in kinds.items():
        told = [f"expected: {expected}" if expected else "", f"hint: {found[0].hint}" if found[0].hint else ""]
        lines.append("; ".join([f"{len(found):,} of this kind", *filter(None, told)]))
        lines += [f"    {mistake.where}: {mistake.what}" for mistake in found[:LISTED]]
        if len(found) > LISTED:
            lines.append(f"    and {len(found) - LISTED:,} more")
    return lines

"""CSV and TSV: the first line names the columns, every cell is text, and an empty one is None."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_modules.reading.files import Record, read_text
from lightning_m2pt.errors import BadInputError

LONGEST_CELL = 2**31 - 1
"""Letters; Python's own limit of 131,072 is below a picture in base64."""


def table_rows(path: Path) -> Iterator[Record | BadInputError]:
    """Yields (``FILE:LINE``, row) of a table, or the mistake in a row's place; the line is the row's first.

    Cells are parted by tabs in ``.tsv``; elsewhere by commas, or by semicolons or tabs if the first line has no comma.

    Raises:
        BadInputError: If the file cannot be read, or its first line does not name the columns.
    """
    text = read_text(path)
    csv.field_size_limit(LONGEST_CELL)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(path, text), strict=True)
    names = column_names(next_row(lines, path) or [], path)
    while True:
        where = f"{path}:{lines.line_num + 1}"
        try:
            cells = next(lines, None)
        except csv.Error as error:
            yield BadInputError(f"this is no row of a table: {error}", where=where, expected="quotes that are closed")
            return  # what follows would be read with the wrong quotes
        if cells is None:
            return
        if not cells:
            continue
        if len(cells) != len(names):
            yield BadInputError(
                f"the row has {len(cells)} cells",
                where=where,
                expected=f"{len(names)}: {', '.join(names)[:160]}",
                hint="a text that holds the separator or a line break stands in quotes",
            )
            continue
        yield where, {name: cell if cell.strip() else None for name, cell in zip(names, cells, strict=True) if name}


def delimiter_of(path: Path, text: str) -> str:
    """Returns what parts the cells of a table."""
    first = text.lstrip().partition("\n")[0]
    if path.suffix.lower() == ".tsv":
        return "\t"
    return next((letter for letter in ",;\t" if letter in first), ",")


def next_row(lines: "Iterator[list[str]]", path: Path) -> list[str] | None:
    """Returns the next row, None at the end.

    Raises:
        BadInputError: If it is none.
    """
    try:
        return next((cells for cells in lines if cells), None)
    except csv.Error as error:
        raise BadInputError(f"this is no row of a table: {error}", where=f"{path}:1", expected="columns") from error


def column_names(cells: Sequence[str], path: Path) -> list[str]:
    """Returns the names of columns without outer spaces; the first may have none, as pandas writes row numbers.

    Raises:
        BadInputError: If another one has none, or two have the same.
    """
    names = [cell.strip() for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1})
    if "" in names[1:] or twice or not any(names):
        what = f"two columns are called {twice[0]!r:.60}" if any(twice) else "a column has no name"
        raise BadInputError(what, where=f"{path}:1", expected="a first line that names the columns, each once")
    return names

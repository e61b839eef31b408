"""One table model, and the five forms it is written in: terminal, Markdown, LaTeX (booktabs), CSV and JSON."""

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

STARTS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet runs a cell that begins with one of these; behind an apostrophe it is text."""
LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "$": r"\$",
        "&": r"\&",
        "#": r"\#",
        "%": r"\%",
        "_": r"\_",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "†": r"\dag{}",
        "\N{MULTIPLICATION SIGN}": r"$\times$",
        "\N{MINUS SIGN}": "$-$",
        "·": r"$\cdot$",
        "…": r"\ldots{}",
        "\N{EN DASH}": "--",
        "\N{EM DASH}": "---",
        "\N{LEFT SINGLE QUOTATION MARK}": "`",
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
        "“": "``",
        "”": "''",
        "\n": " ",
    }
)
NOT_IN_LATEX = re.compile(r"[^\x20-\x7eÀ-ÏÑ-ÖØ-Ýß-ïñ-öø-ýÿ]")
"""What pdfLaTeX's own fonts lack (all but ASCII and accented letters of Latin-1): it would stop there."""
READ_AS_ARGUMENT = ("[", "*")
r"""The end of the row above, ``\\`` or a rule, would take these for an argument of its own."""
MARKDOWN = str.maketrans({"\\": r"\\", "|": r"\|", "*": r"\*", "_": r"\_", "`": r"\`", "<": "&lt;", "\n": " "})
WIDEST = 1_000
"""More characters than any table takes in a terminal."""
WIDEST_NAME = 24
"""Longer names in the first column take several lines."""
MINUS = re.compile(r"(?<![\w.])-(?=\d)")


@dataclass(frozen=True)
class Column:
    """A column that people read.

    Attributes:
        title: Its heading.
        is_number: Whether it is set to the right.
        is_setting: Whether it says how the rows came about: a terminal shows it below the table if it never changes.
    """

    title: str
    is_number: bool = False
    is_setting: bool = False


@dataclass(frozen=True)
class ReportTable:
    """A table for people and for programs.

    Attributes:
        title: What stands above it; may be empty.
        columns: What people read.
        rows: One text a column.
        records: One record a row with all digits, for programs; the same keys in each.
        notes: Sentences below it.
        bold: Row and column of every text that is set in bold.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    records: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = ()
    bold: Set[tuple[int, int]] = frozenset()


def terminal(tables: Sequence[ReportTable], width: int) -> str:
    """Returns tables in columns, and notes as lines of a width; settings that never change stand below the table."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, highlight=False, emoji=False)
    for table in tables:
        constant = [
            position
            for position, column in enumerate(table.columns)
            if column.is_setting and len({row[position] for row in table.rows} - {""}) == 1
        ]
        shown = Table(title=escape(table.title) or None, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        positions = [position for position in range(len(table.columns)) if position not in constant]
        for position in positions:
            column = table.columns[position]
            justify: Literal["left", "right"] = "right" if column.is_number else "left"
            most = None if position else WIDEST_NAME
            shown.add_column(escape(column.title), justify=justify, no_wrap=position > 0, max_width=most)
        for number, row in enumerate(table.rows):
            texts = [(position, escape(row[position])) for position in positions]
            shown.add_row(*(f"[bold]{text}[/]" if (number, at) in table.bold else text for at, text in texts))
        # As wide as its words need, whatever the width: a number that is cut is another number.
        console.width = WIDEST
        console.print(shown)
        console.width = width
        if constant:
            values = {position: {row[position] for row in table.rows} - {""} for position in constant}
            settings = [f"{table.columns[position].title} {values[position].pop()}" for position in constant]
            console.print("all rows: " + "; ".join(settings), markup=False)
        for note in table.notes:
            console.print(note, markup=False)
    return "".join(line.rstrip() + "\n" for line in stream.getvalue().splitlines())


def markdown(tables: Sequence[ReportTable]) -> str:
    """Returns Markdown tables with their notes as paragraphs."""
    parts = []
    for table in tables:
        rule = ["---:" if column.is_number else "---" for column in table.columns]
        titles = [column.title.translate(MARKDOWN) for column in table.columns]
        rows = [
            [
                f"**{text.translate(MARKDOWN)}**" if (number, position) in table.bold else text.translate(MARKDOWN)
                for position, text in enumerate(row)
            ]
            for number, row in enumerate(table.rows)
        ]
        heading = [f"### {table.title.translate(MARKDOWN)}", ""] if table.title else []
        lines = [*heading, *(f"| {' | '.join(cells)} |" for cells in [titles, rule, *rows])]
        for note in table.notes:
            lines += ["", note.translate(MARKDOWN)]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def latex(tables: Sequence[ReportTable]) -> str:
    r"""Returns ``tabular`` environments for ``\usepackage{booktabs}``, notes below them in small print."""
    parts = []
    for table in tables:
        layout = "".join("r" if column.is_number else "l" for column in table.columns)
        titles = latex_row([column.title for column in table.columns], table.columns)
        lines = [f"% {latex_text(table.title)}"] if table.title else []
        lines += [rf"\begin{{tabular}}{{{layout}}}", r"\toprule", titles, r"\midrule"]
        for number, row in enumerate(table.rows):
            lines.append(latex_row(row, table.columns, {at for of_row, at in table.bold if of_row == number}))
        lines += [r"\bottomrule", r"\end{tabular}"]
        lines += [rf"\par{{\footnotesize {latex_text(note)}\par}}" for note in table.notes]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def latex_row(row: Sequence[str], columns: Sequence[Column], bold: Set[int] = frozenset()) -> str:
    """Returns one line of a ``tabular``; minus signs of numbers are minus signs and no hyphens.

    Args:
        row: One text a column.
        columns: The columns.
        bold: Positions of the texts in bold.
    """
    cells = [latex_text(text) for text in row]
    cells = [MINUS.sub("$-$", cell) if column.is_number else cell for cell, column in zip(cells, columns, strict=True)]
    cells = [rf"\textbf{{{cell}}}" if position in bold else cell for position, cell in enumerate(cells)]
    line = " & ".join(cells) + r" \\"
    return "{}" + line if line.startswith(READ_AS_ARGUMENT) else line


def latex_text(text: str) -> str:
    """Returns a text that LaTeX sets as it stands; a letter that its fonts lack by its number."""
    return NOT_IN_LATEX.sub(lambda found: rf"\texttt{{U+{ord(found[0]):04X}}}", text.translate(LATEX))


def comma_separated(tables: Sequence[ReportTable]) -> str:
    """Returns the records as comma-separated values for spreadsheets, tables apart by an empty line."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\r\n")
    for number, table in enumerate(table for table in tables if table.records):
        if number:
            writer.writerow([])
        keys = list(table.records[0])
        writer.writerow(keys)
        writer.writerows([spreadsheet_cell(record[key]) for key in keys] for record in table.records)
    return stream.getvalue()


def spreadsheet_cell(value: Any) -> Any:
    """Returns a value that a spreadsheet takes for what it is: numbers as numbers, and no text as a formula."""
    if value is None or isinstance(value, int | float):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if text.startswith(STARTS_A_FORMULA) else text


def for_programs(tables: Sequence[ReportTable]) -> str:
    """Returns the records with all digits, and the notes, as JSON."""
    content = [{"title": table.title, "records": list(table.records), "notes": list(table.notes)} for table in tables]
    return json.dumps({"tables": content}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Sequence[ReportTable]], str]] = {
    "markdown": markdown,
    "latex": latex,
    "csv": comma_separated,
    "json": for_programs,
}
TERMINAL = "terminal"
FORMAT_NAMES = (TERMINAL, *FORMATS)


def formatted(tables: Sequence[ReportTable], form: str, width: int) -> str:
    """Returns tables in one of ``FORMAT_NAMES``; only a terminal has a width."""
    return terminal(tables, width) if form == TERMINAL else FORMATS[form](tables)

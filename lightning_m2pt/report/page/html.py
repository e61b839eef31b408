"""The report as one HTML page that needs nothing else: styles, figures and pictures are inside, and no script.

Every text that comes from files is escaped: answers may hold anything.
"""

import re
from base64 import b64encode
from collections.abc import Sequence
from html import escape as escape_html

from lightning_m2pt.report.page.cases import LOST, WON, Case, one_line, right_or_wrong
from lightning_m2pt.report.page.figures import WIDTHS, ReportFigure
from lightning_m2pt.report.page.parts import Part
from lightning_m2pt.report.page.style import STYLE_SHEET
from lightning_m2pt.report.tables.formats import ReportTable
from lightning_m2pt.visible_text import visible

NARROW_SCREEN = "(max-width: 620px)"
DEVIATION = re.compile(r" ± [\d.]+")


def escape(text: str) -> str:
    """Returns any text as it can stand in the page: no markup, and nothing that turns the direction of writing."""
    return escape_html(visible(text))


def page(title: str, introduction: str, sections: Sequence[str], contents: Sequence[tuple[str, str]]) -> str:
    """Returns the whole page.

    Args:
        title: Its title.
        introduction: What stands first, as HTML.
        sections: The sections, as HTML.
        contents: Anchor and title of everything the navigation names.
    """
    links = "".join(f'<a href="#{escape(anchor)}">{escape(text)}</a>' for anchor, text in contents)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # A browser that obeys this loads nothing, whatever a text in the page tries.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{STYLE_SHEET}</style>\n</head>\n<body>\n"
        f"<header><h1>{escape(title)}</h1>{introduction}</header>\n<nav>{links}</nav>\n<main>\n"
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(anchor: str, title: str, level: int, content: str) -> str:
    """Returns a section with its heading."""
    return f'<section id="{escape(anchor)}"><h{level}>{escape(title)}</h{level}>\n{content}</section>'


def part_html(part: Part, prefix: str, said: Sequence[str]) -> str:
    """Returns one part as a section.

    Args:
        part: The part; it has something to show.
        prefix: Stands before its name in anchors.
        said: Notes that stand elsewhere on the page and are not repeated.
    """
    content = [figure_html(figure) for figure in part.figures]
    content += [picture_html(name, png) for name, png in part.maps]
    if part.cases:
        content += [notes_html(part.notes), cases_html(part), *(table_html(table, said) for table in part.tables[1:])]
    else:
        content += [*(table_html(table, said) for table in part.tables), notes_html(part.notes)]
    return section(f"{prefix}{part.name}", part.title, 3, "\n".join(content))


def notes_html(notes: Sequence[str], kind: str = "notes") -> str:
    """Returns sentences as a list; nothing for none."""
    return f'<ul class="{kind}">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>' if notes else ""


def table_html(table: ReportTable, said: Sequence[str] = ()) -> str:
    """Returns a table that scrolls by itself where the screen is narrow."""
    kinds = ["number" if column.is_number else "text" for column in table.columns]
    head = "".join(
        f'<th scope="col" class="{kind}">{escape(column.title)}</th>'
        for kind, column in zip(kinds, table.columns, strict=True)
    )
    lines = []
    for number, row in enumerate(table.rows):
        cells = []
        for position, (kind, text) in enumerate(zip(kinds, row, strict=True)):
            tag = 'th scope="row"' if position == 0 else "td"
            shown = DEVIATION.sub(r"<small>\g<0></small>", escape(text))
            shown = f"<b>{shown}</b>" if (number, position) in table.bold else shown
            cells.append(f'<{tag} class="{kind}">{shown}</{tag.split()[0]}>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    caption = f"<caption>{escape(table.title)}</caption>" if table.title else ""
    notes = notes_html([note for note in table.notes if note not in said])
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="scroll"><table>{caption}{body}</table></div>\n{notes}'


def figure_html(figure: ReportFigure) -> str:
    """Returns a figure: drawn for a column where the screen is narrow, for a page elsewhere."""
    narrow, wide = (data_address(figure.images[width, "svg"], "svg+xml") for width in WIDTHS)
    files = f"{escape(figure.name)}-column.pdf, -text.pdf, .png; data: {escape(figure.name)}.csv"
    return (
        f'<figure><picture><source media="{NARROW_SCREEN}" srcset="{narrow}">'
        f'<img src="{wide}" alt="{escape(figure.title)}: {escape(figure.caption)}"></picture>'
        f"<figcaption>{escape(figure.caption)} <small>{files}</small></figcaption></figure>"
    )


def picture_html(name: str, png: bytes) -> str:
    """Returns a picture with its name below."""
    address = data_address(png, "png")
    return f'<figure><img src="{address}" alt="{escape(name)}"><figcaption>{escape(name)}</figcaption></figure>'


def data_address(content: bytes, kind: str) -> str:
    """Returns a picture as an address that holds it."""
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


def cases_html(part: Part) -> str:
    """Returns won questions on the left and lost ones on the right, set by set."""
    lines = []
    for benchmark in dict.fromkeys(case.benchmark for case in part.cases):
        of_set = [case for case in part.cases if case.benchmark == benchmark]
        pairs = zip(*([case for case in of_set if case.outcome == outcome] for outcome in (WON, LOST)), strict=True)
        for pair in pairs:
            both = "".join(case_html(case, part.pictures.get((benchmark, case.row["id"]))) for case in pair)
            lines.append(f'<div class="pair">{both}</div>')
    return "\n".join(lines)


def case_html(case: Case, picture: bytes | None) -> str:
    """Returns one question with its picture and everybody's answers."""
    image = f'<img class="asked" src="{data_address(picture, "png")}" alt="the picture">' if picture else ""
    question, target, name = (escape(one_line(case.row[key])) for key in ("question", "target", "id"))
    answers = "".join(
        f'<tr class="{right_or_wrong(answer)}"><th scope="row">{escape(answer.method)}</th>'
        f"<td>{escape(one_line(answer.text))}</td><td>{right_or_wrong(answer)}</td></tr>"
        for answer in case.answers
    )
    return (
        f'<article class="case {case.outcome}"><h4>{escape(case.benchmark)}: {case.outcome}</h4>{image}'
        f"<p>{question}</p><p>Right answer: <b>{target}</b></p>"
        f"<table>{answers}</table><p><small>{name}</small></p></article>"
    )

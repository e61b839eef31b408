"""Searches of prompts that are words, from their records: the least loss by the rows they have run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_m2pt.report.page.drawings import PANELS_NARROW, distinct, legend_lines, new_figure
from lightning_m2pt.report.page.figures import WIDE, Look, Records, ReportFigure, styles_of_methods
from lightning_m2pt.report.page.parts import Part
from lightning_m2pt.report.tables.formats import Column, ReportTable
from lightning_m2pt.system.strict_json import parse_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEGIN = b'{\n "settings": {'
"""How every record of a search begins; a test compares it with what is written. Other files are not read."""
PLACES = ("*.json", "*/*.json", "*/*/*.json")
"""Where records lie: beside runs, in an experiment's or a run's folder."""
MOST_PANELS = 6
RANDOM = "random"
NAME = "searched-prompts"
TITLE = "Searched prompts"
CAPTION = (
    "Least loss per supervised token on the samples that are searched on, by rows of the language model; a backward "
    "pass counts as two forward ones. Nothing of other samples is in it."
)


def searched_prompts_part(outputs: Sequence[Path]) -> tuple[Part | None, list[str]]:
    """Returns the part of all searches whose records lie in folders, and a sentence for each that cannot be read.

    Args:
        outputs: Folders of runs, or of folders of runs.

    Returns:
        None in the part's place if there is no record.
    """
    curves: list[dict[str, Any]] = []
    ends: list[dict[str, Any]] = []
    left_out = []
    for root in outputs:
        for path in (path for pattern in PLACES for path in sorted(root.glob(pattern)) if is_record(path)):
            name = path.relative_to(root).with_suffix("").as_posix()
            try:
                points, end = records_of(name, parse_json(path.read_bytes(), path))
            except (AttributeError, KeyError, TypeError, ValueError):
                left_out.append(f"{name}: the record of a search is damaged")
                continue
            curves += points
            ends += end
    if not ends:
        return None, left_out
    part = Part(NAME, TITLE, tables=[search_table(ends)])
    searches = distinct(curves, "search")
    shown = [record for record in curves if record["search"] in searches[:MOST_PANELS]]
    looks = styles_of_methods(distinct(ends, "method"), None, [RANDOM])
    part.figures.append(ReportFigure(NAME, TITLE, CAPTION, shown, search_curves(looks)))
    if len(searches) > MOST_PANELS:
        part.notes.append(f"not drawn: {', '.join(searches[MOST_PANELS:])}")
    return part, left_out


def is_record(path: Path) -> bool:
    """Tells whether a file begins as a search's record."""
    with path.open("rb") as file:
        return file.read(len(BEGIN)) == BEGIN


def records_of(name: str, content: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns the points of a record's curves, and where each of its searches stands.

    Args:
        name: What the record is called.
        content: As ``m2pt search-prompt`` wrote it.
    """
    points, ends = [], []
    for method, state in content["states"].items():
        own = [
            {"search": name, "method": method, "rows": int(rows), "loss": float(loss)} for rows, loss in state["curve"]
        ]
        # The least loss stays what it is to the last row that was run.
        points += [*own, {**own[-1], "rows": int(state["rows"])}]
        ends.append(
            {
                "search": name,
                "method": method,
                "length": len(state["best"]),
                "samples": len(content["settings"]["samples"]),
                "rows": int(state["rows"]),
                "prompts": int(state["scored"]),
                "first_loss": own[0]["loss"],
                "least_loss": float(state["best_loss"]),
                "moves": int(state["moves"]),
                "ended": str(state["ended"]),
            }
        )
    return points, ends


def search_table(ends: Records) -> ReportTable:
    """Returns a row for each search."""
    rows = [
        (
            record["search"],
            record["method"],
            f"{record['length']}",
            f"{record['samples']:,}",
            f"{record['rows']:,}",
            f"{record['prompts']:,}",
            f"{record['first_loss']:.4f}",
            f"{record['least_loss']:.4f}",
            f"{record['moves']:,}",
            record["ended"] or "on its way",
        )
        for record in ends
    ]
    numbers = ("words", "samples", "rows run", "prompts scored", "loss of the start", "least loss", "moves")
    columns = [Column("search"), Column("proposer"), *(Column(title, is_number=True) for title in numbers)]
    return ReportTable("", [*columns, Column("ended")], rows, ends)


def search_curves(looks: dict[str, Look]) -> "Callable[[Records, float], Figure]":
    """Returns the drawing of searches: a panel a record, a stair a proposer."""

    def draw(records: Records, width: float) -> "Figure":
        searches, methods = distinct(records, "search"), distinct(records, "method")
        columns = min(len(searches), PANELS_NARROW if width >= WIDE else 1)
        lines = -(-len(searches) // columns)
        figure = new_figure(width, 2.0 * lines + 0.4)
        panels = figure.subplots(lines, columns, squeeze=False).flatten().tolist()
        for axes, name in zip(panels, searches, strict=False):
            for method in methods:
                points = [one for one in records if (one["search"], one["method"]) == (name, method)]
                look = looks[method]
                axes.step(
                    [point["rows"] for point in points],
                    [point["loss"] for point in points],
                    where="post",
                    color=look.colour,
                    linestyle=look.dash,
                )
            axes.set_title(name)
            axes.set_xlabel("rows of the language model")
            axes.set_ylabel("least loss")
            axes.grid(visible=True, axis="y")
        for axes in panels[len(searches) :]:
            axes.set_visible(False)
        figure.legend(legend_lines(methods, looks), methods, loc="outside lower center", ncols=PANELS_NARROW)
        return figure

    return draw

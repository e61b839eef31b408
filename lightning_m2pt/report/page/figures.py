"""A figure of the report: its data, how it is drawn, and the files it is written to.

A drawing sees nothing but the records that stand beside it as CSV. Every figure exists at the width of a column and of
a page of a two-column paper, as PDF with its fonts inside and as PNG.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_m2pt.report.tables.formats import ReportTable, comma_separated
from lightning_m2pt.system.atomic_files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Records = Sequence[Mapping[str, Any]]
WIDTHS = {"column": 3.25, "text": 6.75}
"""Inches of a column and of the text of the conferences' two-column styles."""
WIDE = 5.0
"""From this width on panels stand side by side."""
RESOLUTION = 300
UNDATED = {"pdf": {"CreationDate": None, "Producer": None, "Creator": None}, "svg": {"Date": None}, "png": {}}
"""Metadata without a date: the same data give the same bytes."""
PIECES = ("pdf", "png")
"""What is written beside the page; the page holds the third."""
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": "#d9d9d9",
    "grid.linewidth": 0.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "lines.linewidth": 1.2,
    "hatch.linewidth": 0.4,
    "pdf.fonttype": 42,  # whole letters instead of shapes: the publishers' checks want it
    "ps.fonttype": 42,
    "svg.fonttype": "path",  # a page must not depend on the reader's fonts
    "svg.hashsalt": "report",
}

FROZEN_COLOUR, LEAD_COLOUR = "#8c8c8c", "#d55e00"
OTHER_COLOURS = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Okabe and Ito's palette without its yellow, which is too pale for lines; told apart by the colour-blind."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
DASHES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class ReportFigure:
    """One figure.

    Attributes:
        name: Stem of its files.
        title: What stands above it.
        caption: What has to be known to read it.
        records: Everything it shows.
        draw: Makes a figure of a width in inches from the records.
    """

    name: str
    title: str
    caption: str
    records: Records
    draw: "Callable[[Records, float], Figure]"

    @cached_property
    def images(self) -> dict[tuple[str, str], bytes]:
        """The figure as ``pdf``, ``png`` and ``svg`` at both widths, by the width's name and the format."""
        import matplotlib

        found = {}
        for name, inches in WIDTHS.items():
            with matplotlib.rc_context(STYLE):
                figure = self.draw(self.records, inches)
                # Parts find their places once; every format would do it again.
                figure.draw_without_rendering()
                figure.set_layout_engine("none")
                for form, metadata in UNDATED.items():
                    stream = io.BytesIO()
                    figure.savefig(stream, format=form, dpi=RESOLUTION, metadata=metadata, facecolor="white")
                    found[name, form] = stream.getvalue()
        return found

    def write(self, folder: Path) -> list[Path]:
        """Writes PDF and PNG at both widths, and the data as CSV; returns the files."""
        contents = {f"{self.name}.csv": comma_separated([ReportTable("", [], [], self.records)]).encode()}
        for (width, form), content in self.images.items():
            if form in PIECES:
                contents[f"{self.name}-{width}.{form}"] = content
        for name, content in contents.items():
            write_atomically(folder / name, content)
        return [folder / name for name in contents]


@dataclass(frozen=True)
class Look:
    """How a method is drawn wherever it appears."""

    colour: str
    marker: str
    dash: str
    width: float


def styles_of_methods(names: Sequence[str], lead: str | None, frozen: Sequence[str]) -> dict[str, Look]:
    """Returns a look for every method: never two that differ in colour alone.

    Args:
        names: The methods in their order.
        lead: M2PT among them.
        frozen: Those that are not tuned.
    """
    found, others = {}, 0
    for name in names:
        if name == lead:
            found[name] = Look(LEAD_COLOUR, "o", "-", 2.0)
        elif name in frozen:
            found[name] = Look(FROZEN_COLOUR, "x", "--", 1.2)
        else:
            colour = OTHER_COLOURS[others % len(OTHER_COLOURS)]
            dash = DASHES[(others + others // len(OTHER_COLOURS)) % len(DASHES)]
            found[name] = Look(colour, MARKERS[(others + 1) % len(MARKERS)], dash, 1.2)
            others += 1
    return found

"""The picture of the page on transfers, which is the report's figure of the stored matrix."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_m2pt.report.page.drawings import distinct
from lightning_m2pt.report.page.figures import STYLE, UNDATED
from lightning_m2pt.report.page.transfers import gain_maps, gain_records

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Content = Mapping[str, Any]
RESOLUTION = 200
INCHES_OF_NAMES, INCHES_A_PANEL = 1.2, 2.2
LEAST_INCHES = 5.6
"""Panels stand side by side from 5 inches on."""


def figure_of(content: Content) -> "Figure":
    """Returns the picture of a stored matrix."""
    records = gain_records(content)
    width = INCHES_OF_NAMES + INCHES_A_PANEL * len(distinct(records, "prompt"))
    return gain_maps(records, max(LEAST_INCHES, width))


def draw_transfers(content: Content, path: Path) -> None:
    """Writes the picture."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure_of(content).savefig(path, dpi=RESOLUTION, metadata=UNDATED["png"], facecolor="white")

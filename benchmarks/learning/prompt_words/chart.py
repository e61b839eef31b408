"""The picture of the comparison: the least loss of each search by what it has cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from benchmarks.learning.prompt_words.setting import PROPOSERS, SOFT, UNTOUCHED, WRITTEN
from benchmarks.learning.prompt_words.table import seeds_text
from lightning_m2pt.report.page.figures import (
    DASHES,
    FROZEN_COLOUR,
    LEAD_COLOUR,
    MARKERS,
    OTHER_COLOURS,
    STYLE,
    UNDATED,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = (*PROPOSERS, SOFT)
COLOURS = dict(zip(SHOWN, (FROZEN_COLOUR, *OTHER_COLOURS[:5], LEAD_COLOUR), strict=True))
RESOLUTION = 200
MARKED_EVERY = 5


def drawable(curves: Sequence[Sequence[float | None]]) -> numpy.ndarray:
    """Returns (S, P) losses; NaN where nothing was scored yet."""
    return numpy.array([[numpy.nan if loss is None else loss for loss in curve] for curve in curves])


def draw_curves(axes: "Axes", part: Mapping[str, Any]) -> None:
    """Draws one backbone: means over seeds, and what lies between the lowest and the highest."""
    budgets = numpy.array(part["budgets"]) / 1000
    for place, name in enumerate(SHOWN):
        losses = drawable(part["curves"][name])
        axes.fill_between(budgets, losses.min(axis=0), losses.max(axis=0), color=COLOURS[name], alpha=0.12, linewidth=0)
        axes.plot(
            budgets,
            losses.mean(axis=0),
            color=COLOURS[name],
            marker=MARKERS[place],
            markevery=MARKED_EVERY,
            markersize=3.5,
            label=name,
        )
    for name, dash in ((UNTOUCHED, DASHES[3]), (WRITTEN, DASHES[1])):
        loss = float(numpy.mean(part["rows"][name]["searched_loss"]))
        axes.axhline(loss, color="black", linestyle=dash, linewidth=0.8, label=name)
    axes.set_xlabel("rows of the language model, thousands")
    axes.set_yscale("log")
    axes.grid(visible=True, axis="y", which="both")


def figure_of(content: Mapping[str, Any]) -> "Figure":
    """Returns the picture of a stored comparison, one panel a backbone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    panels = figure.subplots(1, len(content["backbones"]), squeeze=False)[0]
    for axes, (name, part) in zip(panels, content["backbones"].items(), strict=True):
        draw_curves(axes, part)
        axes.set_title(f"{name}, {seeds_text(part)}")
    panels[0].set_ylabel("least loss per supervised token")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center")
    return figure


def draw_search(content: Mapping[str, Any], path: Path) -> None:
    """Writes the picture."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure_of(content).savefig(path, dpi=RESOLUTION, metadata=UNDATED["png"], facecolor="white")

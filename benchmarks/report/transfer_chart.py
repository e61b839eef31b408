"""The picture of the page on transfers: gains by base of training and base of use, a panel for every kind of prompt."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_m2pt.report.page.figures import STYLE, UNDATED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Content = Mapping[str, Any]
Estimates = Mapping[tuple[str, str, str], Mapping[str, float]]
COLOURS = "RdBu_r"
RESOLUTION = 200
INCHES_A_PANEL, INCHES_A_LINE = 2.2, 0.32
DARK = 0.6
"""From this part of the largest gain on the text is white."""


def gains_of(content: Content, row: str) -> dict[tuple[str, str, str], Mapping[str, float]]:
    """Returns gains of one kind of prompts by set, base of training and base of use; the same base is home."""
    gains = {}
    for record in content["directions"]:
        name, source, target = record["set"], record["source"], record["target"]
        if record["row"] == row:
            gains |= {(name, source, source): record["white_box"], (name, source, target): record["gain"]}
    return {key: gain for key, gain in gains.items() if gain is not None}


def shown_rows(content: Content) -> list[str]:
    """Returns the kinds of prompts that were trained on more than one set; on one alone if none was on more."""
    sets = {row: {name for name, _, _ in gains_of(content, row)} for row in content["rows"]}
    return [row for row in content["rows"] if len(sets[row]) > 1] or [row for row in content["rows"] if sets[row]]


def figure_of(content: Content) -> "Figure":
    """Returns the picture of a stored matrix."""
    from matplotlib.figure import Figure

    rows, bases = shown_rows(content), list(content["bases"])
    lines = [(name, source) for name in content["sets"] for source in bases]
    gains = {row: gains_of(content, row) for row in rows}
    largest = max((abs(gain["value"]) for of_row in gains.values() for gain in of_row.values()), default=1.0) or 1.0
    size = (1.2 + INCHES_A_PANEL * max(1, len(rows)), 0.8 + INCHES_A_LINE * len(lines))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, max(1, len(rows)), squeeze=False, sharey=True)[0]
    for axes, row in zip(panels, rows, strict=False):
        draw(axes, gains[row], lines, bases, largest)
        axes.set_title(row)
    panels[0].set_yticks(range(len(lines)), [f"{name}, trained on {source}" for name, source in lines])
    return figure


def draw(axes: Any, gains: Estimates, lines: Sequence[tuple[str, str]], bases: Sequence[str], largest: float) -> None:
    """Draws one panel: a line for every set and base of training, a column for every base of use.

    Args:
        axes: The panel.
        gains: As ``gains_of`` returns them.
        lines: Set and base of training of every line.
        bases: Names of the bases.
        largest: Gain, up or down, that has the full colour.
    """
    values = [[gains.get((*line, base), {}).get("value", float("nan")) for base in bases] for line in lines]
    axes.imshow(values, cmap=COLOURS, vmin=-largest, vmax=largest, aspect="auto")
    for y, line in enumerate(lines):
        for x, base in enumerate(bases):
            gain = gains.get((*line, base))
            is_clear = gain is not None and not gain["low"] <= 0 <= gain["high"]
            text = "missing" if gain is None else f"{gain['value']:+.1f}" + ("*" if is_clear else "")
            is_dark = gain is not None and abs(gain["value"]) > DARK * largest
            axes.text(x, y, text, ha="center", va="center", fontsize=7, color="white" if is_dark else "black")
    axes.set_xticks(range(len(bases)), [f"used on {base}" for base in bases])
    axes.tick_params(length=0)


def draw_transfers(content: Content, path: Path) -> None:
    """Writes the picture."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure_of(content).savefig(path, dpi=RESOLUTION, metadata=UNDATED["png"], facecolor="white")

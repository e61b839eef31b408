"""The report's drawings with matplotlib: radar chart, bars, heat map, curves. Each sees only its records."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lightning_m2pt.report.page.figures import WIDE, Look, Records

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

BAR_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7")
BAR_HATCHES = ("", "////", "....", "xxxx")
PANELS_WIDE, PANELS_NARROW = 5, 3
LEGEND_COLUMNS_NARROW = 2
MOST_BANDS = 5
"""Ranges of more methods than that would cover each other."""
FEW_POINTS = 10
"""A line of so few points has a marker at each."""
SHARES = ("validation accuracy",)
"""Quantities that cannot be above 1."""
DARK = 0.5
"""Share of the colour scale above which its colour is light, and letters on it are black."""


def distinct(records: Records, key: str) -> list[Any]:
    """Returns the values of a key, each once, in order."""
    return list(dict.fromkeys(record[key] for record in records))


def new_figure(width: float, height: float) -> "Figure":
    """Returns an empty figure whose parts make room for each other."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def radar(of_method: dict[str, Look]) -> "Callable[[Records, float], Figure]":
    """Returns the drawing of a radar chart: one axis a set, from 0 in the middle to 100 percent at the rim."""

    def draw(records: Records, width: float) -> "Figure":
        wide = width >= WIDE
        sets, methods = distinct(records, "set"), distinct(records, "method")
        figure = new_figure(width, 4.3 if wide else 3.3 + 0.15 * math.ceil(len(methods) / LEGEND_COLUMNS_NARROW))
        axes: Any = figure.add_subplot(projection="polar")  # typed as plain axes, which lack the polar methods
        angles = [2 * math.pi * number / len(sets) for number in range(len(sets))]
        for method in methods:
            values = [record["percent"] for record in records if record["method"] == method]
            look = of_method[method]
            axes.plot(
                [*angles, angles[0]],
                [*values, values[0]],
                color=look.colour,
                marker=look.marker,
                linestyle=look.dash,
                linewidth=look.width,
                markersize=3.5,
                label=method,
                zorder=4 if look.width > 1.5 else 3,
            )
        # No call of "set_theta_zero_location" below the label placement: it turns them.
        axes.set_theta_zero_location("N")
        axes.set_theta_direction(-1)
        axes.set_xticks(angles, labels=sets)
        for angle, label in zip(angles, axes.get_xticklabels(), strict=True):
            side = math.sin(angle)
            label.set_horizontalalignment("center" if abs(side) < 0.1 else "left" if side > 0 else "right")
        axes.tick_params(axis="x", pad=0)
        axes.set_ylim(0, 100)
        axes.set_yticks([25, 50, 75, 100], labels=["25", "50", "75", "100"], color="#595959", fontsize=6)
        axes.set_rlabel_position(180 / len(sets))
        axes.grid(visible=True)
        axes.spines["polar"].set_color("#bfbfbf")
        if wide:
            figure.legend(loc="outside right center")
        else:
            figure.legend(loc="outside lower center", ncols=LEGEND_COLUMNS_NARROW)
        return figure

    return draw


def grouped_bars(records: Records, width: float) -> "Figure":
    """Draws one panel a set: a bar for every variant from 0 to 100, deviation over seeds, chance as a line."""
    sets, variants = distinct(records, "set"), distinct(records, "variant")
    columns = min(len(sets), PANELS_WIDE if width >= WIDE else PANELS_NARROW)
    rows = math.ceil(len(sets) / columns)
    legend_rows = math.ceil(len(variants) / (4 if width >= WIDE else 1))
    figure = new_figure(width, 1.25 * rows + 0.17 * legend_rows + 0.2)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten().tolist()
    for axes, name in zip(panels, sets, strict=False):
        draw_bars(axes, [record for record in records if record["set"] == name], variants)
        axes.set_title(name)
    for axes in panels[len(sets) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel("% of maximum" if width >= WIDE else "%")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4 if width >= WIDE else 1)
    return figure


def draw_bars(axes: "Axes", records: Records, variants: Sequence[str]) -> None:
    """Draws one set's bars."""
    for position, variant in enumerate(variants):
        for record in (one for one in records if one["variant"] == variant):
            axes.bar(
                position,
                record["percent"],
                width=0.8,
                yerr=record["percent_deviation_over_seeds"] or 0.0,
                color=BAR_COLOURS[position % len(BAR_COLOURS)],
                hatch=BAR_HATCHES[position % len(BAR_HATCHES)],
                edgecolor="white",
                linewidth=0,
                error_kw={"elinewidth": 0.8, "capsize": 2, "capthick": 0.8},
            )
        # An empty bar: the legend has every variant, whichever sets it answered.
        colour, hatch = BAR_COLOURS[position % len(BAR_COLOURS)], BAR_HATCHES[position % len(BAR_HATCHES)]
        axes.bar(position, 0, color=colour, hatch=hatch, edgecolor="white", linewidth=0, label=variant)
    chance = next((record["chance_percent"] for record in records if record["chance_percent"] is not None), None)
    if chance is not None:
        axes.axhline(chance, color="black", linewidth=0.8, linestyle=":")
    axes.set_ylim(0, 100)
    axes.set_xticks([])
    axes.grid(visible=True, axis="y")


def length_map(records: Records, width: float) -> "Figure":
    """Draws a heat map: rows are textual lengths, columns visual ones; a cell that did not run is hatched."""
    import numpy

    textual = sorted({record["textual_length"] for record in records})
    visual = sorted({record["visual_length"] for record in records})
    values = numpy.full((len(textual), len(visual)), numpy.nan)
    for record in records:
        values[textual.index(record["textual_length"]), visual.index(record["visual_length"])] = record["percent"]
    side = min(width, 4.6)
    figure = new_figure(side if width < WIDE else width, 0.8 + 0.55 * side * len(textual) / len(visual))
    axes = figure.add_subplot()
    axes.set_facecolor("#f2f2f2")
    axes.patch.set_hatch("////")
    axes.patch.set_edgecolor("#bfbfbf")
    image = axes.imshow(values, cmap="cividis", aspect="auto", origin="lower")
    low, high = image.get_clim()
    for record in records:
        share = (record["percent"] - low) / (high - low) if high > low else 0.0
        deviation = record["percent_deviation_over_seeds"]
        text = f"{record['percent']:.1f}" + ("" if deviation is None else f"\n± {deviation:.1f}")
        place = visual.index(record["visual_length"]), textual.index(record["textual_length"])
        axes.text(*place, text, ha="center", va="center", fontsize=7, color="black" if share > DARK else "white")
    axes.set_xticks(range(len(visual)), labels=[str(length) for length in visual])
    axes.set_yticks(range(len(textual)), labels=[str(length) for length in textual])
    axes.set_xlabel("visual prompt rows")
    axes.set_ylabel("textual prompt rows")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, label=records[0]["quantity"], pad=0.02)
    return figure


def curves(of_method: dict[str, Look]) -> "Callable[[Records, float], Figure]":
    """Returns the drawing of learning curves: a panel a quantity, the seeds' mean and their range behind it.

    What was measured at one step alone has no curve: its methods stand side by side.
    """

    def draw(records: Records, width: float) -> "Figure":
        wide = width >= WIDE
        quantities, methods = distinct(records, "quantity"), distinct(records, "method")
        rows, columns = (1, len(quantities)) if wide else (len(quantities), 1)
        legend_columns = 4 if wide else LEGEND_COLUMNS_NARROW
        legend = 0.16 * math.ceil(len(methods) / legend_columns)
        figure = new_figure(width, (2.5 if wide else 1.75 * len(quantities)) + legend)
        panels = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
        for axes, quantity in zip(panels, quantities, strict=True):
            of_quantity = [record for record in records if record["quantity"] == quantity]
            steps = distinct(of_quantity, "step")
            for position, method in enumerate(methods):
                points = [record for record in of_quantity if record["method"] == method]
                if len(steps) == 1:
                    draw_point(axes, points, position, of_method[method])
                else:
                    draw_curve(axes, points, of_method[method], has_band=len(methods) <= MOST_BANDS)
            if len(steps) == 1:
                axes.set_xticks([])
                axes.set_xlim(-0.7, len(methods) - 0.3)
                axes.set_xlabel(f"at step {steps[0]}")
            else:
                axes.set_xlim(left=0)
                axes.set_xlabel("optimizer step")
            highest = 1.05 * max(record["high"] for record in of_quantity)
            axes.set_ylim(0, min(highest, 1.0) if quantity in SHARES else highest)
            axes.set_ylabel(quantity)
            axes.grid(visible=True, axis="y")
        figure.legend(legend_lines(methods, of_method), methods, loc="outside lower center", ncols=legend_columns)
        return figure

    return draw


def legend_lines(methods: Sequence[str], of_method: dict[str, Look]) -> "list[Line2D]":
    """Returns an empty line for every method, as the legend shows it."""
    from matplotlib.lines import Line2D

    found = [of_method[method] for method in methods]
    return [
        Line2D([], [], color=look.colour, linestyle=look.dash, lw=look.width, marker=look.marker, markersize=3)
        for look in found
    ]


def draw_curve(axes: "Axes", points: Records, look: Look, has_band: bool) -> None:
    """Draws one method's line, with the range over seeds or without; where it has few points they are marked."""
    steps, means, low, high = ([point[key] for point in points] for key in ("step", "mean", "low", "high"))
    if has_band:
        axes.fill_between(steps, low, high, color=look.colour, alpha=0.15, lw=0)
    axes.plot(
        steps,
        means,
        color=look.colour,
        linestyle=look.dash,
        linewidth=look.width,
        marker=look.marker if len(points) <= FEW_POINTS else "",
        markersize=4,
    )


def draw_point(axes: "Axes", points: Records, position: int, look: Look) -> None:
    """Draws one method's mean with the range over seeds."""
    for point in points:
        # The mean of equal numbers can be off by a last bit.
        below, above = max(0.0, point["mean"] - point["low"]), max(0.0, point["high"] - point["mean"])
        axes.errorbar(
            [position],
            [point["mean"]],
            yerr=[[below], [above]],
            color=look.colour,
            marker=look.marker,
            markersize=5,
            capsize=3,
            elinewidth=1,
        )

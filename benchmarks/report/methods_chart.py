"""Pictures of comparisons: the README's, methods by mean and five of them set by set; and the real pair's intervals."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.report.sweep_tables import FROZEN, LEAD, SETS, WORDS, Content, Sweep, mean_name, name_of, sweep_of
from lightning_m2pt.metrics.means import MMAVG, benchmark_mean
from lightning_m2pt.report.page.figures import FROZEN_COLOUR, LEAD_COLOUR, OTHER_COLOURS, STYLE, UNDATED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = (FROZEN, "lora", "vpt", LEAD, "full")
"""The methods that are shown set by set."""
COLOURS = {FROZEN: FROZEN_COLOUR, LEAD: LEAD_COLOUR} | dict(zip(("full", "vpt", "lora"), OTHER_COLOURS, strict=False))
REST_COLOUR = "#c9c9c9"
START_COLOUR = OTHER_COLOURS[0]
"""Of M2PT whose textual prompts begin as words."""
GROUP_WIDTH = 0.8
"""Part of the room between two sets that their bars take."""
RESOLUTION = 200


def draw_means(axes: "Axes", sweep: Sweep, chance: float) -> None:
    """Draws MMAvg of every method, the best on top, with deviations over seeds."""
    labels = sweep.ranking
    cells = [sweep.rows[label][MMAVG] for label in labels]
    bars = axes.barh(
        [name_of(label) for label in labels],
        [cell.mean for cell in cells],
        xerr=[cell.deviation for cell in cells],
        color=[COLOURS.get(label, REST_COLOUR) for label in labels],
        error_kw={"elinewidth": 0.8, "capsize": 2, "capthick": 0.8},
    )
    axes.bar_label(bars, [f"{cell.mean:.1f}" for cell in cells], padding=8, fontsize=7)
    axes.axvline(chance, color="black", linestyle=":", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlim(0, 85)
    axes.set_title(f"{MMAVG}, mean of seven sets (%)")


def draw_sets(axes: "Axes", sweep: Sweep, chances: Mapping[str, float]) -> None:
    """Draws one group of bars a set, with deviations over seeds and chance lines."""
    width = GROUP_WIDTH / len(SHOWN)
    for position, label in enumerate(SHOWN):
        cells = [sweep.rows[label][name] for name in SETS]
        axes.bar(
            [index + position * width for index in range(len(cells))],
            [cell.mean for cell in cells],
            width,
            yerr=[cell.deviation for cell in cells],
            label=name_of(label),
            color=COLOURS[label],
            error_kw={"elinewidth": 0.8, "capsize": 1.5, "capthick": 0.8},
        )
    for index, name in enumerate(SETS):
        axes.hlines(chances[name], index - width / 2, index - width / 2 + GROUP_WIDTH, colors="black", linestyles=":")
    axes.set_xticks([index + GROUP_WIDTH / 2 - width / 2 for index in range(len(SETS))], list(SETS.values()))
    axes.set_ylim(0, 100)
    axes.set_title("% of each set's maximum; dotted: the best constant answer")
    axes.legend(ncols=len(SHOWN), loc="upper center", bbox_to_anchor=(0.5, -0.08))


def figure_of(content: Mapping[str, Any], chances: Mapping[str, float]) -> "Figure":
    """Returns the picture of a stored comparison."""
    from matplotlib.figure import Figure

    sweep = sweep_of(content)
    figure = Figure(figsize=(10, 3), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 2.2))
    draw_means(left, sweep, benchmark_mean(chances)[1])
    draw_sets(right, sweep, chances)
    return figure


def gains_figure(content: Content) -> "Figure":
    """Returns every method's mean, each seed's, and the interval of its difference to the untouched model.

    The interval is drawn around the method's mean, so that one which reaches the untouched model's line is none.

    Args:
        content: A sweep as ``benchmarks.learning.sweep_scores`` keeps it.
    """
    from matplotlib.figure import Figure

    sweep = sweep_of(content)
    untouched, over = sweep.rows[FROZEN][MMAVG].mean, content["gains"][FROZEN]
    labels = [label for label in sweep.ranking if label in over]
    figure = Figure(figsize=(6.75, 0.7 + 0.24 * len(labels)), layout="constrained")
    axes = figure.subplots()
    for place, label in enumerate(labels):
        colour = {LEAD: LEAD_COLOUR, WORDS: START_COLOUR}.get(label, "#505050")
        gain, cell = over[label], sweep.rows[label][MMAVG]
        axes.plot([untouched + gain["low"], untouched + gain["high"]], [place, place], color=colour, linewidth=1.6)
        axes.plot([cell.mean], [place], "o", color=colour, markersize=5)
        axes.plot(cell.values, [place] * len(cell.values), "o", mfc="white", mec=colour, markersize=2.5, mew=0.6)
    axes.axvline(untouched, color=FROZEN_COLOUR, linewidth=1, label="untouched model")
    axes.axvline(benchmark_mean(content["chance"])[1], color="black", linestyle=":", linewidth=0.8, label="chance")
    axes.set_yticks(range(len(labels)), [name_of(label) for label in labels])
    axes.margins(y=0.08)
    axes.invert_yaxis()
    axes.set_title(f"{mean_name(content)} (%)")
    axes.set_xlabel("lines: paired 95% intervals of the difference to the untouched model; small circles: seeds")
    axes.legend(loc="lower right")
    return figure


def draw_methods(content: Mapping[str, Any], chances: Mapping[str, float], path: Path) -> None:
    """Writes the picture of a comparison."""
    save(lambda: figure_of(content, chances), path)


def draw_gains(content: Content, path: Path) -> None:
    """Writes the picture of a sweep's means and intervals."""
    save(lambda: gains_figure(content), path)


def save(figure: Callable[[], "Figure"], path: Path) -> None:
    """Writes a figure that is made in the pages' style."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure().savefig(path, dpi=RESOLUTION, metadata=UNDATED["png"], facecolor="white")

"""The figure of ``m2pt prompts``: likeness of layers, row lengths by layer and over training."""

from typing import Any

import numpy

from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inspection.pictures import png, quiet_pyplot
from lightning_m2pt.inspection.span_colours import SPAN_COLOURS

COLOURS = {"visual_prompts": SPAN_COLOURS[Span.VISUAL_PROMPT], "textual_prompts": SPAN_COLOURS[Span.TEXTUAL_PROMPT]}
CELLS_WITH_NUMBERS = 12
"""More layers than that make cells too small for a number."""
LETTERS = 7.0
LETTERS_OF_A_ROW = 72.0
"""Points. As many layers as there are share these: a panel is 196 points wide, and a number of two decimals needs 2.4
times the size of its letters and a gap."""


def prompts_figure(found: dict[str, Any], norms: dict[str, list[tuple[int, float]]]) -> bytes:
    """Returns a PNG.

    Args:
        found: By kind of prompts: ``layers``, ``similarity``, ``chance_of_similarity``, ``row_norms``.
        norms: By part (step, mean length of a row); may be empty.
    """
    pyplot = quiet_pyplot()
    columns = len(found) + 1 + bool(norms)
    figure, axes = pyplot.subplots(1, columns, figsize=(3.9 * columns, 3.5), layout="constrained")
    for cell, (name, of_kind) in zip(axes, found.items(), strict=False):
        draw_similarity(cell, name, of_kind)
    by_layer = axes[len(found)]
    for name, of_kind in found.items():
        places = list(of_kind["row_norms"])
        means = [numpy.mean(of_kind["row_norms"][layer]) for layer in places]
        by_layer.plot(places, means, marker="o", markersize=4, color=COLOURS[name], label=words(name))
    by_layer.set_title("row length by layer, at the end", fontsize=9)
    by_layer.set_xlabel("layer", fontsize=8)
    by_layer.xaxis.get_major_locator().set_params(integer=True)
    label_lengths(by_layer)
    if norms:
        over_training = axes[-1]
        for name in found:
            if name in norms:
                steps, lengths = zip(*norms[name], strict=True)
                over_training.plot(steps, lengths, color=COLOURS[name], label=words(name))
        over_training.set_title("mean row length over training", fontsize=9)
        over_training.set_xlabel("step", fontsize=8)
        label_lengths(over_training)
    return png(figure)


def label_lengths(axes: Any) -> None:  # noqa: ANN401
    """Finishes a panel of lengths, which start at 0."""
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7, frameon=False)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def draw_similarity(axes: Any, name: str, of_kind: dict[str, Any]) -> None:  # noqa: ANN401
    """Draws how alike the layers' rows are."""
    table, layers = numpy.array(of_kind["similarity"]), of_kind["layers"]
    axes.imshow(table, cmap="cividis", vmin=0, vmax=1)
    chance = of_kind["chance_of_similarity"]
    axes.set_title(f"{words(name)}: best-match cosine\nbetween layers (random rows: {chance:.2f})", fontsize=9)
    if len(layers) <= CELLS_WITH_NUMBERS:
        axes.set_xticks(range(len(layers)), layers, fontsize=7)
        axes.set_yticks(range(len(layers)), layers, fontsize=7)
        size = min(LETTERS, LETTERS_OF_A_ROW / len(layers))
        for (row, column), value in numpy.ndenumerate(table):
            colour = "k" if value > 0.5 else "w"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=size, color=colour)


def words(name: str) -> str:
    """Returns a part's name as people write it."""
    return name.replace("_", " ")

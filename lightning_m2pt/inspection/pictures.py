"""PNG figures of attention: activation of every column by layer, and patch attention laid over the picture."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy
import torch
from torch import Tensor

from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inputs.picture_map import PictureMap
from lightning_m2pt.inspection.activation import Activations, activations, span_means
from lightning_m2pt.inspection.heat import heat_map
from lightning_m2pt.inspection.samples import ShownSample, Side, numbered_names
from lightning_m2pt.inspection.span_colours import SPAN_COLOURS, SPAN_WORDS

Part = Literal["language", "vision"]
RESOLUTION = 150
COLUMNS_PER_INCH = 10.5
WIDEST = 100.0
"""Inches; above a thousand columns they stand closer."""
MOST_WORDS = 60
"""More question and answer tokens than that are not written below the heat map: nobody could read them."""
MOST_OVERLAYS = 5
TALLEST = 2.5
"""Times its width that a picture among overlays is tall at most; a taller one becomes narrower."""
LETTERS_OF_QUESTION = 110
TITLES = {"language": "language model", "vision": "vision encoder"}
AVERAGE = "mean"


def activations_of(side: Side, part: Part) -> Activations:
    """Returns a side's activations in the decoder, or in the tower: the mean over the tiles of the first picture."""
    if part == "language":
        return activations(side.attention.language)
    tiles = [activations(layers) for layers in side.attention.tiles_of(0)]
    return replace(tiles[0], values=torch.stack([each.values for each in tiles]).mean(dim=0))


def words_of(side: Side, part: Part, spans: Tensor) -> tuple[str, ...]:
    """Returns the names of the columns of ``activations_of``."""
    return side.tokens if part == "language" else numbered_names(spans)


def title_of(side: Side, part: Part) -> str:
    """Returns what a heat map is of."""
    pictures = side.attention.pictures if part == "vision" else ()
    tiles = len(pictures[0].tiles) if pictures else 1
    several = f", first of {len(pictures)} pictures" if len(pictures) > 1 else ""
    several += f", mean of {tiles} tiles" if tiles > 1 else ""
    return f"{TITLES[part]}{several}, {side.name}: answers “{shortened(side.answer)}”"


def aligned_columns(sides: Sequence[Activations]) -> list[list[int | None]]:
    """Puts the columns of several models below each other: the k-th of a span stands where the k-th one stands.

    Returns:
        For each side the number of its column at every place, None where it has no such column.
    """
    keys = [list(occurrences(side.spans.tolist())) for side in sides]
    places = list(keys[0])
    for other in keys[1:]:
        places += [key for key in other if key not in set(places)]
    numbers = [{key: number for number, key in enumerate(of_side)} for of_side in keys]
    return [[of_side.get(key) for key in places] for of_side in numbers]


def occurrences(spans: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yields every span with the number of times it occurred before."""
    counts: dict[int, int] = {}
    for span in spans:
        yield span, counts.get(span, 0)
        counts[span] = counts.get(span, 0) + 1


def activation_figure(sample: ShownSample, part: Part) -> bytes:
    """Returns a PNG: for each side a heat map (layers and their mean by columns) and the mean as bars.

    Args:
        sample: Its sides have at least one layer of the part.
        part: The decoder or the tower.
    """
    pyplot = quiet_pyplot()
    found = [activations_of(side, part) for side in sample.sides]
    places = aligned_columns(found)
    width = min(max(7.5, len(places[0]) / COLUMNS_PER_INCH + 1.6), WIDEST)
    rows, ratios = 2 * len(found), [1.0 + 0.16 * len(found[0].layers), 1.1] * len(found)
    figure, axes = pyplot.subplots(
        rows, 1, figsize=(width, 1.5 + 1.25 * sum(ratios)), gridspec_kw={"height_ratios": ratios}, layout="constrained"
    )
    # The first columns of a sequence can take most of everything; the scale is cut off where 98% of all cells end.
    highest = float(torch.cat([one.values.nan_to_num().flatten() for one in found]).quantile(0.98)) or 1.0
    tallest = max(float(one.average.nan_to_num().quantile(0.98)) for one in found) * 1.6
    for number, (side, activation, columns) in enumerate(zip(sample.sides, found, places, strict=True)):
        heat, bars = axes[2 * number], axes[2 * number + 1]
        image = draw_heat(heat, activation, columns, highest)
        heat.set_title(title_of(side, part), loc="left", fontsize=10)
        draw_bars(bars, activation, columns, tallest)
        label_words(bars, activation, columns, words_of(side, part, activation.spans))
        figure.colorbar(image, ax=heat, extend="max", pad=0.01, aspect=12).ax.tick_params(labelsize=7)
    figure.suptitle(f"{sample.question.set_name} {sample.question.id}: {shortened(sample.question.text)}", fontsize=11)
    return png(figure)


def draw_heat(axes: Any, activation: Activations, columns: list[int | None], highest: float) -> Any:  # noqa: ANN401
    """Draws layers and, below a gap, their mean; grey where a side has no such column."""
    values = torch.cat([activation.values, torch.full_like(activation.values[:1], float("nan"))])
    table = rearranged(torch.cat([values, activation.average[None]]), columns)
    axes.set_facecolor("#e4e4e4")
    image = axes.imshow(table, aspect="auto", cmap="cividis", vmin=0.0, vmax=highest, interpolation="nearest")
    labels = [str(layer) for layer in activation.layers]
    axes.set_yticks([*range(len(labels)), len(labels) + 1], [*labels, AVERAGE], fontsize=7)
    axes.set_ylabel("layer", fontsize=8)
    axes.set_xticks([])
    return image


def draw_bars(axes: Any, activation: Activations, columns: list[int | None], tallest: float) -> None:  # noqa: ANN401
    """Draws the mean over layers as bars in their spans' colours, with each span's name and mean per token above."""
    means = span_means(activation.average, activation.spans)
    spans = [None if column is None else Span(int(activation.spans[column])) for column in columns]
    heights = rearranged(activation.average[None], columns)[0]
    colours = [SPAN_COLOURS[span] if span is not None else "none" for span in spans]
    axes.bar(range(len(columns)), numpy.nan_to_num(heights), width=0.85, color=colours)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(0, tallest)
    for place in numpy.flatnonzero(numpy.nan_to_num(heights) > tallest):
        axes.annotate(f"{heights[place]:.2f}↑", (place, tallest), ha="center", va="top", fontsize=6, rotation=90)
    for span, mean in means.items():
        of_span = numpy.array([place for place, other in enumerate(spans) if other == span])
        axes.plot([], [], color=SPAN_COLOURS[span], linewidth=5, label=f"{SPAN_WORDS[span]} {100 * mean:.2f}%")
        for run in numpy.split(of_span, numpy.flatnonzero(numpy.diff(of_span) > 1) + 1):
            axes.hlines(mean, run[0] - 0.5, run[-1] + 0.5, color="#1a1a1a", linewidth=0.7, linestyle=":")
    axes.legend(
        loc="upper right", fontsize=6.5, ncols=len(means), frameon=False, title="mean a token", title_fontsize=6.5
    )
    axes.tick_params(labelsize=7)
    axes.set_ylabel("mean of layers", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def label_words(axes: Any, activation: Activations, columns: list[int | None], words: Sequence[str]) -> None:  # noqa: ANN401
    """Writes question and answer tokens below the bars, if they are few enough to be read."""
    shown = [
        (place, without_formulas(words[column].strip()))
        for place, column in enumerate(columns)
        if column is not None and int(activation.spans[column]) in (Span.QUESTION, Span.ANSWER, Span.CLS)
    ]
    if len(shown) > MOST_WORDS:
        shown = shown[-MOST_WORDS:]
    axes.set_xticks([place for place, _ in shown], [word for _, word in shown], rotation=90, fontsize=6)


def rearranged(values: torch.Tensor, columns: list[int | None]) -> numpy.ndarray:
    """Returns (L, places) with the side's columns where they belong and NaN where it has none."""
    table = numpy.full((len(values), len(columns)), numpy.nan)
    for place, column in enumerate(columns):
        if column is not None:
            table[:, place] = values[:, column].numpy()
    return table


@dataclass(frozen=True)
class Overlay:
    """What is laid over a picture.

    Attributes:
        heat: (h, w) in the picture's order, square cells from its upper left corner.
        cell: Their side in the picture's pixels.
        share: What all of the picture's patches get together.
        highest: What the highest patch gets.
    """

    heat: numpy.ndarray
    cell: float
    share: float
    highest: float


def overlay_of(values: Tensor, boxes: Tensor, picture: PictureMap) -> Overlay:
    """Returns values (R,) of patches laid over their picture, each where it lies (R, 4)."""
    heat, cell = heat_map(values, boxes, picture)
    return Overlay(heat, cell, float(values.sum()), float(values.max()))


def patch_attention(side: Side, row: int, picture: int = 0) -> Overlay:
    """Returns what a row of the decoder gives to one picture's patches, mean of all heads and layers that are there."""
    from_end = len(side.tokens) - row
    given = []
    for layer in side.attention.language:
        of_row = layer.probabilities[:, -from_end].mean(dim=0)
        given.append(of_row[layer.spans == Span.PATCH])
    pictures = side.attention.pictures
    own = torch.stack(given).mean(dim=0).float().split([len(each.rows) for each in pictures])[picture]
    return overlay_of(own, pictures[picture].rows, pictures[picture])


def tower_attention(side: Side, picture: int = 0) -> Overlay:
    """Returns the activations of one picture's patches in the tower, mean of layers and of its tiles."""
    layout, tiles = side.attention.pictures[picture], side.attention.tiles_of(picture)
    found = [activations(layers) for layers in tiles]
    patches = torch.cat([each.average[each.spans == Span.PATCH].float() for each in found]) / len(tiles)
    return overlay_of(patches, torch.cat([tile.cells() for tile in layout.tiles]), layout)


def chosen_rows(side: Side, words: Sequence[str]) -> list[tuple[int, str]]:
    """Returns rows of the decoder with what stands above their overlays.

    Args:
        side: The model.
        words: Question or answer tokens to look from; without any, the rows that chose the answer's tokens.
    """
    if not words:
        chosen = [(row, f"choosing “{without_formulas(piece.strip())}”") for row, piece in side.predicts.items()]
        return chosen[:MOST_OVERLAYS]
    spans = max((layer.spans for layer in side.attention.language), key=len)
    wanted = {word.lower() for word in words}
    rows = [
        (row, f"from “{without_formulas(token.strip())}”")
        for row, token in enumerate(side.tokens)
        if int(spans[row]) in (Span.QUESTION, Span.ANSWER) and token.strip().lower() in wanted
    ]
    return rows[:MOST_OVERLAYS]


def overlay_figure(sample: ShownSample, words: Sequence[str] = ()) -> bytes:
    """Returns a PNG: each picture, the tower's patch activation, and patch attention of rows of the decoder.

    Args:
        sample: It has at least one picture.
        words: As for ``chosen_rows``.
    """
    pyplot = quiet_pyplot()
    numbers, tallest = range(len(sample.pictures)), max(each.shape[0] / each.shape[1] for each in sample.pictures)
    rows = [(side, number, overlays_of(side, number, words)) for side in sample.sides for number in numbers]
    columns = 1 + max(len(overlays) for _, _, overlays in rows)
    figure, axes = pyplot.subplots(
        len(rows),
        columns,
        figsize=(2.15 * columns, (0.75 + 2 * min(tallest, TALLEST)) * len(rows) + 0.5),
        squeeze=False,
        layout="constrained",
    )
    for (side, number, overlays), of_side in zip(rows, axes, strict=True):
        picture = sample.pictures[number]
        of_side[0].imshow(picture, interpolation="nearest")
        of_side[0].set_title(f"{side.name}:\n“{shortened(side.answer, 24)}”", fontsize=9)
        for cell, (overlay, title) in zip(of_side[1:], overlays, strict=False):
            draw_overlay(cell, picture, overlay.heat, overlay.cell)
            cell.set_title(title, fontsize=8)
            cell.set_xlabel(f"patches {100 * overlay.share:.0f}%, highest {100 * overlay.highest:.1f}%", fontsize=7)
        for cell in of_side:
            cell.set_xticks([])
            cell.set_yticks([])
        for cell in of_side[1 + len(overlays) :]:
            cell.set_axis_off()
    title = f"{sample.question.set_name} {sample.question.id}: {shortened(sample.question.text, 30 * columns)}"
    figure.suptitle(f"{title}\n(each overlay is scaled to its own highest place)", fontsize=9)
    return png(figure)


def overlays_of(side: Side, picture: int, words: Sequence[str]) -> list[tuple[Overlay, str]]:
    """Returns what is laid over one picture for one model, each with its title."""
    found = []
    if side.attention.tiles_of(picture)[0]:
        found.append((tower_attention(side, picture), "vision encoder,\nall queries"))
    for row, title in chosen_rows(side, words) if side.attention.language else []:
        found.append((patch_attention(side, row, picture), f"language model,\n{title}"))
    return found


def draw_overlay(axes: Any, picture: numpy.ndarray, heat: numpy.ndarray, cell: float) -> None:  # noqa: ANN401
    """Draws the picture in grey under attention; the more of it, the brighter and the less transparent.

    Args:
        axes: matplotlib's.
        picture: (H, W, 3) uint8.
        heat: (h, w) in square cells from the picture's upper left corner.
        cell: Their side in the picture's pixels.
    """
    height, width = picture.shape[:2]
    axes.imshow(picture.mean(axis=2), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    scaled = heat / max(float(heat.max()), 1e-12)
    axes.imshow(
        scaled,
        cmap="inferno",
        alpha=0.25 + 0.6 * scaled,
        vmin=0,
        vmax=1,
        extent=(-0.5, heat.shape[1] * cell - 0.5, heat.shape[0] * cell - 0.5, -0.5),
        interpolation="nearest",
    )
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


def shortened(text: str, letters: int = LETTERS_OF_QUESTION) -> str:
    """Returns a text on one line that fits a title."""
    line = " ".join(text.split())
    return without_formulas(line if len(line) <= letters else line[: letters - 1] + "…")


def without_formulas(text: str) -> str:
    """Returns a text in which matplotlib takes nothing between two dollar signs for a formula."""
    return text.replace("$", r"\$")


def quiet_pyplot() -> Any:  # noqa: ANN401
    """Returns matplotlib's pyplot, drawing to memory."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def png(figure: Any) -> bytes:  # noqa: ANN401
    """Returns a figure as PNG and lets it go."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=RESOLUTION, facecolor="white")
    quiet_pyplot().close(figure)
    return file.getvalue()

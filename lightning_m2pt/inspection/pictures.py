"""PNG figures of attention: activation of every column by layer, and patch attention laid over the picture."""

import io
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy
import torch

from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inspection.activation import Activations, activations, span_means
from lightning_m2pt.inspection.attention import LayerAttention
from lightning_m2pt.inspection.samples import ShownSample, Side
from lightning_m2pt.inspection.span_colours import SPAN_COLOURS, SPAN_WORDS

Part = Literal["language", "vision"]
RESOLUTION = 150
COLUMNS_PER_INCH = 10.5
MOST_WORDS = 60
"""More question and answer tokens than that are not written below the heat map: nobody could read them."""
MOST_OVERLAYS = 5
LETTERS_OF_QUESTION = 110
TITLES = {"language": "language model", "vision": "vision encoder"}
AVERAGE = "mean"


def layers_of(side: Side, part: Part) -> tuple[LayerAttention, ...]:
    """Returns a side's layers of the decoder or of the tower."""
    return side.attention.language if part == "language" else side.attention.vision[0]


def words_of(side: Side, part: Part) -> tuple[str, ...]:
    """Returns the names of the columns of ``layers_of``."""
    return side.tokens if part == "language" else side.vision_tokens


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
    found = [activations(layers_of(side, part)) for side in sample.sides]
    places = aligned_columns(found)
    width = max(7.5, len(places[0]) / COLUMNS_PER_INCH + 1.6)
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
        heat.set_title(f"{TITLES[part]}, {side.name}: answers “{shortened(side.answer)}”", loc="left", fontsize=10)
        draw_bars(bars, activation, columns, tallest)
        label_words(bars, activation, columns, words_of(side, part))
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


def patch_attention(side: Side, row: int) -> tuple[numpy.ndarray, float]:
    """Returns what a row of the decoder gives to the patches, over all heads and the layers that are there.

    Returns:
        (h, w) in the picture's order, and the share of the row's attention that all patches get together.
    """
    from_end = len(side.tokens) - row
    given = []
    for layer in side.attention.language:
        of_row = layer.probabilities[:, -from_end].mean(dim=0)
        given.append(of_row[layer.spans == Span.PATCH])
    patches = torch.stack(given).mean(dim=0).float()
    return square(patches), float(patches.sum())


def tower_attention(side: Side) -> tuple[numpy.ndarray, float]:
    """Returns the patches' activations in the tower, mean of layers, as (h, w), and their sum."""
    found = activations(side.attention.vision[0])
    patches = found.average[found.spans == Span.PATCH].float()
    return square(patches), float(patches.sum())


def square(patches: torch.Tensor) -> numpy.ndarray:
    """Returns (N,) patches as (sqrt N, sqrt N)."""
    edge = round(len(patches) ** 0.5)
    return patches.reshape(edge, edge).numpy()


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
    """Returns a PNG: the picture, the tower's patch activation, and patch attention of rows of the decoder."""
    pyplot = quiet_pyplot()
    rows = []
    for side in sample.sides:
        cells = [(*tower_attention(side), "vision encoder,\nall queries")] if side.attention.vision[0] else []
        chosen = chosen_rows(side, words) if side.attention.language else []
        cells += [(*patch_attention(side, row), f"language model,\n{title}") for row, title in chosen]
        rows.append(cells)
    columns = 1 + max(map(len, rows))
    figure, axes = pyplot.subplots(
        len(rows), columns, figsize=(2.15 * columns, 2.75 * len(rows) + 0.5), squeeze=False, layout="constrained"
    )
    for side, cells, of_side in zip(sample.sides, rows, axes, strict=True):
        of_side[0].imshow(sample.picture, interpolation="nearest")
        of_side[0].set_title(f"{side.name}:\n“{shortened(side.answer, 24)}”", fontsize=9)
        for cell, (patches, share, title) in zip(of_side[1:], cells, strict=False):
            draw_overlay(cell, sample.picture, patches)
            cell.set_title(title, fontsize=8)
            cell.set_xlabel(f"patches {100 * share:.0f}%, highest {100 * patches.max():.1f}%", fontsize=7)
        for cell in of_side:
            cell.set_xticks([])
            cell.set_yticks([])
        for cell in of_side[1 + len(cells) :]:
            cell.set_axis_off()
    title = f"{sample.question.set_name} {sample.question.id}: {shortened(sample.question.text, 30 * columns)}"
    figure.suptitle(f"{title}\n(each overlay is scaled to its own highest patch)", fontsize=9)
    return png(figure)


def draw_overlay(axes: Any, picture: numpy.ndarray, patches: numpy.ndarray) -> None:  # noqa: ANN401
    """Draws the picture in grey under the patches' attention; the more of it, the brighter and the less transparent."""
    height, width = picture.shape[:2]
    axes.imshow(picture.mean(axis=2), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    scaled = patches / max(float(patches.max()), 1e-12)
    axes.imshow(
        scaled,
        cmap="inferno",
        alpha=0.25 + 0.6 * scaled,
        vmin=0,
        vmax=1,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="nearest",
    )


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

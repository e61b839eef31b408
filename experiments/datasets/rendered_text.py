"""Rendered samples in a terminal: supervised text stands out by colour, and in brackets where there are no colours."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from experiments.datasets.rendered_sample import RenderedSample, Stretch
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.visible_text import visible

SUPERVISED, PICTURE, SPECIAL, QUIET = "bold black on green", "black on cyan", "magenta", "dim"
BRACKETS = ("⟦", "⟧")


def shown_samples(samples: Sequence[RenderedSample], facts: Sequence[str], console: Console) -> Iterator[Text]:
    """Yields what is shown of samples, a block each.

    Args:
        samples: What to show.
        facts: What is said of the set first, a line each.
        console: Where it is shown: colour or brackets.
    """
    has_colours = console.color_system is not None and not console.no_color
    yield from (Text(visible(fact)) for fact in facts)
    yield legend(has_colours)
    for sample in samples:
        yield Text(f"\n{visible(sample.id)}  ({visible(sample.source)})", style="bold")
        supervised = f"{sample.supervised:,} of them supervised"
        yield Text(f"{sample.tokens:,} tokens, {supervised}, {sample.rows:,} rows in all", style=QUIET)
        yield from (Text(visible(note), style="bold red") for note in sample.notes)
        yield styled(sample.stretches, has_colours)


def legend(has_colours: bool) -> Text:
    """Returns what the colours or brackets mean."""
    apart = Stretch("   ", Span.QUESTION)
    supervised = Stretch("supervised text, end tokens too", Span.ANSWER, is_supervised=True)
    picture = Stretch("[image x ROWS]", Span.IMAGE)
    special = Stretch("special tokens", Span.QUESTION, is_special=True)
    return styled([supervised, apart, picture, apart, special], has_colours)


def styled(stretches: Sequence[Stretch], has_colours: bool) -> Text:
    """Returns stretches in their styles, what is supervised in brackets where there are no colours."""
    parts: list[tuple[str, str]] = []
    is_open = False
    for stretch in stretches:
        if stretch.is_supervised != is_open and not has_colours:
            parts.append((BRACKETS[is_open], ""))
        is_open = stretch.is_supervised
        parts.append((visible(stretch.text, "\n\t").replace("\n", "↵\n"), style_of(stretch)))
    if is_open and not has_colours:
        parts.append((BRACKETS[True], ""))
    return Text.assemble(*parts)


def style_of(stretch: Stretch) -> str:
    """Returns how a stretch looks; what is supervised looks so whatever else it is."""
    if stretch.is_supervised:
        return SUPERVISED
    if stretch.span == Span.IMAGE:
        return PICTURE
    if stretch.is_special:
        return SPECIAL
    return QUIET if stretch.span == Span.SYSTEM else ""

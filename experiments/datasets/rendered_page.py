"""Rendered samples as one HTML page that needs nothing else: pictures are inside, and no script."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape as escape_html
from io import BytesIO

from PIL import Image

from experiments.datasets.picture_looks import whole
from experiments.datasets.rendered_sample import RenderedSample, Stretch
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.visible_text import visible

LARGEST_SIDE = 320
STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1b1b; --quiet: #595959; --line: #d4d4d4;
  --taught: #bfe8cf; --under: #00664a; --picture: #cfe3f7; --special: #7a1f8a; --alarm: #a33c00; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --ink: #e9e9e6; --quiet: #a9a9a4; --line: #3d4045;
  --taught: #14503a; --under: #5fd0ab; --picture: #1d4166; --special: #e0a3ee; --alarm: #ffa477; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 74rem; padding: 0 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 1.2rem 0 .5rem; }
h2 { font-size: 1.05rem; margin: 0; }
small { color: var(--quiet); font-size: .85rem; }
article { border-top: 1px solid var(--line); padding: 1rem 0; display: grid; gap: .3rem 1.2rem;
  grid-template-columns: minmax(0, 1fr); }
article.seen { grid-template-columns: 15rem minmax(0, 1fr); }
article > div { min-width: 0; }
article img { width: 100%; height: auto; image-rendering: pixelated; border: 1px solid var(--line); }
article img.large { image-rendering: auto; }
.text { white-space: pre-wrap; margin: .5rem 0 0; font-family: ui-monospace, "DejaVu Sans Mono", monospace;
  font-size: .9rem; line-height: 1.7; }
.system { color: var(--quiet); }
.taught { background: var(--taught); border-bottom: 3px solid var(--under); padding: .1rem 0; color: var(--ink); }
.picture { background: var(--picture); border-radius: .3rem; padding: .1rem .4rem; white-space: nowrap; }
.special { color: var(--special); font-weight: 600; }
.break { color: var(--quiet); }
.alarm { color: var(--alarm); font-weight: 600; margin: .3rem 0 0; }
@media (max-width: 620px) { article.seen { grid-template-columns: minmax(0, 1fr); }
  article.seen img { max-width: 15rem; } }
"""


def page_of_samples(title: str, facts: Sequence[str], samples: Sequence[RenderedSample]) -> str:
    """Returns the page.

    Args:
        title: What the set is called.
        facts: What is said of the set first, a line each.
        samples: What to show.
    """
    told = "".join(f"<li>{escaped(fact)}</li>" for fact in facts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # A browser that obeys this loads nothing, whatever a text in the page tries.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{escaped(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escaped(title)}</h1>\n<ul>{told}</ul>\n<p>{legend()}</p>\n"
        + "\n".join(article(sample) for sample in samples)
        + "\n</main>\n</body>\n</html>\n"
    )


def legend() -> str:
    """Returns what the colours mean, as HTML."""
    kinds = (
        Stretch("supervised text, end tokens too", Span.ANSWER, is_supervised=True),
        Stretch("[image x rows]", Span.IMAGE),
        Stretch("special tokens", Span.QUESTION, is_special=True),
        Stretch("the template's system text", Span.SYSTEM),
    )
    return " &nbsp; ".join(stretch_html(kind) for kind in kinds)


def article(sample: RenderedSample) -> str:
    """Returns one sample as HTML: its pictures, its numbers, its text."""
    pictures = "".join(picture_html(whole(picture), picture.key) for picture in sample.pictures)
    notes = "".join(f'<p class="alarm">{escaped(note)}</p>' for note in sample.notes)
    counts = f"{sample.tokens:,} tokens, {sample.supervised:,} of them supervised, {sample.rows:,} rows in all"
    text = "".join(map(stretch_html, sample.stretches))
    return (
        f'<article class="{"seen" if pictures else "unseen"}">'
        + (f"<div>{pictures}</div>" if pictures else "")
        + f"<div><h2>{escaped(sample.id)}</h2><small>{escaped(sample.source)}: {counts}</small>{notes}"
        + f'<p class="text">{text}</p></div></article>'
    )


def picture_html(image: Image.Image | None, name: str) -> str:
    """Returns a picture, at most so large, or words in its place."""
    if image is None:
        return f'<p class="alarm">{escaped(name)} cannot be read</p>'
    is_large = max(image.size) > LARGEST_SIDE
    if is_large:
        image = image.copy()
        image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    file = BytesIO()
    image.save(file, format="JPEG" if is_large else "PNG", **({"quality": 85} if is_large else {"optimize": True}))
    address = f"data:image/{'jpeg' if is_large else 'png'};base64,{b64encode(file.getvalue()).decode()}"
    return f'<img class="{"large" if is_large else "small"}" alt="{escaped(name)}" src="{address}">'


def stretch_html(stretch: Stretch) -> str:
    """Returns a stretch of text as HTML, its line breaks after a sign."""
    kinds = [
        name
        for name, applies in (
            ("taught", stretch.is_supervised),
            ("picture", stretch.span == Span.IMAGE),
            ("special", stretch.is_special),
            ("system", stretch.span == Span.SYSTEM and not stretch.is_special),
        )
        if applies
    ]
    text = escaped(stretch.text, "\n\t").replace("\n", '<i class="break">↵</i>\n')
    element = "mark" if stretch.is_supervised else "span"
    return f'<{element} class="{" ".join(kinds)}">{text}</{element}>' if kinds else text


def escaped(text: str, kept: str = "") -> str:
    """Returns any text as it can stand in the page."""
    return escape_html(visible(text, kept))

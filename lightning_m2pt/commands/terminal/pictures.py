"""A picture in a terminal: by the terminal's own protocol where it has one, or as half blocks in colour.

A half block is a cell whose upper half has the letter's colour and whose lower half the background's: two square pixels
on top of each other. Kitty's graphics protocol and iTerm2's inline images take a whole PNG between two escape
sequences. Nothing of this is ever written where no terminal reads.
"""

import base64
import os
import sys
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Literal

from PIL import Image
from rich.style import Style
from rich.text import Text

from lightning_m2pt.system.console import OUT

Way = Literal["kitty", "iterm", "blocks", "none"]
COLUMNS, LINES = 48, 16
"""The most that a picture takes of the terminal."""
PIXELS_OF_CELL = 12
"""Of a cell's width, in pictures that the terminal draws itself; a cell is twice as high."""
CHUNK = 4096
"""Letters of one escape sequence of Kitty's."""
UPPER_HALF = "\u2580"
COLOURS = ("truecolor", "256", "windows")


def show_picture(picture: Image.Image) -> None:
    """Shows a picture on standard output, if that is a terminal that can.

    Args:
        picture: 8-bit RGB.
    """
    way = way_of_terminal(os.environ)
    if way == "none":
        return
    columns = min(COLUMNS, OUT.width - 1)
    if way == "blocks":
        OUT.print(half_blocks(fitted(picture, columns, 2 * LINES)))
        return
    small = fitted(picture, columns * PIXELS_OF_CELL, 2 * LINES * PIXELS_OF_CELL)
    width = max(1, -(-small.width // PIXELS_OF_CELL))
    drawn = kitty_sequences(small, width) if way == "kitty" else iterm_sequences(small, width)
    for sequence in drawn:
        sys.stdout.write(sequence)
    sys.stdout.write("\n")
    sys.stdout.flush()


def way_of_terminal(environment: Mapping[str, str]) -> Way:
    """Returns how standard output shows pictures.

    Args:
        environment: The process's variables. A multiplexer does not hand pictures on, whatever terminal it is in.
    """
    if not sys.stdout.isatty() or OUT.color_system not in COLOURS or OUT.encoding.lower().replace("-", "") != "utf8":
        return "none"
    kind, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "TMUX" in environment or kind.startswith(("screen", "tmux")):
        return "blocks"
    if kind in ("xterm-kitty", "xterm-ghostty"):
        return "kitty"
    return "iterm" if program in ("iTerm.app", "WezTerm") else "blocks"


def fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Returns a picture as large as fits into so many pixels, never enlarged beyond what it has."""
    factor = min(width / picture.width, height / picture.height, 1.0)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.LANCZOS) if size != picture.size else picture


def half_blocks(picture: Image.Image) -> Text:
    """Returns a picture as lines of half blocks, two of its lines each; a last odd line has no background."""
    pixels, drawn = picture.load(), Text()
    assert pixels is not None
    for line in range(0, picture.height, 2):
        for column in range(picture.width):
            upper = colour(pixels[column, line])
            lower = colour(pixels[column, line + 1]) if line + 1 < picture.height else None
            drawn.append(UPPER_HALF, Style(color=upper, bgcolor=lower))
        if line + 2 < picture.height:
            drawn.append("\n")
    return drawn


def colour(pixel: object) -> str:
    """Returns a colour as rich reads it."""
    assert isinstance(pixel, tuple)
    red, green, blue = pixel
    return f"#{red:02x}{green:02x}{blue:02x}"


def kitty_sequences(picture: Image.Image, columns: int) -> Iterator[str]:
    """Yields the escape sequences of Kitty's graphics protocol that show a picture in so many columns."""
    encoded = as_png(picture)
    chunks = [encoded[begin : begin + CHUNK] for begin in range(0, len(encoded), CHUNK)]
    for number, chunk in enumerate(chunks):
        first = f"a=T,f=100,q=2,c={columns}," if number == 0 else ""
        yield f"\x1b_G{first}m={int(number + 1 < len(chunks))};{chunk}\x1b\\"


def iterm_sequences(picture: Image.Image, columns: int) -> Iterator[str]:
    """Yields the escape sequence of iTerm2's inline images that shows a picture in so many columns."""
    yield f"\x1b]1337;File=inline=1;width={columns};preserveAspectRatio=1:{as_png(picture)}\x07"


def as_png(picture: Image.Image) -> str:
    """Returns a picture as PNG in base64."""
    file = BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")

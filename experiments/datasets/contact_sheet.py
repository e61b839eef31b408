"""Contact sheets: pictures in rows, enlarged so that their pixels can be seen, with questions and answers below.

Drawn with Pillow, so that one pixel of a small picture becomes one block of equal pixels. A picture larger than its
place is shrunk. The letters are matplotlib's DejaVu Sans.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

WHITE, BLACK, GREY, FRAME, ANSWER_COLOUR = "#ffffff", "#1a1a1a", "#6b6b6b", "#c8c8c8", "#0b5c2e"
MARGIN = 20
GAP = 18
SPACE_ABOVE_QUESTION = 6
ELLIPSIS = "…"
NARROWEST_SHEET = 520


@dataclass(frozen=True)
class ShownQuestion:
    """One question about a picture and its right answer."""

    id: str
    subtask: str
    text: str
    answer: str


@dataclass(frozen=True)
class ShownPicture:
    """A picture (RGB) and some of what is asked about it.

    Attributes:
        image: The picture as it is stored, not enlarged.
        questions: The questions to show.
        asked: How many questions the set asks about the picture.
    """

    image: Image.Image
    questions: tuple[ShownQuestion, ...]
    asked: int


@dataclass(frozen=True)
class ShownSet:
    """Pictures of one set.

    Attributes:
        name: The set's name.
        facts: What else is said about the set, in short phrases.
        pictures: The pictures to show.
    """

    name: str
    facts: tuple[str, ...]
    pictures: tuple[ShownPicture, ...]


@dataclass(frozen=True)
class CellStyle:
    """How much room a picture and its texts get.

    Attributes:
        side: Width and height, in pixels of the sheet, that a picture is enlarged or shrunk to at most.
        questions: Questions shown below a picture at most.
        question_lines: Lines of one question at most; what is cut off ends in an ellipsis.
        answer_lines: Lines of one answer at most.
        font_size: Height of the letters.
    """

    side: int = 240
    questions: int = 6
    question_lines: int = 5
    answer_lines: int = 3
    font_size: int = 14


SINGLE = CellStyle()
OVERVIEW = CellStyle(side=192, questions=4, question_lines=4, answer_lines=3, font_size=13)
LABEL_WIDTH = 190


@dataclass(frozen=True)
class TextLine:
    """One line of text, already wrapped."""

    text: str
    colour: str
    size: int
    is_bold: bool = False
    space_above: int = 0

    @property
    def height(self) -> int:
        """Room the line takes, with the space above it."""
        return self.space_above + math.ceil(1.3 * self.size)


@lru_cache(maxsize=16)
def letters(size: int, is_bold: bool = False) -> ImageFont.FreeTypeFont:
    """Returns the font of the sheets."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if is_bold else "DejaVuSans.ttf"
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def printable(text: str) -> str:
    """Returns a text on one line, without control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def wrapped(text: str, width: float, most_lines: int, measure: Callable[[str], float]) -> list[str]:
    """Returns a text in lines no wider than ``width``; a last line that does not end the text ends in an ellipsis.

    Args:
        text: Any text; line breaks in it count as spaces.
        width: Room for a line, in the unit of ``measure``.
        most_lines: Lines at most.
        measure: Returns the width of a text.
    """
    lines: list[str] = []
    line = ""
    for word in printable(text).split():
        if len(lines) > most_lines:
            break
        longer = f"{line} {word}" if line else word
        if line and measure(longer) > width:
            lines.append(line)
            longer = word
        while measure(longer) > width and len(longer) > 1 and len(lines) <= most_lines:
            fitting = longest_fitting(longer, width, measure)
            lines.append(longer[:fitting])
            longer = longer[fitting:]
        line = longer
    lines.append(line)
    if len(lines) <= most_lines:
        return lines
    last = lines[most_lines - 1]
    while last and measure(last + ELLIPSIS) > width:
        last = last[:-1]
    return [*lines[: most_lines - 1], last.rstrip() + ELLIPSIS]


def longest_fitting(text: str, width: float, measure: Callable[[str], float]) -> int:
    """Returns how many letters from the start of a text fit, at least one."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if measure(text[:middle]) <= width else (low, middle - 1)
    return low


def text_lines(
    text: str, width: int, most_lines: int, colour: str, size: int, *, is_bold: bool = False
) -> list[TextLine]:
    """Returns a text as wrapped lines of one colour; no lines for an empty text."""
    measure = letters(size, is_bold).getlength
    lines = wrapped(text, width, most_lines, measure) if printable(text) else []
    return [TextLine(line, colour, size, is_bold) for line in lines]


def fitted_picture(image: Image.Image, side: int) -> Image.Image:
    """Returns a picture that fits a square.

    A small one is enlarged by a whole number, each pixel to a block of equal pixels; a big one is shrunk.
    """
    longest = max(image.size)
    if longest <= side:
        factor = side // longest
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    size = (max(1, round(image.width * side / longest)), max(1, round(image.height * side / longest)))
    return image.resize(size, Image.Resampling.LANCZOS)


def cell_lines(picture: ShownPicture, style: CellStyle) -> list[TextLine]:
    """Returns the lines below a picture: subtask, then question and answer, one after the other."""
    size, lines = style.font_size, list[TextLine]()
    shown = picture.questions[: style.questions]
    subtask = ""
    for question in shown:
        block = text_lines(question.subtask, style.side, 1, GREY, size - 2) if question.subtask != subtask else []
        block += text_lines(question.text, style.side, style.question_lines, BLACK, size)
        block += text_lines(question.answer, style.side, style.answer_lines, ANSWER_COLOUR, size, is_bold=True)
        subtask = question.subtask
        lines += [replace(line, space_above=SPACE_ABOVE_QUESTION) for line in block[:1]] + block[1:]
    more = picture.asked - len(shown)
    if more:
        lines += text_lines(f"+ {more:,} more question{'s' * (more > 1)}", style.side, 1, GREY, size - 2)
    return lines


def draw_lines(sheet: Image.Image, lines: Sequence[TextLine], left: int, top: int) -> None:
    """Writes lines below each other."""
    draw = ImageDraw.Draw(sheet)
    for line in lines:
        draw.text((left, top + line.space_above), line.text, fill=line.colour, font=letters(line.size, line.is_bold))
        top += line.height


def lines_height(lines: Sequence[TextLine]) -> int:
    """Returns the height of lines below each other."""
    return sum(line.height for line in lines)


def row_of_pictures(pictures: Sequence[ShownPicture], style: CellStyle) -> Image.Image:
    """Returns a strip with pictures side by side, each centred in its place above its texts."""
    images = [fitted_picture(picture.image, style.side) for picture in pictures]
    texts = [cell_lines(picture, style) for picture in pictures]
    above = max(image.height for image in images) + 2
    height = above + max(map(lines_height, texts))
    strip = Image.new("RGB", (len(pictures) * (style.side + GAP) - GAP + 2, height), WHITE)
    for number, (image, lines) in enumerate(zip(images, texts, strict=True)):
        left = 1 + number * (style.side + GAP)
        corner = (left + (style.side - image.width) // 2, 1 + (above - 2 - image.height) // 2)
        frame = (corner[0] - 1, corner[1] - 1, corner[0] + image.width, corner[1] + image.height)
        ImageDraw.Draw(strip).rectangle(frame, outline=FRAME)
        strip.paste(image, corner)
        draw_lines(strip, lines, left, above)
    return strip


def columns_for(count: int) -> int:
    """Returns how many pictures stand side by side."""
    return min(count, 4 if count <= 12 else 6 if count <= 60 else 10)


def stacked(title: str, facts: Sequence[str], parts: Sequence[Image.Image]) -> Image.Image:
    """Returns a sheet: title, a line of facts, then the parts below each other."""
    width = max(NARROWEST_SHEET, *(part.width for part in parts))
    head = text_lines(title, width, 2, BLACK, 24, is_bold=True)
    head += text_lines(" · ".join(facts), width, 3, GREY, 14)
    height = lines_height(head) + sum(part.height + GAP for part in parts)
    sheet = Image.new("RGB", (width + 2 * MARGIN, height + 2 * MARGIN), WHITE)
    draw_lines(sheet, head, MARGIN, MARGIN)
    top = MARGIN + lines_height(head) + GAP
    for part in parts:
        sheet.paste(part, (MARGIN, top))
        top += part.height + GAP
    return sheet


def sheet_of_set(shown: ShownSet) -> Image.Image:
    """Returns the contact sheet of one set."""
    columns = columns_for(len(shown.pictures))
    rows = [shown.pictures[start : start + columns] for start in range(0, len(shown.pictures), columns)]
    return stacked(shown.name, shown.facts, [row_of_pictures(row, SINGLE) for row in rows])


def sheet_of_sets(title: str, facts: Sequence[str], sets: Sequence[ShownSet]) -> Image.Image:
    """Returns one sheet with a labelled row for every set."""
    rows = []
    strips = [row_of_pictures(shown.pictures, OVERVIEW) for shown in sets]
    widest = max(strip.width for strip in strips)
    for shown, pictures in zip(sets, strips, strict=True):
        label = text_lines(shown.name, LABEL_WIDTH, 2, BLACK, 18, is_bold=True)
        for fact in shown.facts:
            label += text_lines(fact, LABEL_WIDTH, 3, GREY, 12)
        height = max(pictures.height, lines_height(label)) + GAP
        row = Image.new("RGB", (LABEL_WIDTH + GAP + widest, height), WHITE)
        ImageDraw.Draw(row).line((0, 0, row.width, 0), fill=FRAME)
        draw_lines(row, label, 0, GAP)
        row.paste(pictures, (LABEL_WIDTH + GAP, GAP))
        rows.append(row)
    return stacked(title, facts, rows)

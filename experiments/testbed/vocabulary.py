"""The words of the testbed's world: what objects are called, how they look and where they stand."""

SHAPES = ("circle", "square", "triangle", "diamond", "plus", "cross", "ring", "frame", "bar", "moon")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NAMES = SHAPES + DIGITS
COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan", "white")
SIZES = ("small", "large")
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "center", "right")
NOTHING = "nothing"
"""The answer, and the word of a cell, where no object stands."""

MAXIMUM_OBJECTS = 4
CELLS = tuple((row, column) for row in ROWS for column in COLUMNS)
"""All positions as (row, column), in reading order."""

SHAPE_WEIGHTS = {
    "circle": 3.0,
    "square": 2.5,
    "triangle": 2.0,
    "diamond": 1.5,
    "plus": 1.2,
    "cross": 1.0,
    "ring": 1.0,
    "frame": 0.8,
    "bar": 0.8,
    "moon": 0.7,
}
"""How often shapes occur: unequal, so that POPE's "popular" negatives mean something."""

PARTNERS = {
    "circle": "square",
    "square": "circle",
    "triangle": "diamond",
    "diamond": "triangle",
    "plus": "cross",
    "cross": "plus",
    "ring": "frame",
    "frame": "ring",
    "bar": "moon",
    "moon": "bar",
}
"""Which shape likes to stand beside which, so that POPE's "adversarial" negatives mean something."""


def article(name: str) -> str:
    """Returns ``a`` or ``an``, whichever stands before the name."""
    return "an" if name[0] in "aeiou" and name != "one" else "a"

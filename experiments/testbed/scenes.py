"""Scenes: which objects stand where. Sampling is seeded and knows nothing of pictures or words around them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from experiments.testbed.vocabulary import (
    CELLS,
    COLOURS,
    COLUMNS,
    DIGITS,
    NAMES,
    PARTNERS,
    ROWS,
    SHAPE_WEIGHTS,
    SHAPES,
    SIZES,
)

OBJECT_COUNTS = (1, 2, 2, 3, 3, 4)
"""Numbers of objects, each as often as it stands here."""
DIGIT_PROBABILITY = 0.3
PARTNER_PROBABILITY = 0.4
SINGLE_PROBABILITY = 0.12
"""Share of pretraining and tuning scenes with one object alone, half of them shapes and half digits."""


@dataclass(frozen=True)
class SceneObject:
    """One object: its name (shape or digit), its looks, and its cell."""

    name: str
    colour: str
    size: str
    row: str
    column: str

    @property
    def cell(self) -> int:
        """Index of the object's cell in reading order, 0 to 8."""
        return CELLS.index((self.row, self.column))

    @property
    def is_digit(self) -> bool:
        """Whether the object is a digit."""
        return self.name in DIGITS

    @property
    def words(self) -> tuple[str, str, str, str, str]:
        """Size, colour, name, row, column: how captions and slots describe an object."""
        return (self.size, self.colour, self.name, self.row, self.column)


@dataclass(frozen=True)
class Scene:
    """One to four objects with different names in different cells, in reading order."""

    objects: tuple[SceneObject, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The objects' names in reading order."""
        return tuple(thing.name for thing in self.objects)

    def absent_names(self, candidates: Sequence[str] = NAMES) -> list[str]:
        """Returns the candidates that no object has, in their order."""
        return [name for name in candidates if name not in self.names]

    def object_at(self, row: str, column: str) -> SceneObject | None:
        """Returns the object in a cell, if there is one."""
        return next((thing for thing in self.objects if (thing.row, thing.column) == (row, column)), None)

    def free_cells(self) -> list[tuple[str, str]]:
        """Returns the cells without an object."""
        return [cell for cell in CELLS if self.object_at(*cell) is None]

    def caption(self) -> str:
        """Returns the whole description, "small red ring top left, large blue bar bottom right"."""
        return ", ".join(" ".join(thing.words) for thing in self.objects)


class SceneKind(Enum):
    """What a scene may hold."""

    ANY = "any"
    SHAPES_ONLY = "shapes only"
    SINGLE_SHAPE = "single shape"
    SINGLE_DIGIT = "single digit"


def random_generator(*parts: str | int) -> random.Random:
    """Returns a generator whose stream is decided by the parts alone, on every machine and in every process."""
    return random.Random("/".join(str(part) for part in parts))


def sample_scene(
    generator: random.Random, kind: SceneKind = SceneKind.ANY, *, count: int | None = None, colour: str | None = None
) -> Scene:
    """Samples a scene.

    Args:
        generator: Where the randomness comes from.
        kind: What may stand in it.
        count: Number of objects; drawn from ``OBJECT_COUNTS`` where not given, and 1 for single objects.
        colour: The colour of every object; drawn where not given.
    """
    if kind in (SceneKind.SINGLE_SHAPE, SceneKind.SINGLE_DIGIT):
        count = 1
    elif count is None:
        count = generator.choice(OBJECT_COUNTS)
    names: list[str] = []
    for _ in range(count):
        names.append(_new_name(generator, kind, names))
    objects = [
        SceneObject(name, colour or generator.choice(COLOURS), generator.choice(SIZES), row, column)
        for name, (row, column) in zip(names, generator.sample(CELLS, count), strict=True)
    ]
    return Scene(tuple(sorted(objects, key=lambda thing: thing.cell)))


def sample_training_scene(generator: random.Random) -> Scene:
    """Samples a scene as pretraining and tuning sets have them: mostly of any kind, some with one object alone."""
    draw = generator.random()
    if draw < SINGLE_PROBABILITY / 2:
        return sample_scene(generator, SceneKind.SINGLE_SHAPE)
    if draw < SINGLE_PROBABILITY:
        return sample_scene(generator, SceneKind.SINGLE_DIGIT)
    return sample_scene(generator)


def _new_name(generator: random.Random, kind: SceneKind, used: Sequence[str]) -> str:
    while True:
        name = _any_name(generator, kind, used)
        if name not in used:
            return name


def _any_name(generator: random.Random, kind: SceneKind, used: Sequence[str]) -> str:
    if kind is SceneKind.SINGLE_SHAPE:
        # Evenly over the classes, as CIFAR-10 and MNIST have them.
        return generator.choice(SHAPES)
    if kind is SceneKind.SINGLE_DIGIT:
        return generator.choice(DIGITS)
    if kind is SceneKind.ANY and generator.random() < DIGIT_PROBABILITY:
        return generator.choice(DIGITS)
    if used and used[-1] in PARTNERS and generator.random() < PARTNER_PROBABILITY:
        return PARTNERS[used[-1]]
    return generator.choices(SHAPES, [SHAPE_WEIGHTS[shape] for shape in SHAPES])[0]


def row_index(thing: SceneObject) -> int:
    """Returns 0 for the top row, 2 for the bottom row."""
    return ROWS.index(thing.row)


def column_index(thing: SceneObject) -> int:
    """Returns 0 for the left column, 2 for the right column."""
    return COLUMNS.index(thing.column)

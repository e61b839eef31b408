"""What can be asked about a scene: each function draws a question's words and its answer, without phrasing it."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from experiments.testbed.scenes import Scene, SceneObject, column_index, row_index
from experiments.testbed.vocabulary import CELLS, COLOURS, MAXIMUM_OBJECTS, NOTHING, article


@dataclass(frozen=True)
class Facts:
    """The words that fill a phrasing's slots, and the answer: a word or list, or a truth value."""

    words: dict[str, str]
    answer: str | bool


FactFunction: TypeAlias = Callable[[Scene, random.Random], Facts | None]
"""Draws facts from a scene, or None where the scene does not allow the question."""

HALF = 0.5
OCCUPIED_CELL_PROBABILITY = 0.7
SCENE_COLOUR_PROBABILITY = 0.7


def _cell_words(row: str, column: str) -> dict[str, str]:
    return {"row": row, "column": column}


def colour(scene: Scene, generator: random.Random) -> Facts:
    """The colour of an object."""
    thing = generator.choice(scene.objects)
    return Facts({"name": thing.name}, thing.colour)


def size(scene: Scene, generator: random.Random) -> Facts:
    """The size of an object."""
    thing = generator.choice(scene.objects)
    return Facts({"name": thing.name}, thing.size)


def position(scene: Scene, generator: random.Random) -> Facts:
    """The row and column of an object."""
    thing = generator.choice(scene.objects)
    return Facts({"name": thing.name}, f"{thing.row} {thing.column}")


def object_at_position(scene: Scene, generator: random.Random) -> Facts:
    """What stands in a cell, or nothing."""
    if generator.random() < OCCUPIED_CELL_PROBABILITY:
        thing = generator.choice(scene.objects)
        return Facts(_cell_words(thing.row, thing.column), thing.name)
    return Facts(_cell_words(*generator.choice(scene.free_cells())), NOTHING)


def count(scene: Scene, generator: random.Random) -> Facts:
    """The number of objects."""
    return Facts({}, str(len(scene.objects)))


def count_of_colour(scene: Scene, generator: random.Random) -> Facts:
    """The number of objects of a colour."""
    in_scene = generator.random() < SCENE_COLOUR_PROBABILITY
    asked = generator.choice(scene.objects).colour if in_scene else generator.choice(COLOURS)
    return Facts({"colour": asked}, str(sum(thing.colour == asked for thing in scene.objects)))


def position_check(scene: Scene, generator: random.Random) -> Facts:
    """Whether an object stands in a cell."""
    thing = generator.choice(scene.objects)
    cell = (thing.row, thing.column)
    truth = generator.random() < HALF
    asked = cell if truth else generator.choice([other for other in CELLS if other != cell])
    return Facts({"name": thing.name} | _cell_words(*asked), truth)


def colour_check(scene: Scene, generator: random.Random) -> Facts:
    """Whether an object has a colour."""
    thing = generator.choice(scene.objects)
    truth = generator.random() < HALF
    asked = thing.colour if truth else generator.choice([other for other in COLOURS if other != thing.colour])
    return Facts({"name": thing.name, "colour": asked}, truth)


def presence(scene: Scene, generator: random.Random) -> Facts:
    """Whether an object of a name is there."""
    truth = generator.random() < HALF
    asked = generator.choice(scene.names if truth else scene.absent_names())
    return Facts({"name": asked, "article": article(asked)}, truth)


def presence_of_colour(scene: Scene, generator: random.Random) -> Facts:
    """Whether an object of a colour is there."""
    present = sorted({thing.colour for thing in scene.objects})
    truth = generator.random() < HALF
    asked = generator.choice(present if truth else [other for other in COLOURS if other not in present])
    return Facts({"colour": asked}, truth)


def cell_occupied(scene: Scene, generator: random.Random) -> Facts:
    """Whether anything stands in a cell."""
    if generator.random() < HALF:
        thing = generator.choice(scene.objects)
        return Facts(_cell_words(thing.row, thing.column), True)
    return Facts(_cell_words(*generator.choice(scene.free_cells())), False)


def number_check(scene: Scene, generator: random.Random) -> Facts:
    """Whether there are that many objects."""
    truth = generator.random() < HALF
    number = len(scene.objects)
    others = [other for other in range(1, MAXIMUM_OBJECTS + 1) if other != number]
    return Facts({"number": str(number if truth else generator.choice(others))}, truth)


def relation_between(first: SceneObject, second: SceneObject, horizontal: bool) -> str | None:
    """Returns how the first object stands to the second along one axis, or None where they are level."""
    index, words = (column_index, ("left of", "right of")) if horizontal else (row_index, ("above", "below"))
    difference = index(first) - index(second)
    return words[0 if difference < 0 else 1] if difference else None


OPPOSITES = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def relation_check(scene: Scene, generator: random.Random) -> Facts | None:
    """Whether one object is left of, right of, above or below another."""
    if len(scene.objects) == 1:
        return None
    first, second = generator.sample(scene.objects, 2)
    horizontal = generator.random() < HALF
    relation = relation_between(first, second, horizontal) or relation_between(first, second, not horizontal)
    if relation is None:
        return None
    truth = generator.random() < HALF
    asked = relation if truth else OPPOSITES[relation]
    return Facts({"first": first.name, "second": second.name, "relation": asked}, truth)


CHOICES = {"left of": "left of or right of", "above": "above or below"}


def relation_choice(scene: Scene, generator: random.Random) -> Facts | None:
    """Which of two opposite relations holds between two objects."""
    drawn = relation_check(scene, generator)
    if drawn is None:
        return None
    asked = drawn.words["relation"]
    holding = asked if drawn.answer else OPPOSITES[asked]
    choice = CHOICES.get(asked) or CHOICES[OPPOSITES[asked]]
    return Facts(drawn.words | {"choice": choice}, holding.removesuffix(" of"))


def higher_or_lower(scene: Scene, generator: random.Random) -> Facts | None:
    """Which of two objects is higher, or lower."""
    if len(scene.objects) == 1:
        return None
    first, second = generator.sample(scene.objects, 2)
    if row_index(first) == row_index(second):
        return None
    direction = generator.choice(("higher", "lower"))
    higher, lower = sorted((first, second), key=row_index)
    answer = higher if direction == "higher" else lower
    return Facts({"direction": direction, "first": first.name, "second": second.name}, answer.name)


def leftmost_or_rightmost(scene: Scene, generator: random.Random) -> Facts | None:
    """Which object is the leftmost, or the rightmost."""
    direction = generator.choice(("leftmost", "rightmost"))
    outermost = (min if direction == "leftmost" else max)(map(column_index, scene.objects))
    found = [thing for thing in scene.objects if column_index(thing) == outermost]
    return Facts({"direction": direction}, found[0].name) if len(found) == 1 else None


def list_names(scene: Scene, generator: random.Random) -> Facts:
    """All names in reading order."""
    return Facts({}, ", ".join(scene.names))


def list_colours(scene: Scene, generator: random.Random) -> Facts:
    """All colours in reading order."""
    return Facts({}, ", ".join(thing.colour for thing in scene.objects))


def object_of_colour(scene: Scene, generator: random.Random) -> Facts | None:
    """Which object has a colour that only one has."""
    colours = [thing.colour for thing in scene.objects]
    unique = [thing for thing in scene.objects if colours.count(thing.colour) == 1]
    if not unique:
        return None
    thing = generator.choice(unique)
    return Facts({"colour": thing.colour}, thing.name)


def same_colour(scene: Scene, generator: random.Random) -> Facts | None:
    """Whether two objects have the same colour."""
    if len(scene.objects) == 1:
        return None
    first, second = generator.sample(scene.objects, 2)
    return Facts({"first": first.name, "second": second.name}, first.colour == second.colour)


def colour_at_position(scene: Scene, generator: random.Random) -> Facts:
    """The colour of the object in a cell."""
    thing = generator.choice(scene.objects)
    return Facts(_cell_words(thing.row, thing.column), thing.colour)


def size_at_position(scene: Scene, generator: random.Random) -> Facts:
    """The size of the object in a cell."""
    thing = generator.choice(scene.objects)
    return Facts(_cell_words(thing.row, thing.column), thing.size)


def main_object(scene: Scene, generator: random.Random) -> Facts | None:
    """The name of the only object."""
    return Facts({}, scene.objects[0].name) if len(scene.objects) == 1 else None


def only_digit(scene: Scene, generator: random.Random) -> Facts | None:
    """The name of the only digit."""
    digits = [thing for thing in scene.objects if thing.is_digit]
    return Facts({}, digits[0].name) if len(digits) == 1 else None


def coloured_object(scene: Scene, generator: random.Random) -> Facts | None:
    """The colour and the name of the only object."""
    if len(scene.objects) > 1:
        return None
    thing = scene.objects[0]
    return Facts({}, f"{thing.colour} {thing.name}")


def written_digits(scene: Scene, generator: random.Random) -> Facts | None:
    """The digits in reading order, "three seven"."""
    digits = [thing.name for thing in scene.objects if thing.is_digit]
    return Facts({}, " ".join(digits)) if digits else None


NOT_SURE = "not sure"
HYPOTHESIS_ANSWERS = ("yes", "no", NOT_SURE)


def colour_hypothesis(scene: Scene, generator: random.Random, absent_names: Sequence[str] | None = None) -> Facts:
    """Whether it follows that a named object has a colour; where no such object is seen, neither does it nor not.

    Args:
        scene: What is asked about.
        generator: Where the randomness comes from.
        absent_names: Names to choose from where the answer is not sure; all absent ones, evenly, where not given.
    """
    answer = generator.choice(HYPOTHESIS_ANSWERS)
    if answer == NOT_SURE:
        name, asked = generator.choice(absent_names or scene.absent_names()), generator.choice(COLOURS)
    else:
        thing = generator.choice(scene.objects)
        others = [other for other in COLOURS if other != thing.colour]
        name, asked = thing.name, thing.colour if answer == "yes" else generator.choice(others)
    return Facts({"name": name, "colour": asked}, answer)


def description(scene: Scene, generator: random.Random) -> Facts:
    """The whole caption."""
    return Facts({}, scene.caption())

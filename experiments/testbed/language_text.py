"""Text-only documents: a scene given as slots in place of an image, and questions about it.

A slot is a set of words whose embeddings are added up. Two forms exist: *scattered*, where each object fills one to
three of twelve slots in any order, and *raster*, where the slots are the patches of the picture in reading order.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from experiments.testbed.asking import AskedQuestion, ask_questions
from experiments.testbed.questions import QUESTION_TYPES
from experiments.testbed.scenes import Scene, random_generator, sample_training_scene
from experiments.testbed.vocabulary import COLUMNS, MAXIMUM_OBJECTS, NOTHING, ROWS

LARGEST_REPETITION = 3
SCATTERED_SLOTS = MAXIMUM_OBJECTS * LARGEST_REPETITION


@dataclass(frozen=True)
class Document:
    """Slots, each the words that are added up in it, and questions about what they describe."""

    slots: list[tuple[str, ...]]
    questions: list[AskedQuestion]


def scattered_slots(scene: Scene, generator: random.Random) -> list[tuple[str, ...]]:
    """Returns twelve slots: every object one to three times, in any order, and nothing in the others."""
    slots: list[tuple[str, ...]] = []
    for thing in scene.objects:
        slots += [thing.words] * generator.randint(1, LARGEST_REPETITION)
    slots += [(NOTHING,)] * (SCATTERED_SLOTS - len(slots))
    generator.shuffle(slots)
    return slots


def raster_slots(scene: Scene, patches_per_cell_side: int) -> list[tuple[str, ...]]:
    """Returns slots in reading order of patches: an object's words in its cell, nothing and the cell elsewhere.

    Args:
        scene: What the slots describe.
        patches_per_cell_side: Patches along one side of a cell: 2 makes 36 slots, 1 makes 9.
    """
    slots: list[tuple[str, ...]] = []
    for patch_row in range(len(ROWS) * patches_per_cell_side):
        for patch_column in range(len(COLUMNS) * patches_per_cell_side):
            row = ROWS[patch_row // patches_per_cell_side]
            column = COLUMNS[patch_column // patches_per_cell_side]
            thing = scene.object_at(row, column)
            slots.append(thing.words if thing else (NOTHING, row, column))
    return slots


def document(
    seed: int,
    part: str,
    index: int,
    *,
    patches_per_cell_side: int | None,
    questions: int,
    own_weights: Mapping[str, float],
) -> Document:
    """Writes one document; the same arguments always give the same one.

    Args:
        seed: The recipe's seed.
        part: Names the set the document belongs to, so that sets differ.
        index: Number of the document within its set.
        patches_per_cell_side: Gives the slots raster form; None scatters them.
        questions: The largest number of questions.
        own_weights: Weights of question types, by name, that differ from those the types state.
    """
    generator = random_generator(seed, part, index)
    scene = sample_training_scene(generator)
    if patches_per_cell_side is None:
        slots = scattered_slots(scene, generator)
    else:
        slots = raster_slots(scene, patches_per_cell_side)
    weights = [own_weights.get(question_type.name, question_type.weight) for question_type in QUESTION_TYPES]
    return Document(slots, ask_questions(scene, generator, QUESTION_TYPES, questions, weights))

"""The held-out sets in their official make-up: unseen pictures of the shifted domain, unseen digit scans."""

import random
from dataclasses import dataclass

import numpy

from data_modules.mme import MMEItem
from data_modules.pope import POPEItem
from data_modules.snli_ve import SNLIVEItem
from data_modules.text_vqa import TextVQAItem
from data_modules.vsr import VSRItem
from experiments.testbed import evaluation_questions as phrasings
from experiments.testbed.facts import NOT_SURE, colour_hypothesis, relation_check
from experiments.testbed.name_statistics import NameStatistics
from experiments.testbed.pretraining_images import picture_generator
from experiments.testbed.rendering import IMAGE_SIZE, Domain, ScanSplit, render, render_grey
from experiments.testbed.scenes import Scene, SceneKind, SceneObject, random_generator, sample_scene
from experiments.testbed.sizes import TestbedSizes
from experiments.testbed.tuning_set import TRAINING_PART, tuning_scene
from experiments.testbed.vocabulary import CELLS, COLOURS, DIGITS, MAXIMUM_OBJECTS, NAMES, SHAPES, article

POPE_POSITIVES = 3
"""Questions with the answer yes per picture and split, and as many with the answer no."""
SMALLEST_MME_COUNT = 2
FINE_COLOURS = COLOURS[:5]
"""With the twenty names as coarse classes these make CIFAR-100's hundred fine ones, five in each."""
FINE_CLASSES = tuple(f"{colour}_{name}" for name in NAMES for colour in FINE_COLOURS)
GOLD_LABELS = {"yes": "entailment", "no": "contradiction", NOT_SURE: "neutral"}
VQA_ANSWERS = 10
FEWEST_WRITTEN_DIGITS = 2
"""One digit alone would be MNIST's question again."""


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures of one object each, (N, 48, 48, 3) or (N, 48, 48) uint8, and the index of each one's class."""

    images: numpy.ndarray
    labels: list[int]


def _picture(scene: Scene, seed: int, part: str, index: int, scans: ScanSplit = ScanSplit.EVALUATION) -> numpy.ndarray:
    return render(scene, picture_generator(seed, part, index), Domain.SHIFTED, scans)


def likely_absent_names(scene: Scene, generator: random.Random) -> list[str]:
    """Returns the names of another scene that this one does not have.

    They occur as often as present ones do, so that a name alone does not give its answer away.
    """
    while True:
        names = scene.absent_names(sample_scene(generator).names)
        if names:
            return names


def mme_questions(subtask: str, scene: Scene, generator: random.Random) -> tuple[str, str]:
    """Returns the question answered Yes and the question answered No of one MME picture."""
    thing = generator.choice(scene.objects)
    if subtask == "existence":
        absent = generator.choice(likely_absent_names(scene, generator))
        return _existence(thing.name), _existence(absent)
    if subtask == "count":
        number = len(scene.objects)
        other = generator.choice([n for n in range(SMALLEST_MME_COUNT, MAXIMUM_OBJECTS + 1) if n != number])
        return phrasings.NUMBER.format(number=number), phrasings.NUMBER.format(number=other)
    if subtask == "position":
        cell = (thing.row, thing.column)
        other_cell = generator.choice([place for place in CELLS if place != cell])
        return _position(thing, cell), _position(thing, other_cell)
    other_colour = generator.choice([colour for colour in COLOURS if colour != thing.colour])
    return (
        phrasings.COLOUR.format(name=thing.name, colour=thing.colour),
        phrasings.COLOUR.format(name=thing.name, colour=other_colour),
    )


def _existence(name: str) -> str:
    return phrasings.EXISTENCE.format(name=name, article=article(name))


def _position(thing: SceneObject, cell: tuple[str, str]) -> str:
    return phrasings.POSITION.format(name=thing.name, row=cell[0], column=cell[1])


def mme_items(seed: int, sizes: TestbedSizes) -> list[MMEItem]:
    """Returns MME's four subtasks that the world can ask, a Yes and a No question a picture."""
    items = []
    for subtask in ("existence", "count", "position", "color"):
        for index in range(sizes.mme_images_per_subtask):
            generator = random_generator(seed, "mme", subtask, index)
            count = generator.randint(SMALLEST_MME_COUNT, MAXIMUM_OBJECTS) if subtask == "count" else None
            scene = sample_scene(generator, count=count)
            yes, no = mme_questions(subtask, scene, generator)
            picture = _picture(scene, seed, f"mme {subtask} picture", index)
            items.append(MMEItem(subtask, f"{subtask}_{index:04d}", picture, ((yes, "Yes"), (no, "No"))))
    return items


def vsr_items(seed: int, sizes: TestbedSizes, scans: ScanSplit = ScanSplit.EVALUATION) -> list[VSRItem]:
    """Returns statements about where one object stands to another, half of them true on average."""
    items: list[VSRItem] = []
    attempt = 0
    while len(items) < sizes.vsr_statements:
        generator = random_generator(seed, "vsr", attempt)
        scene = sample_scene(generator)
        drawn = relation_check(scene, generator)
        if drawn is not None:
            words = drawn.words
            items.append(
                VSRItem(
                    image_name=f"vsr_{len(items):04d}.png",
                    image=_picture(scene, seed, "vsr picture", attempt, scans),
                    caption=phrasings.RELATION.format(**words),
                    label=int(bool(drawn.answer)),
                    relation=words["relation"],
                    subject=words["first"],
                    object=words["second"],
                )
            )
        attempt += 1
    return items


def pope_items(seed: int, sizes: TestbedSizes) -> list[POPEItem]:
    """Returns POPE's three splits: the same positives, and random, popular or adversarial negatives."""
    statistics = NameStatistics(tuning_scene(seed, TRAINING_PART, index) for index in range(sizes.training_images))
    items: dict[str, list[POPEItem]] = {"random": [], "popular": [], "adversarial": []}
    for index in range(sizes.pope_images):
        generator = random_generator(seed, "pope", index)
        count = generator.randint(POPE_POSITIVES, MAXIMUM_OBJECTS)
        scene = sample_scene(generator, SceneKind.SHAPES_ONLY, count=count)
        picture = _picture(scene, seed, "pope picture", index)
        present = generator.sample(scene.names, POPE_POSITIVES)
        absent = scene.absent_names(SHAPES)
        negatives = {
            "random": generator.sample(absent, POPE_POSITIVES),
            "popular": statistics.popular(absent)[:POPE_POSITIVES],
            "adversarial": statistics.adversarial(absent, scene.names)[:POPE_POSITIVES],
        }
        for split, absent_names in negatives.items():
            for positive, negative in zip(present, absent_names, strict=True):
                for name, label in ((positive, "yes"), (negative, "no")):
                    text = phrasings.PRESENCE.format(name=name, article=article(name))
                    items[split].append(POPEItem(split, f"pope_{index:04d}.png", picture, text, label))
    return [item for split_items in items.values() for item in split_items]


def cifar10_pictures(seed: int, sizes: TestbedSizes, scans: ScanSplit = ScanSplit.EVALUATION) -> LabelledPictures:
    """Returns colour pictures of one shape each; classes are the ten shapes in order."""
    images = numpy.empty((sizes.classification_images, IMAGE_SIZE, IMAGE_SIZE, 3), numpy.uint8)
    labels = []
    for index in range(sizes.classification_images):
        scene = sample_scene(random_generator(seed, "cifar10", index), SceneKind.SINGLE_SHAPE)
        images[index] = _picture(scene, seed, "cifar10 picture", index, scans)
        labels.append(SHAPES.index(scene.objects[0].name))
    return LabelledPictures(images, labels)


def mnist_pictures(seed: int, sizes: TestbedSizes, scans: ScanSplit = ScanSplit.EVALUATION) -> LabelledPictures:
    """Returns grey pictures of one white digit each, of scans that no training stage has seen."""
    images = numpy.empty((sizes.classification_images, IMAGE_SIZE, IMAGE_SIZE), numpy.uint8)
    labels = []
    for index in range(sizes.classification_images):
        scene = sample_scene(random_generator(seed, "mnist", index), SceneKind.SINGLE_DIGIT, colour="white")
        generator = picture_generator(seed, "mnist picture", index)
        images[index] = render_grey(scene, generator, Domain.SHIFTED, scans)
        labels.append(DIGITS.index(scene.objects[0].name))
    return LabelledPictures(images, labels)


def cifar100_pictures(seed: int, sizes: TestbedSizes, scans: ScanSplit = ScanSplit.EVALUATION) -> LabelledPictures:
    """Returns colour pictures of one shape or digit each; classes are ``FINE_CLASSES`` in order."""
    images = numpy.empty((sizes.classification_images, IMAGE_SIZE, IMAGE_SIZE, 3), numpy.uint8)
    labels = []
    for index in range(sizes.classification_images):
        generator = random_generator(seed, "cifar100", index)
        kind = generator.choice((SceneKind.SINGLE_SHAPE, SceneKind.SINGLE_DIGIT))
        scene = sample_scene(generator, kind, colour=generator.choice(FINE_COLOURS))
        images[index] = _picture(scene, seed, "cifar100 picture", index, scans)
        labels.append(FINE_CLASSES.index(f"{scene.objects[0].colour}_{scene.objects[0].name}"))
    return LabelledPictures(images, labels)


def coarse_labels(fine_labels: list[int]) -> list[int]:
    """Returns the coarse class of every fine one: the name without its colour."""
    return [label // len(FINE_COLOURS) for label in fine_labels]


def snli_ve_items(seed: int, sizes: TestbedSizes, scans: ScanSplit = ScanSplit.EVALUATION) -> list[SNLIVEItem]:
    """Returns hypotheses about the colour of an object; neutral where no such object is in the picture."""
    items = []
    for index in range(sizes.hypotheses):
        generator = random_generator(seed, "snli_ve", index)
        scene = sample_scene(generator)
        drawn = colour_hypothesis(scene, generator, likely_absent_names(scene, generator))
        label, name = GOLD_LABELS[str(drawn.answer)], f"{index:04d}"
        items.append(
            SNLIVEItem(
                image_id=name,
                image=_picture(scene, seed, "snli_ve picture", index, scans),
                hypothesis=phrasings.HYPOTHESIS.format(**drawn.words),
                premise=f"{scene.caption()}.",
                gold_label=label,
                pair_id=f"{name}.jpg#0r1{label[0]}",
            )
        )
    return items


def text_vqa_items(seed: int, sizes: TestbedSizes, scans: ScanSplit = ScanSplit.EVALUATION) -> list[TextVQAItem]:
    """Returns questions for the number that the digits of a picture make in reading order, two or more of them.

    Half of the ten answers are words and half are digits, as people answer: both count as right.
    """
    items: list[TextVQAItem] = []
    attempt = 0
    while len(items) < sizes.number_questions:
        generator = random_generator(seed, "text_vqa", attempt)
        scene = sample_scene(generator)
        digits = [thing.name for thing in scene.objects if thing.is_digit]
        if len(digits) >= FEWEST_WRITTEN_DIGITS:
            number = "".join(str(DIGITS.index(name)) for name in digits)
            items.append(
                TextVQAItem(
                    question_id=len(items),
                    image_id=f"{len(items):04d}",
                    image=_picture(scene, seed, "text_vqa picture", attempt, scans),
                    question=phrasings.WRITTEN_NUMBER,
                    answers=(" ".join(digits), number) * (VQA_ANSWERS // 2),
                )
            )
        attempt += 1
    return items

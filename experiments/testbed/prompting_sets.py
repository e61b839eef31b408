"""Training splits that a prompt for one task is tuned on, and a set of numbers: ``m2pt data testbed --prompting``.

A prompt in pixel space is trained on one task with right answers, and the sets of evaluation have too few training
pictures for it. Their training splits here are in Vision-Flan's form: the question is the set's own, the answer is
written as the candidates of ``--answer likelihood_sum`` are. Domain and looks are those of the test splits, digit scans
are those that tuning sees. CIFAR-10, MNIST and POPE are tested on the sets that are there; counting, which stands for
the published CLEVR, has a test split of its own, a file that ``data_modules.questions.Questions`` reads.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy

from data_modules.labelled_pictures import MAIN_OBJECT
from data_modules.mnist import QUESTION as SHOWN_DIGIT
from data_modules.pope import POPE
from data_modules.vision_flan import VisionFlanRecord
from experiments.testbed.evaluation_questions import PRESENCE
from experiments.testbed.name_statistics import NameStatistics
from experiments.testbed.pretraining_images import picture_generator
from experiments.testbed.rendering import Domain, ScanSplit, render, render_grey
from experiments.testbed.scenes import Scene, SceneKind, random_generator, sample_scene
from experiments.testbed.tuning_set import TRAINING_PART as TUNING
from experiments.testbed.tuning_set import tuning_scene
from experiments.testbed.vocabulary import MAXIMUM_OBJECTS, SHAPES, article

TRAINING_PART, VALIDATION_PART, TEST_PART = "train", "validation", "test"
HOW_MANY = "How many objects are there in this image?"
COUNTS = tuple(str(number) for number in range(1, MAXIMUM_OBJECTS + 1))
POPE_POSITIVES = 3
"""Fewest objects of a picture, as in POPE's test split; one of them is asked for, and one that is not there."""
YES, NO = POPE.fixed_answers


@dataclass(frozen=True)
class PromptingSizes:
    """How many pictures each part of each set has.

    Attributes:
        training_images: Pictures of a training split.
        validation_images: Pictures that rates are searched on.
        counting_images: Pictures of the counting set's test split.
        tuning_images: Scenes of the tuning set that POPE's popular and adversarial negatives are counted in.
    """

    training_images: int = 2000
    validation_images: int = 200
    counting_images: int = 1000
    tuning_images: int = 6000


@dataclass(frozen=True)
class Asked:
    """One picture ((48, 48, 3) uint8) with its questions and their answers."""

    image: numpy.ndarray
    questions: tuple[tuple[str, str], ...]


def cifar10_picture(seed: int, part: str, index: int) -> Asked:
    """Returns one shape, asked for as CIFAR-10's data module asks."""
    scene = sample_scene(random_generator(seed, "prompting cifar10", part, index), SceneKind.SINGLE_SHAPE)
    return Asked(_picture(scene, seed, "cifar10", part, index), ((MAIN_OBJECT, scene.objects[0].name),))


def mnist_picture(seed: int, part: str, index: int) -> Asked:
    """Returns one white digit on grey, asked for as MNIST's data module asks and answered with its word.

    The embedded backbones know words: behind this question a numeral has a thousandth of the probability.
    """
    generator = random_generator(seed, "prompting mnist", part, index)
    scene = sample_scene(generator, SceneKind.SINGLE_DIGIT, colour="white")
    pixels = picture_generator(seed, "prompting mnist picture", part, index)
    grey = render_grey(scene, pixels, Domain.SHIFTED, ScanSplit.TRAINING)
    return Asked(numpy.repeat(grey[:, :, None], 3, axis=2), ((SHOWN_DIGIT, scene.objects[0].name),))


def counting_picture(seed: int, part: str, index: int) -> Asked:
    """Returns one to four objects, every number as often."""
    generator = random_generator(seed, "prompting counting", part, index)
    scene = sample_scene(generator, count=generator.randint(1, MAXIMUM_OBJECTS))
    scans = ScanSplit.EVALUATION if part == TEST_PART else ScanSplit.TRAINING
    return Asked(_picture(scene, seed, "counting", part, index, scans), ((HOW_MANY, str(len(scene.objects))),))


class POPEPictures:
    """Pictures of shapes with a Yes and a No question; negatives of POPE's three kinds in turn.

    Args:
        seed: The testbed's seed.
        tuning_images: Scenes of the tuning set in which names are counted.
    """

    def __init__(self, seed: int, tuning_images: int) -> None:
        self.seed = seed
        self.statistics = NameStatistics(tuning_scene(seed, TUNING, index) for index in range(tuning_images))

    def picture(self, part: str, index: int) -> Asked:
        """Returns one picture."""
        generator = random_generator(self.seed, "prompting pope", part, index)
        count = generator.randint(POPE_POSITIVES, MAXIMUM_OBJECTS)
        scene = sample_scene(generator, SceneKind.SHAPES_ONLY, count=count)
        absent = scene.absent_names(SHAPES)
        negative = (
            generator.choice(absent),
            self.statistics.popular(absent)[0],
            self.statistics.adversarial(absent, scene.names)[0],
        )[index % 3]
        named = ((generator.choice(scene.names), YES), (negative, NO))
        questions = tuple((PRESENCE.format(name=name, article=article(name)), answer) for name, answer in named)
        return Asked(_picture(scene, self.seed, "pope", part, index), questions)


def _picture(
    scene: Scene, seed: int, name: str, part: str, index: int, scans: ScanSplit = ScanSplit.TRAINING
) -> numpy.ndarray:
    return render(scene, picture_generator(seed, f"prompting {name} picture", part, index), Domain.SHIFTED, scans)


def records_of(name: str, part: str, pictures: Iterator[Asked]) -> Iterator[VisionFlanRecord]:
    """Yields a part of a set as Vision-Flan's records, those of one picture together.

    Args:
        name: The set's name.
        part: ``TRAINING_PART`` or ``VALIDATION_PART``.
        pictures: Its pictures.
    """
    for index, asked in enumerate(pictures):
        for number, (question, answer) in enumerate(asked.questions):
            yield VisionFlanRecord(
                id=f"{name}_{part}_{index:05d}_{number}",
                image_name=f"{part}_{index:05d}.png",
                image=asked.image,
                task_name=f"testbed+{name}",
                instruction=question,
                answer=answer,
                image_first=True,
            )

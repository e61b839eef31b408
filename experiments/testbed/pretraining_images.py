"""The pictures of pretraining, and those its gates are measured on."""

from dataclasses import dataclass

import numpy

from experiments.testbed.rendering import IMAGE_SIZE, Domain, ScanSplit, render
from experiments.testbed.scenes import Scene, random_generator, sample_training_scene

INSTRUCTION_DOMAIN_PROBABILITY = 0.15
"""Share of pretraining pictures in the instruction domain; the others are in the pretraining domain."""


@dataclass(frozen=True)
class PictureSet:
    """Pictures (N, 48, 48, 3) uint8 and the scenes they show."""

    images: numpy.ndarray
    scenes: list[Scene]


def picture_generator(*parts: str | int) -> numpy.random.Generator:
    """Returns a numpy generator whose stream is decided by the parts alone."""
    return numpy.random.default_rng(random_generator(*parts).getrandbits(128))


def pretraining_pictures(seed: int, count: int) -> PictureSet:
    """Renders the pictures of the pretraining stages: training scans only, two domains mixed."""
    images = numpy.empty((count, IMAGE_SIZE, IMAGE_SIZE, 3), numpy.uint8)
    scenes = []
    for index in range(count):
        scene_generator = random_generator(seed, "pretraining", index)
        scene = sample_training_scene(scene_generator)
        instruction = scene_generator.random() < INSTRUCTION_DOMAIN_PROBABILITY
        domain = Domain.INSTRUCTION if instruction else Domain.PRETRAINING
        images[index] = render(scene, picture_generator(seed, "pretraining picture", index), domain)
        scenes.append(scene)
    return PictureSet(images, scenes)


def gate_pictures(seed: int, count: int) -> PictureSet:
    """Renders held-out pictures of the pretraining domain, with digit scans no training stage has seen."""
    images = numpy.empty((count, IMAGE_SIZE, IMAGE_SIZE, 3), numpy.uint8)
    scenes = []
    for index in range(count):
        scene = sample_training_scene(random_generator(seed, "gate", index))
        generator = picture_generator(seed, "gate picture", index)
        images[index] = render(scene, generator, Domain.PRETRAINING, ScanSplit.EVALUATION)
        scenes.append(scene)
    return PictureSet(images, scenes)

"""Stage 2's instruction set and the part of it that learning rates are chosen on, as Vision-Flan records."""

from collections.abc import Iterator

from data_modules.vision_flan import VisionFlanRecord
from experiments.testbed.asking import ask_questions
from experiments.testbed.pretraining_images import picture_generator
from experiments.testbed.questions import TUNED_TYPES
from experiments.testbed.rendering import Domain, ScanSplit, render
from experiments.testbed.scenes import Scene, random_generator, sample_training_scene

VALIDATION_ANNOTATION = "annotation_validation.json"
TRAINING_PART = "tuning"
VALIDATION_PART = "tuning validation"


def tuning_scene(seed: int, part: str, index: int) -> Scene:
    """Returns the scene of one picture of the training or validation part."""
    return sample_training_scene(random_generator(seed, part, index))


def tuning_records(seed: int, part: str, images: int, questions_per_image: int) -> Iterator[VisionFlanRecord]:
    """Yields the records of a part, those of one picture together.

    Args:
        seed: The testbed's seed.
        part: ``TRAINING_PART`` or ``VALIDATION_PART``.
        images: Number of pictures, each in the shifted domain.
        questions_per_image: The largest number of records of one picture, all of tuned types.
    """
    for index in range(images):
        scene = tuning_scene(seed, part, index)
        picture = render(scene, picture_generator(seed, part, "picture", index), Domain.SHIFTED, ScanSplit.TRAINING)
        generator = random_generator(seed, part, "questions", index)
        name = f"{part.replace(' ', '_')}_{index:05d}"
        for number, asked in enumerate(ask_questions(scene, generator, TUNED_TYPES, questions_per_image)):
            yield VisionFlanRecord(
                id=f"{name}_{number}",
                image_name=f"{name}.png",
                image=picture,
                task_name=f"testbed+{asked.type_name}",
                instruction=asked.question,
                answer=asked.answer,
                image_first=generator.random() < 0.5,
            )

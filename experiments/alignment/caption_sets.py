"""Pictures of the pretraining domain with their captions, as Vision-Flan records: what a projector is aligned on."""

from collections.abc import Iterator
from pathlib import Path

from data_modules.vision_flan import VisionFlanRecord, write_vision_flan
from experiments.alignment.captions import INSTRUCTIONS, caption
from experiments.testbed.pretraining_images import picture_generator
from experiments.testbed.rendering import Domain, ScanSplit, render
from experiments.testbed.scenes import random_generator, sample_training_scene

TRAINING_PART, UNSEEN_PART = "alignment", "alignment unseen"
UNSEEN_ANNOTATION = "annotation_unseen.json"
TASK = "testbed+caption"


def caption_records(seed: int, part: str, pictures: int) -> Iterator[VisionFlanRecord]:
    """Yields one record a picture; those of the unseen part show digit scans that no training picture has.

    Args:
        seed: Decides scenes, pictures and instructions.
        part: ``TRAINING_PART`` or ``UNSEEN_PART``.
        pictures: How many.
    """
    scans = ScanSplit.TRAINING if part == TRAINING_PART else ScanSplit.EVALUATION
    for index in range(pictures):
        scene = sample_training_scene(random_generator(seed, part, index))
        name = f"{part.replace(' ', '_')}_{index:05d}"
        yield VisionFlanRecord(
            id=name,
            image_name=f"{name}.png",
            image=render(scene, picture_generator(seed, part, "picture", index), Domain.PRETRAINING, scans),
            task_name=TASK,
            instruction=random_generator(seed, part, "instruction", index).choice(INSTRUCTIONS),
            answer=caption(scene),
            image_first=True,
        )


def write_caption_sets(root: Path, seed: int, pictures: int, unseen: int) -> None:
    """Writes the training part, and unseen pictures, which no part of training or its choices reads."""
    write_vision_flan(root, list(caption_records(seed, TRAINING_PART, pictures)))
    write_vision_flan(root, list(caption_records(seed, UNSEEN_PART, unseen)), annotation_file=UNSEEN_ANNOTATION)

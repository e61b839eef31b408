r"""Vision-Flan, 191 tasks x 1k: the training set of M2PT.

Source: https://huggingface.co/datasets/Vision-Flan/vision-flan_191-task_1k (Xu et al., 2024). Licence: that of each
of the source sets; see the set's page before you publish a model.

Layout: ``annotation_191-task_1k.json`` (one JSON list) beside ``images_191task_1k/``, which is what the archive
``image_191-task_1k.zip`` unpacks to. A record is ``{"id", "image", "task_name", "conversations": [{"from": "human",
"value": "<instruction>\n<image>"}, {"from": "gpt", "value": "<answer>"}]}``.

Counts: 186,103 records of 191 tasks. ``id`` is not unique, so the position in the list is part of a sample's id. One
record has an empty answer: it is refused by name unless ``skip_empty_answers`` is set. ``<image>`` stands at the
start or at the end of the instruction; it is cut out, and the template puts it where published training had it.

Split: the set has no validation part. Name a ``validation_file`` of the same form, or a ``validation_fraction``:
then a picture belongs to the validation part by the hash of its name, so no picture is in both.

Contamination: among the tasks are MNIST-M (MNIST's digits on photographs), CINIC-10 (made of CIFAR-10 with its test
pictures, and ImageNet), STL-10, Flickr30k (SNLI-VE's pictures) and many COCO tasks (POPE's and VSR's pictures may
recur). Say so beside any "zero-shot" number.

Metric: the loss per supervised token, in total and per task.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
from typing_extensions import override

from data_modules.conversations import Conversations, notes_of_unusual
from data_modules.instruction import TemplateName
from data_modules.reading.files import fake_image, write_image, write_text
from data_modules.reading.record_samples import RecordSamples
from data_modules.reading.records_per_class import PerClassOf
from data_modules.reading.sources import Source
from lightning_m2pt.configuration.paths import FilePath
from lightning_m2pt.inputs.templates import IMAGE_MARK

ANNOTATION_FILE = "annotation_191-task_1k.json"
IMAGE_FOLDER = "images_191task_1k"


class VisionFlan(Conversations):
    """Vision-Flan, or any set in its form.

    It is read like any other file of conversations; only what is unusual of one is said.

    Args:
        root: Folder with the annotation file and the image folder.
        template: Name of the conversation template.
        batch_size: Samples of one whole optimizer step, over all devices and micro-batches.
        micro_batch_size: At most so many samples per forward and device; None takes a device's whole share of a step.
        questions_per_sample: How many records of one picture become one conversation; 1 as published.
        max_text_length: Limit on a sample's tokens, its picture counted as one. Nothing is ever cut off.
        num_workers: Processes that read pictures.
        order_seed: Decides the order of the samples; None takes the run's seed.
        annotation_file: Name of the annotation file within ``root``.
        image_folder: Name of the image folder within ``root``.
        validation_file: Name of an annotation file to validate on.
        validation_fraction: Share of the pictures to validate on when there is no ``validation_file``.
        skip_empty_answers: Leave out records without an answer instead of refusing them.
        group_by_length: How many optimizer steps' samples are sorted by length together, so that less is padded; 0
            leaves the order alone, 1 evens the micro-batches of each step and leaves it its samples.
        index: Whether what was read and encoded of a large set is kept for the next start.
        index_folder: Where it is kept, whatever the set's size; None: a large set's in the user's cache folder.
        per_class: Train on so many records of every class alone (K-shot tuning); None takes all. What is validated on
            is not chosen from.
        per_class_of: What a class is: an ``answer`` of a task, or a ``task``.
        per_class_seed: Decides which records; no other seed does.

    Raises:
        BadInputError: If a number is out of range, or both ways to validate are asked for.
    """

    hint_for_empty = "repair the record, or set skip_empty_answers"

    def __init__(
        self,
        root: FilePath,
        template: TemplateName,
        batch_size: int,
        micro_batch_size: int | None = None,
        questions_per_sample: int = 1,
        max_text_length: int = 1024,
        num_workers: int = 0,
        order_seed: int | None = None,
        annotation_file: str = ANNOTATION_FILE,
        image_folder: str = IMAGE_FOLDER,
        validation_file: str | None = None,
        validation_fraction: float = 0.0,
        skip_empty_answers: bool = False,
        group_by_length: int = 0,
        index: bool = True,
        index_folder: FilePath | None = None,
        per_class: int | None = None,
        per_class_of: PerClassOf = "answer",
        per_class_seed: int = 0,
    ) -> None:
        super().__init__(
            str(Path(root) / annotation_file),
            template,
            batch_size,
            image_root=str(Path(root) / image_folder),
            validation_file=validation_file,
            validation_fraction=validation_fraction,
            micro_batch_size=micro_batch_size,
            questions_per_sample=questions_per_sample,
            max_text_length=max_text_length,
            num_workers=num_workers,
            order_seed=order_seed,
            group_by_length=group_by_length,
            index=index,
            index_folder=index_folder,
            per_class=per_class,
            per_class_of=per_class_of,
            per_class_seed=per_class_seed,
        )
        self.root = Path(root)
        self.annotation_file = annotation_file
        self.image_folder = image_folder
        self.skip_empty_answers = skip_empty_answers

    @staticmethod
    def write_fake(root: Path) -> None:
        """Writes sixteen invented records: two tasks, eight pictures, the image mark at either end."""
        records = [
            VisionFlanRecord(
                id=f"fake_{number // 2}",
                image_name=f"fake_{number // 2}.png",
                image=fake_image(number // 2),
                task_name=f"fake+task_{number % 2}",
                instruction=f"What is the number {number} ?",
                answer="yes it is" if number % 3 else "no",
                image_first=number % 2 == 0,
            )
            for number in range(16)
        ]
        write_vision_flan(root, records)

    @property
    @override
    def set_name(self) -> str:
        return "vision_flan"

    @override
    def place_of_validation(self, name: str) -> str:
        return str(self.root / name)

    @override
    def notes_of(self, source: Source, records: int, said_of_columns: str, maker: RecordSamples) -> Iterator[str]:
        return notes_of_unusual(source.path.name, records, maker)


@dataclass(frozen=True)
class VisionFlanRecord:
    """One record to write: a question, its answer and its picture ((H, W, 3) uint8)."""

    id: str
    image_name: str
    image: numpy.ndarray
    task_name: str
    instruction: str
    answer: str
    image_first: bool


def write_vision_flan(
    root: Path,
    records: Sequence[VisionFlanRecord],
    annotation_file: str = ANNOTATION_FILE,
    image_folder: str = IMAGE_FOLDER,
) -> None:
    """Writes records in Vision-Flan's layout; a picture shared by records is written once."""
    annotations = []
    written: set[str] = set()
    for record in records:
        parts = [IMAGE_MARK, record.instruction]
        question = "\n".join(parts if record.image_first else reversed(parts))
        annotations.append(
            {
                "id": record.id,
                "image": record.image_name,
                "task_name": record.task_name,
                "conversations": [
                    {"from": "human", "value": question},
                    {"from": "gpt", "value": record.answer},
                ],
            }
        )
        if record.image_name not in written:
            written.add(record.image_name)
            write_image(root / image_folder / record.image_name, record.image)
    write_text(root / annotation_file, json.dumps(annotations, ensure_ascii=False, indent=0))

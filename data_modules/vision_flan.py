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

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy

from data_modules.base import unique_ids
from data_modules.instruction import InstructionDataModule, TemplateName, image_folder_of
from data_modules.reading.files import (
    Record,
    checked_object,
    fake_image,
    json_records,
    text_field,
    write_image,
    write_text,
)
from lightning_m2pt.configuration.paths import FilePath
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.images import resolve_inside
from lightning_m2pt.inputs.mistakes import are_collected, made_of_each
from lightning_m2pt.inputs.samples import Question, Sample, Turn
from lightning_m2pt.inputs.templates import IMAGE_MARK

ANNOTATION_FILE = "annotation_191-task_1k.json"
IMAGE_FOLDER = "images_191task_1k"


class VisionFlan(InstructionDataModule):
    """Vision-Flan, or any set in its form.

    Args:
        root: Folder with the annotation file and the image folder.
        template: Name of the conversation template.
        batch_size: Samples of one whole optimizer step, over all devices and micro-batches.
        micro_batch_size: Samples per forward and device; None takes a device's whole share of the step.
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

    Raises:
        BadInputError: If a number is out of range, or both ways to validate are asked for.
    """

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
    ) -> None:
        super().__init__(
            root,
            template,
            batch_size,
            micro_batch_size,
            questions_per_sample,
            max_text_length,
            num_workers,
            order_seed,
            group_by_length,
            index,
            index_folder,
        )
        if not 0 <= validation_fraction < 1:
            raise BadInputError(
                f"validation_fraction is {validation_fraction}",
                where="data.validation_fraction",
                expected="at least 0 and below 1",
            )
        if validation_file is not None and validation_fraction:
            raise BadInputError(
                "both validation_file and validation_fraction are set",
                where="data.validation_fraction",
                expected="one of them",
            )
        self.annotation_file = annotation_file
        self.image_folder = image_folder
        self.validation_file = validation_file
        self.validation_fraction = validation_fraction
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

    def files_read(self) -> list[Path]:
        """Returns the annotation files."""
        names = [self.annotation_file] + ([] if self.validation_file is None else [self.validation_file])
        return [self.root / name for name in names]

    def read(self) -> tuple[list[Sample], list[Sample]]:
        """Returns the training and the validation samples.

        Raises:
            BadInputError: If an annotation is wrong, naming file and record, or a record is in both parts.
        """
        train = self.read_annotations(self.annotation_file, "")
        if self.validation_file is not None:
            validation = self.read_annotations(self.validation_file, "validation/")
            questions = {image_and_question(sample): sample for sample in train}
            for sample in validation:
                unique_ids([questions.get(image_and_question(sample), sample), sample], key=image_and_question)
            return train, validation
        held_out = [self.is_held_out(sample) for sample in train]
        return (
            [sample for sample, held in zip(train, held_out, strict=True) if not held],
            [sample for sample, held in zip(train, held_out, strict=True) if held],
        )

    def is_held_out(self, sample: Sample) -> bool:
        """Tells whether a sample of the annotation file is validated on instead of trained on."""
        return unit_hash(sample.image_id) < self.validation_fraction

    def read_annotations(self, name: str, id_prefix: str) -> list[Sample]:
        """Returns the samples of one annotation file.

        Raises:
            BadInputError: If a record is wrong, or none is left.
        """
        path = self.root / name
        folder = image_folder_of(self.root, self.image_folder)
        positions = count()
        pictures: dict[str, Path] = {}  # many records are about one picture

        def sample_of(place_and_record: Record) -> Sample | None:
            where, record = place_and_record
            name = f"{id_prefix}{next(positions)}/"
            turns = turns_of(record, where)
            if not all(turn.answer for turn in turns):
                if self.skip_empty_answers:
                    return None
                raise BadInputError(
                    f"the answer of {record.get('id')!r:.80} is empty",
                    where=f"{where}: conversations",
                    expected="an answer",
                    hint="repair the record, or set skip_empty_answers",
                )
            image_name = text_field(record, "image", where)
            if image_name not in pictures:
                pictures[image_name] = resolve_inside(folder, image_name, f"{where}: image")
            return Sample(
                id=name + text_field(record, "id", where),
                image=pictures[image_name],
                image_id=image_name,
                turns=turns,
                tasks=(text_field(record, "task_name", where),) * len(turns),
                source=where,
            )

        samples = [sample for sample in made_of_each(json_records(path), sample_of) if sample is not None]
        if not samples and not are_collected():
            raise BadInputError("no sample is left", where=str(path), expected="at least one record with an answer")
        return samples


def turns_of(record: Mapping[str, Any], where: str) -> tuple[Turn, ...]:
    """Returns a record's questions and answers, without the image mark and outer spaces.

    Raises:
        BadInputError: If people and model do not take turns, or there is not exactly one image mark, in a question.
    """
    place = f"{where}: conversations"
    entries = record.get("conversations")
    if not isinstance(entries, list) or not entries or len(entries) % 2:
        raise BadInputError("the conversation is no list of questions and answers", where=place)
    texts = []
    for number, entry in enumerate(entries):
        speaker = ("human", "gpt")[number % 2]
        if checked_object(entry, place).get("from") != speaker:
            raise BadInputError(
                f"entry {number + 1} is from {entry.get('from')!r:.40}", where=place, expected=f"{speaker!r}"
            )
        texts.append(text_field(entry, "value", place, may_be_empty=speaker == "gpt"))
    questions, answers = texts[::2], texts[1::2]
    marks = [text.count(IMAGE_MARK) for text in texts]
    if marks[0] != 1 or sum(marks) != 1:
        raise BadInputError(
            f"there are {sum(marks)} {IMAGE_MARK} marks for 1 image, {marks[0]} of them in the first question",
            where=place,
            expected=f"one {IMAGE_MARK} in the first question",
        )
    questions = [question.replace(IMAGE_MARK, "").strip() for question in questions]
    return tuple(Turn(question, answer.strip()) for question, answer in zip(questions, answers, strict=True))


def image_and_question(sample: Sample | Question) -> str:
    """Returns what makes two samples the same one."""
    question = sample.turns[0].question if isinstance(sample, Sample) else sample.text
    return f"{sample.image_id}: {question}"


def unit_hash(name: str) -> float:
    """Returns a number in 0..1 that depends on the name only."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


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

"""Vision-Flan writer (reader follows)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from data_modules.files import write_image, write_text
from lightning_m2pt.templates import IMAGE_MARK

ANNOTATION_FILE = "annotation_191-task_1k.json"
IMAGE_FOLDER = "images_191task_1k"


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

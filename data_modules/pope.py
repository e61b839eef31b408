"""POPE writer (reader follows)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from data_modules.files import write_image, write_text

IMAGE_FOLDER = "images"


@dataclass(frozen=True)
class POPEItem:
    """One question to write about a picture ((H, W, 3) uint8), with ``yes`` or ``no`` as label."""

    split: str
    image_name: str
    image: numpy.ndarray
    text: str
    label: str


def write_pope(root: Path, items: Sequence[POPEItem]) -> None:
    """Writes items in POPE's layout: ``coco_pope_<split>.json`` (JSON lines), with the pictures in ``images/``."""
    lines: dict[str, list[str]] = {}
    for item in items:
        write_image(root / IMAGE_FOLDER / item.image_name, item.image)
        of_split = lines.setdefault(item.split, [])
        record = {
            "question_id": len(of_split) + 1,
            "image": item.image_name,
            "text": item.text,
            "label": item.label,
        }
        of_split.append(json.dumps(record, ensure_ascii=False) + "\n")
    for split, of_split in lines.items():
        write_text(root / f"coco_pope_{split}.json", "".join(of_split))

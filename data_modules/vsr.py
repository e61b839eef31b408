"""VSR writer (reader follows)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from data_modules.files import write_image, write_text

IMAGE_FOLDER = "images"


@dataclass(frozen=True)
class VSRItem:
    """One caption to write, true (1) or false (0) of its picture ((H, W, 3) uint8)."""

    image_name: str
    image: numpy.ndarray
    caption: str
    label: int
    relation: str
    subject: str
    object: str


def write_vsr(root: Path, items: Sequence[VSRItem], split: str = "test") -> None:
    """Writes items in VSR's layout: ``<split>.jsonl``, with the pictures in ``images/``."""
    lines = []
    for item in items:
        write_image(root / IMAGE_FOLDER / item.image_name, item.image)
        record = {
            "image": item.image_name,
            "caption": item.caption,
            "label": item.label,
            "relation": item.relation,
            "subj": item.subject,
            "obj": item.object,
        }
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    write_text(root / f"{split}.jsonl", "".join(lines))

"""VSR: captions about where things are, true or false of a picture.

Source: https://github.com/cambridgeltl/visual-spatial-reasoning (Liu et al., TACL 2023), Apache-2.0; the pictures
are COCO's (train2017 and val2017) and come under Flickr's terms.

Layout: ``{train,dev,test}.jsonl`` in ``<root>/zeroshot`` or ``<root>/random``, in a clone of the repository
(``<root>/data/splits/zeroshot``), or in ``<root>`` where neither is there, and a folder of the pictures that you fill
from COCO, all in one folder or in ``train2017/`` and ``val2017/`` below it. The hub's copies
(``cambridgeltl/vsr_zeroshot`` and ``vsr_random``) are the same files, without pictures too. A record is ``{"image",
"image_link", "caption", "label": 0 or 1, "relation", "subj", "obj", ...}``; zero-shot rows have ``subj`` and ``obj``,
random rows ``reference_frame``, and the votes are texts that hold a list (``"[18, 2]"``): none of these is read.

Counts: zero-shot 3,489 / 340 / 1,222 (test: 629 true, 593 false, 715 pictures, 53 relations); random 7,680 / 1,097 /
2,195. The README's and the 2022 snapshot's sizes differ: compare data revisions before scores.

Split: ``test`` of zero-shot is what is commonly reported. Contamination: COCO pictures recur in Vision-Flan's tasks.

Metric: ``yes_no_words`` (accuracy).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy

from data_modules.benchmark import BenchmarkDataModule, TemplateName
from data_modules.reading.files import Record, fake_image, json_records, text_field, write_image, write_text
from lightning_m2pt.configuration.paths import FilePath
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.images import resolve_inside
from lightning_m2pt.inputs.mistakes import made_of_each
from lightning_m2pt.inputs.samples import Question

IMAGE_FOLDER = "images"
QUESTION_TEMPLATE = "{caption} Is this statement true? Please answer yes or no."
CAPTION_MARK = "{caption}"
TARGETS = ("no", "yes")
COCO_FOLDERS = ("train2017", "val2017")


class VSR(BenchmarkDataModule):
    """One split of VSR.

    Args:
        root: Folder with the splits' files.
        template: Name of the conversation template.
        batch_size: Questions answered at once.
        max_new_tokens: Limit on an answer's tokens.
        limit: How many questions to take, spread evenly over the set; None takes all.
        split: Which file to read.
        question_template: The question; ``{caption}`` stands for the caption.
        image_folder: Folder of the pictures within ``root``, or anywhere if absolute.
        variant: Which of the two ways to split VSR, where ``root`` has both.

    Raises:
        BadInputError: If the question template has no place for the caption.
    """

    name = "vsr"
    rules = ("yes_no_words",)
    fixed_answers = ("Yes", "No")

    def __init__(
        self,
        root: FilePath,
        template: TemplateName,
        batch_size: int = 32,
        max_new_tokens: int = 50,
        limit: int | None = None,
        split: Literal["train", "dev", "test"] = "test",
        question_template: str = QUESTION_TEMPLATE,
        image_folder: str = IMAGE_FOLDER,
        variant: Literal["zeroshot", "random"] = "zeroshot",
    ) -> None:
        super().__init__(root, template, batch_size, max_new_tokens, limit)
        if CAPTION_MARK not in question_template:
            raise BadInputError(
                "the question has no place for the caption",
                where="vsr.question_template",
                expected=f"a text with {CAPTION_MARK}",
            )
        self.split = split
        self.question_template = question_template
        self.image_folder = image_folder
        self.variant = variant

    @property
    def annotation_file(self) -> Path:
        """The split's file: in the variant's folder, where a clone of the repository has it, or in the root."""
        name = f"{self.split}.jsonl"
        in_root = self.root / name  # last: `m2pt data fetch` puts the zero-shot files there
        places = [self.root / self.variant / name, self.root / "data" / "splits" / self.variant / name]
        return next((path for path in places if path.exists()), in_root)

    @staticmethod
    def write_fake(root: Path) -> None:
        """Writes six invented captions on three pictures."""
        items = [
            VSRItem(
                image_name=f"fake_{number // 2}.png",
                image=fake_image(number // 2),
                caption=f"The number {number} is above the table.",
                label=number % 2,
                relation="above",
                subject=f"number {number}",
                object="table",
            )
            for number in range(6)
        ]
        write_vsr(root, items)

    def read(self) -> list[Question]:
        """Returns the split's questions.

        Raises:
            BadInputError: If a record is wrong; ``label`` must be 0 or 1.
        """
        numbers = count(1)

        def question_of(place_and_record: Record) -> Question:
            where, record = place_and_record
            name = f"{self.split}/{next(numbers)}"
            label = record.get("label")
            if type(label) is not int or label not in (0, 1):
                raise BadInputError(f"the value is {label!r:.40}", where=f"{where}: label", expected="0 or 1")
            image_name = text_field(record, "image", where)
            caption = text_field(record, "caption", where)
            return Question(
                id=name,
                subtask="",
                text=self.question_template.replace(CAPTION_MARK, caption.strip()),
                target=TARGETS[label],
                image=coco_picture(self.root / self.image_folder, image_name, record, f"{where}: image"),
                image_id=image_name,
                source=where,
            )

        return made_of_each(json_records(self.annotation_file), question_of)


def coco_picture(folder: Path, name: str, record: Mapping[str, Any], where: str) -> Path:
    """Returns where a picture is: in the folder, or in the COCO folder below it that ``image_link`` names.

    Raises:
        BadInputError: If the name leads out of the folder.
    """
    path = resolve_inside(folder, name, where)
    part = PurePosixPath(str(record.get("image_link"))).parent.name
    if path.exists() or part not in COCO_FOLDERS:
        return path
    nested = resolve_inside(folder, f"{part}/{name}", where)
    return nested if nested.exists() else path


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

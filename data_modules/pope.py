"""POPE: does the model see objects that are not there?

Source: https://github.com/AoiDragon/POPE (Li et al., EMNLP 2023), MIT; the pictures are COCO's (val2014).

Layout: ``<root>/coco_pope_{random,popular,adversarial}.json``, JSON lines in spite of their name (a JSON list is read
too), and a folder of the pictures. A record is ``{"question_id": 1, "image": "COCO_val2014_000000310196.jpg", "text":
"Is there a snowboard in the image?", "label": "yes"}``. ``question_id`` restarts in every file.

Counts: 3 x 3,000 questions, half of them yes, on 500 pictures; an older random file has 2,910. The yes questions are
the same in all three files.

Split: the three files, scored apart and together. Contamination: COCO pictures recur in Vision-Flan's tasks.

Metric: ``pope_official``.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from data_modules.benchmark import BenchmarkDataModule, TemplateName
from data_modules.files import fake_image, json_records, text_field, write_image, write_text
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.images import resolve_inside
from lightning_m2pt.types import Question

IMAGE_FOLDER = "images"
SPLITS = ("random", "popular", "adversarial")
ANSWERS = ("yes", "no")
ANNOTATION_FILE = "coco_pope_{split}.json"


class POPE(BenchmarkDataModule):
    """POPE, with the splits whose files are there.

    Args:
        root: Folder with the splits' files.
        template: Name of the conversation template.
        batch_size: Questions answered at once.
        max_new_tokens: Limit on an answer's tokens.
        limit: How many questions to take, spread evenly over the set; None takes all.
        image_folder: Folder of the pictures within ``root``, or anywhere if absolute.
    """

    name = "pope"
    rules = ("pope_official",)
    fixed_answers = ("Yes", "No")

    def __init__(
        self,
        root: str,
        template: TemplateName,
        batch_size: int = 32,
        max_new_tokens: int = 50,
        limit: int | None = None,
        image_folder: str = IMAGE_FOLDER,
    ) -> None:
        super().__init__(root, template, batch_size, max_new_tokens, limit)
        self.image_folder = image_folder

    @staticmethod
    def write_fake(root: Path) -> None:
        """Writes four invented questions a split on two pictures."""
        items = [
            POPEItem(
                split=split,
                image_name=f"fake_{number // 2}.png",
                image=fake_image(number // 2),
                text=f"Is there a {('cat', 'dog')[number % 2]} in the image {number}?",
                label=ANSWERS[number % 2],
            )
            for split in SPLITS
            for number in range(4)
        ]
        write_pope(root, items)

    def read(self) -> list[Question]:
        """Returns the questions, split after split.

        Raises:
            BadInputError: If no split is there, or a record is wrong; ``label`` must be yes or no.
        """
        paths = {split: self.root / ANNOTATION_FILE.format(split=split) for split in SPLITS}
        present = {split: path for split, path in paths.items() if path.exists()}
        if not present:
            raise BadInputError(
                "none of POPE's files is there",
                where=str(self.root),
                expected=", ".join(path.name for path in paths.values()),
            )
        return [question for split, path in present.items() for question in self.questions_of_split(split, path)]

    def questions_of_split(self, split: str, path: Path) -> list[Question]:
        """Returns one file's questions.

        Raises:
            BadInputError: If a record is wrong.
        """
        questions = []
        for where, record in json_records(path):
            number = record.get("question_id")
            if type(number) not in (int, str):
                raise BadInputError(f"the value is {number!r:.40}", where=f"{where}: question_id", expected="a number")
            label = text_field(record, "label", where)
            if label not in ANSWERS:
                raise BadInputError(f"the value is {label!r:.40}", where=f"{where}: label", expected="yes or no")
            image_name = text_field(record, "image", where)
            questions.append(
                Question(
                    id=f"{split}/{number}",
                    subtask=split,
                    text=text_field(record, "text", where).strip(),
                    target=label,
                    image=resolve_inside(self.root / self.image_folder, image_name, f"{where}: image"),
                    image_id=image_name,
                    source=where,
                )
            )
        return questions


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
        write_text(root / ANNOTATION_FILE.format(split=split), "".join(of_split))

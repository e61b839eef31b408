"""POPE: does the model see objects that are not there?

Source: https://github.com/AoiDragon/POPE (Li et al., EMNLP 2023), MIT; the pictures are COCO's (val2014).

Layout, original: ``coco_pope_{random,popular,adversarial}.json`` in ``<root>`` or in ``<root>/output/coco`` (a clone of
the repository), JSON lines in spite of their name (a JSON list is read too), and a folder of the pictures. A record is
``{"question_id": 1, "image": "COCO_val2014_000000310196.jpg", "text": "Is there a snowboard in the image?", "label":
"yes"}``. ``question_id`` restarts in every file. With ``objects_from`` the variants on A-OKVQA's and GQA's pictures are
read: JSON lists ``aokvqa_pope_seem_<split>.json`` and ``gqa_pope_seem_<split>.json``, in ``<root>`` or in
``<root>/output/seem/{aokvqa,gqa}``.

Layout, LLaVA (its ``eval/pope``): the same files in ``coco/``, pictures in ``val2014/``, and ``llava_pope_test.jsonl``,
whose lines ``{"question_id", "image", "text", "category"}`` are the questions of all three files with an instruction
behind each. Ids, questions and answers are those of ``coco/``; with ``question_file: llava_pope_test.jsonl`` LLaVA's
texts are asked in place of the official ones. As its own script does, they are matched by their order within a
category, and here picture and question have to agree, too.

Layout, hub (``lmms-lab/POPE``): Parquet files with the columns ``question_id``, ``question``, ``answer``,
``image_source``, ``image`` and ``category``: the configuration ``Full`` with a split for each of the three, or
``default`` with one split ``test`` and the split's name in ``category``. Where both are there, ``Full`` is read. The
hub's rows could not be looked at when this was written: ``image_source`` is taken with or without ``.jpg``, and
``question_id`` must not repeat within a category.

Counts: 3 x 3,000 questions, half of them yes, on 500 pictures; an older random file has 2,910. The yes questions are
the same in all three files.

Split: the three files, scored apart and together. Contamination: COCO pictures recur in Vision-Flan's tasks.

Metric: ``pope_official``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy

from data_modules.benchmark import BenchmarkDataModule, TemplateName
from data_modules.reading.files import Record, fake_image, json_records, text_field, write_image, write_text
from data_modules.reading.hub_files import HubRow, hub_files, hub_rows, refuse_two_forms
from data_modules.reading.llava_files import with_texts
from lightning_m2pt.configuration.paths import FilePath
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.images import resolve_inside
from lightning_m2pt.inputs.mistakes import made_of_each
from lightning_m2pt.inputs.samples import ImageSource, Question

IMAGE_FOLDER = "images"
LLAVA_PICTURES = "val2014"
LLAVA_ANNOTATIONS = "coco"
SPLITS = ("random", "popular", "adversarial")
ANSWERS = ("yes", "no")
ANNOTATION_FILE = "coco_pope_{split}.json"
SEEM_FILE = "{source}_pope_seem_{split}.json"
HUB_SPLIT = "test"
HUB_COLUMNS = ("question_id", "question", "answer", "image_source", "category")


class POPE(BenchmarkDataModule):
    """POPE, with the splits whose files are there.

    Args:
        root: Folder with the splits' files.
        template: Name of the conversation template.
        batch_size: Questions answered at once.
        max_new_tokens: Limit on an answer's tokens.
        limit: How many questions to take, a yes and a no together, spread evenly over the set; None takes all.
        image_folder: Folder of the pictures within ``root``, or anywhere if absolute.
        objects_from: Whose objects and pictures are asked about.
        question_file: Name of LLaVA's question file within ``root``, whose texts are asked in place of the official
            ones.
    """

    name = "pope"
    rules = ("pope_official",)
    answers_in_turn = 2
    fixed_answers = ("Yes", "No")

    def __init__(
        self,
        root: FilePath,
        template: TemplateName,
        batch_size: int = 32,
        max_new_tokens: int = 50,
        limit: int | None = None,
        image_folder: str = IMAGE_FOLDER,
        objects_from: Literal["coco", "aokvqa", "gqa"] = "coco",
        question_file: str | None = None,
    ) -> None:
        super().__init__(root, template, batch_size, max_new_tokens, limit)
        self.image_folder = image_folder
        self.objects_from = objects_from
        self.question_file = question_file

    @property
    def pictures(self) -> Path:
        """The folder of the pictures: LLaVA's ``val2014`` where nothing else was set and that is what is there."""
        of_llava = self.root / LLAVA_PICTURES
        is_llavas = self.image_folder == IMAGE_FOLDER and not (self.root / IMAGE_FOLDER).is_dir() and of_llava.is_dir()
        return of_llava if is_llavas else self.root / self.image_folder

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
        paths = {split: self.annotation_file(split) for split in SPLITS}
        present = {split: path for split, path in paths.items() if path.exists()}
        hub = self.hub_splits() if self.objects_from == "coco" else {}
        if hub:
            if self.question_file is not None:
                raise BadInputError(
                    "the hub's files have their own texts",
                    where="pope.question_file",
                    expected="the original files, whose order LLaVA's question file has",
                )
            for path in present.values():
                refuse_two_forms(self.root, next(iter(hub.values())), path)
            return self.questions_of_hub(hub)
        if not present:
            raise BadInputError(
                "none of POPE's files is there",
                where=str(self.root),
                expected=", ".join(path.name for path in paths.values()) + ", or the hub's Parquet files",
            )
        parts = made_of_each(present.items(), lambda part: self.questions_of_split(*part))
        questions = [question for part in parts for question in part]
        return questions if self.question_file is None else with_texts(questions, self.root / self.question_file)

    def annotation_file(self, split: str) -> Path:
        """Returns a split's file: in the root, where a clone of the repository has it, or where LLaVA's layout has."""
        is_coco = self.objects_from == "coco"
        name = (ANNOTATION_FILE if is_coco else SEEM_FILE).format(source=self.objects_from, split=split)
        in_clone = self.root / "output" / ("coco" if is_coco else f"seem/{self.objects_from}") / name
        places = [in_clone, *([self.root / LLAVA_ANNOTATIONS / name] if is_coco else [])]
        return next((path for path in places if path.exists()), self.root / name)

    def hub_splits(self) -> dict[str, list[Path]]:
        """Returns the hub's files of every split, or all of them under ``test``; empty if they are not there."""
        full = {split: hub_files(self.root, split) for split in SPLITS}
        if any(full.values()):
            return {split: files for split, files in full.items() if files}
        together = hub_files(self.root, HUB_SPLIT)
        return {HUB_SPLIT: together} if together else {}

    def questions_of_split(self, split: str, path: Path) -> list[Question]:
        """Returns one file's questions.

        Raises:
            BadInputError: If a record is wrong.
        """

        def asked(place_and_record: Record) -> Question:
            where, record = place_and_record
            image_name = text_field(record, "image", where)
            image = resolve_inside(self.pictures, image_name, f"{where}: image")
            return question_of(record, ("text", "label"), split, image_name, image, where)

        return made_of_each(json_records(path), asked)

    def questions_of_hub(self, splits: Mapping[str, Sequence[Path]]) -> list[Question]:
        """Returns the questions in the hub's files, split after split as in the original form.

        Raises:
            BadInputError: If a row is wrong.
        """
        split_of_file = {file: name for name, files in splits.items() for file in files}

        def asked(row: HubRow) -> Question:
            split = text_field(row.record, "category", row.source)
            expected = SPLITS if split_of_file[row.file] == HUB_SPLIT else (split_of_file[row.file],)
            if split not in expected:
                raise BadInputError(
                    f"the value is {split!r:.40}", where=f"{row.source}: category", expected=" or ".join(expected)
                )
            image_name = text_field(row.record, "image_source", row.source)
            image_name = image_name if Path(image_name).suffix else f"{image_name}.jpg"
            keys = ("question", "answer")
            return question_of(row.record, keys, split, image_name, row.image, row.source)

        questions = made_of_each(hub_rows(list(split_of_file), HUB_COLUMNS, "image"), asked)
        return sorted(questions, key=lambda question: SPLITS.index(question.subtask))


def question_of(
    record: Mapping[str, Any], keys: tuple[str, str], split: str, image_name: str, image: ImageSource, where: str
) -> Question:
    """Returns a record's question.

    Args:
        record: The record or row.
        keys: Names of the question's field and the label's.
        split: Its split.
        image_name: File name of the picture.
        image: Where the picture is.
        where: The record's place, for errors.

    Raises:
        BadInputError: If a field is missing or wrong.
    """
    text_key, label_key = keys
    number = record.get("question_id")
    if type(number) not in (int, str):
        raise BadInputError(f"the value is {number!r:.40}", where=f"{where}: question_id", expected="a number")
    label = text_field(record, label_key, where)
    if label not in ANSWERS:
        raise BadInputError(f"the value is {label!r:.40}", where=f"{where}: {label_key}", expected="yes or no")
    return Question(
        id=f"{split}/{number}",
        subtask=split,
        text=text_field(record, text_key, where).strip(),
        target=label,
        image=image,
        image_id=image_name,
        source=where,
    )


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

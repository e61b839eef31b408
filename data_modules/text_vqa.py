"""TextVQA: questions about what is written in a picture, each answered by ten people.

Source: https://textvqa.org (Singh et al., CVPR 2019), CC BY 4.0; the pictures are Open Images' (CC BY 2.0).

Layout, original: ``<root>/TextVQA_0.5.1_{train,val}.json``, one object whose ``data`` is a list of records
``{"question": "what is the brand of phone?", "question_id": 34602, "image_id": "0054c91397f2fe05", "answers": [ten
texts], "image_classes", "flickr_original_url", "flickr_300k_url", "image_width", "image_height", "question_tokens",
"set_name"}``, of which the first four are read; and ``train_images/<image_id>.jpg`` for both splits (``.png`` is read
too). The test split has no answers and cannot be scored here.

Layout, hub (``lmms-lab/textvqa``): Parquet files of the splits ``train`` and ``validation`` with the columns
``image_id``, ``question_id``, ``question``, ``answers`` and ``image``; others are not read. The hub's rows could not be
looked at when this was written.

OCR tokens (``ocr_tokens: true``), as LLaVA-1.5 asks: behind the question, its first letter a capital and the others
small, stands "Reference OCR token: " and what OCR read in the picture, with commas between, and behind that LLaVA's
instruction. The tokens are those of
``TextVQA_Rosetta_OCR_v0.2_{train,val}.json`` in ``<root>``, a list under ``data`` of records with ``image_id`` and
``ocr_tokens``, or of the hub's column ``ocr_tokens``. Such scores say so in their name: they are not comparable with
those without, which is what ``ocr_tokens: false`` asks.

Counts: 34,602 questions on 21,953 pictures; val 5,000 on 3,166.

Split: ``val``, as is commonly reported. Contamination: TextCaps describes the same pictures, and other sets are made
from Open Images: not checked for Vision-Flan's tasks.

Metric: ``vqa_accuracy`` (mean soft accuracy). The target is what most people answered, the first of several; all ten
answers are the references.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy

from data_modules.benchmark import BenchmarkDataModule, TemplateName
from data_modules.reading.files import (
    Record,
    checked_object,
    fake_image,
    objects,
    read_text,
    text_field,
    write_image,
    write_text,
)
from data_modules.reading.hub_files import hub_files, hub_rows, refuse_neither_form, refuse_two_forms
from data_modules.reading.picture_files import picture_named
from lightning_m2pt.configuration.paths import FilePath
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.mistakes import made_of_each
from lightning_m2pt.inputs.samples import ImageSource, Question
from lightning_m2pt.metrics.predictions import is_encodable
from lightning_m2pt.system.strict_json import parse_json

VERSION = "0.5.1"
ANNOTATION_FILE = f"TextVQA_{VERSION}_{{split}}.json"
IMAGE_FOLDER = "train_images"
QUESTION_MARK = "{question}"
OCR_FILE = "TextVQA_Rosetta_OCR_v0.2_{split}.json"
INSTRUCTION = "Answer the question using a single word or phrase."
NUMBER_OF_ANSWERS = 10
HUB_SPLITS = {"train": "train", "val": "validation"}
HUB_COLUMNS = ("image_id", "question_id", "question", "answers")


class TextVQA(BenchmarkDataModule):
    """One split of TextVQA.

    Args:
        root: Folder with the splits' files.
        template: Name of the conversation template.
        batch_size: Questions answered at once.
        max_new_tokens: Limit on an answer's tokens.
        limit: How many questions to take, spread evenly over the set; None takes all.
        split: Which file to read.
        question_template: What is asked; ``{question}`` stands for the question.
        image_folder: Folder of the pictures within ``root``, or anywhere if absolute.
        ocr_tokens: Write what OCR read in the picture behind the question, as LLaVA-1.5 is evaluated.

    Raises:
        BadInputError: If the question template has no place for the question, or is set beside ``ocr_tokens``.
    """

    name = "text_vqa"
    rules = ("vqa_accuracy",)

    def __init__(
        self,
        root: FilePath,
        template: TemplateName,
        batch_size: int = 32,
        max_new_tokens: int = 50,
        limit: int | None = None,
        split: Literal["train", "val"] = "val",
        question_template: str = QUESTION_MARK,
        image_folder: str = IMAGE_FOLDER,
        ocr_tokens: bool = False,
    ) -> None:
        super().__init__(root, template, batch_size, max_new_tokens, limit)
        if QUESTION_MARK not in question_template:
            raise BadInputError(
                "what is asked has no place for the question",
                where="text_vqa.question_template",
                expected=f"a text with {QUESTION_MARK}",
            )
        if ocr_tokens and question_template != QUESTION_MARK:
            raise BadInputError(
                "OCR tokens come with LLaVA's own words around the question",
                where="text_vqa.question_template",
                expected="ocr_tokens or a template, not both",
            )
        self.split = split
        self.question_template = question_template
        self.image_folder = image_folder
        self.ocr_tokens = ocr_tokens

    @property
    def asked_with(self) -> str:
        """What is put to the model beside picture and question."""
        return "OCR tokens" if self.ocr_tokens else ""

    @staticmethod
    def write_fake(root: Path) -> None:
        """Writes six invented questions on three pictures; people agree on some answers and not on others."""
        items = [
            TextVQAItem(
                question_id=100 + number,
                image_id=f"fake_{number // 2}",
                image=fake_image(number // 2),
                question=f"What is word {number} on the sign?",
                answers=("stop", "Stop!", *(f"word {number}",) * 7, "unanswerable"),
            )
            for number in range(6)
        ]
        write_text_vqa(root, items)

    def read(self) -> list[Question]:
        """Returns the split's questions.

        Raises:
            BadInputError: If a record is wrong; there must be ten answers.
        """
        path = self.root / ANNOTATION_FILE.format(split=self.split)
        hub = hub_files(self.root, HUB_SPLITS[self.split])
        refuse_two_forms(self.root, hub, path)
        refuse_neither_form(self.root, hub, path, HUB_SPLITS[self.split])
        if hub:
            columns = [*HUB_COLUMNS, *(["ocr_tokens"] if self.ocr_tokens else [])]
            rows = hub_rows(hub, columns, "image")
            return made_of_each(rows, lambda row: self.question(row.record, row.image, row.source, row.record))
        folder = self.root / self.image_folder
        read = tokens_of_pictures(self.root / OCR_FILE.format(split=self.split)) if self.ocr_tokens else {}

        def asked(place_and_record: Record) -> Question:
            where, record = place_and_record
            image = picture_named(folder, text_field(record, "image_id", where), f"{where}: image_id")
            return self.question(record, image, where, read.get(text_field(record, "image_id", where), {}))

        return made_of_each(annotations(path), asked)

    def question(
        self, record: Mapping[str, Any], image: ImageSource, where: str, read: Mapping[str, Any] = {}
    ) -> Question:
        """Returns a record's question.

        Args:
            record: The record or row.
            image: Where the picture is.
            where: The record's place, for errors.
            read: What OCR read in the picture, under ``ocr_tokens``.

        Raises:
            BadInputError: If a field is missing or wrong.
        """
        number = record.get("question_id")
        if type(number) not in (int, str):
            raise BadInputError(f"the value is {number!r:.40}", where=f"{where}: question_id", expected="a number")
        text = text_field(record, "question", where).strip()
        answers = ten_answers(record, where)
        return Question(
            id=f"{self.split}/{number}",
            subtask="",
            text=with_tokens(text, read, where)
            if self.ocr_tokens
            else self.question_template.replace(QUESTION_MARK, text),
            target=most_frequent(answers),
            image=image,
            image_id=text_field(record, "image_id", where),
            source=where,
            references=answers,
        )


def tokens_of_pictures(path: Path) -> dict[str, dict[str, Any]]:
    """Returns the records of the file of OCR tokens, by picture.

    Raises:
        BadInputError: If the file cannot be read, or a record names no picture.
    """
    records = made_of_each(annotations(path), lambda record: record)
    return {text_field(record, "image_id", where): record for where, record in records}


def with_tokens(question: str, read: Mapping[str, Any], where: str) -> str:
    """Returns a question as LLaVA-1.5 is asked it.

    Raises:
        BadInputError: If nothing says what OCR read, not even that it was nothing.
    """
    tokens = read.get("ocr_tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, str) and is_encodable(token) for token in tokens):
        raise BadInputError(
            f"the OCR tokens of the question's picture are {tokens!r:.40}",
            where=where,
            expected="a list of texts, of every picture",
            hint="ocr_tokens: false asks without them",
        )
    return f"{question.capitalize()}\nReference OCR token: {', '.join(tokens)}\n{INSTRUCTION}"


def annotations(path: Path) -> Iterator[Record | BadInputError]:
    """Returns (``FILE: record N``, record) of the list under ``data``, or the mistake in a record's place.

    Raises:
        BadInputError: If the file cannot be read, is no object or has no such list.
    """
    records = checked_object(parse_json(read_text(path), path), str(path)).get("data")
    if not isinstance(records, list):
        raise BadInputError(f"the value is {records!r:.40}", where=f"{path}: data", expected="a list of records")
    return objects(records, path)


def ten_answers(record: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Returns a record's answers; some may be empty, but not all.

    Raises:
        BadInputError: If there are not ten texts.
    """
    answers = record.get("answers")
    place = f"{where}: answers"
    if not isinstance(answers, list) or len(answers) != NUMBER_OF_ANSWERS:
        found = f"there are {len(answers)} answers" if isinstance(answers, list) else f"the value is {answers!r:.40}"
        raise BadInputError(
            found, where=place, expected="a list of ten texts", hint="the test split has no answers to score with"
        )
    for answer in answers:
        if not isinstance(answer, str) or not is_encodable(answer):
            raise BadInputError(f"one of the answers is {answer!r:.40}", where=place, expected="ten Unicode texts")
    if not any(answer.strip() for answer in answers):
        raise BadInputError("all answers are empty", where=place, expected="ten texts")
    return tuple(answers)


def most_frequent(answers: Sequence[str]) -> str:
    """Returns the text that occurs most often, the first of several, and an empty one never."""
    return Counter(answer for answer in answers if answer.strip()).most_common(1)[0][0]


@dataclass(frozen=True)
class TextVQAItem:
    """One question to write about a picture ((H, W, 3) uint8), with ten answers."""

    question_id: int
    image_id: str
    image: numpy.ndarray
    question: str
    answers: tuple[str, ...]


def write_text_vqa(root: Path, items: Sequence[TextVQAItem], split: str = "val") -> None:
    """Writes items in TextVQA's layout: ``TextVQA_0.5.1_<split>.json``, and ``.png`` pictures in ``train_images/``."""
    records = []
    for item in items:
        write_image(root / IMAGE_FOLDER / f"{item.image_id}.png", item.image)
        record = {
            "question": item.question,
            "question_id": item.question_id,
            "image_id": item.image_id,
            "image_classes": [],
            "flickr_original_url": "",
            "flickr_300k_url": "",
            "image_width": item.image.shape[1],
            "image_height": item.image.shape[0],
            "answers": list(item.answers),
            "question_tokens": item.question.lower().replace("?", "").split(),
            "set_name": split,
        }
        records.append(record)
    content = {"dataset_type": split, "dataset_name": "textvqa", "dataset_version": VERSION, "data": records}
    write_text(root / ANNOTATION_FILE.format(split=split), json.dumps(content, ensure_ascii=False) + "\n")

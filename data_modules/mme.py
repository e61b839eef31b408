"""MME: 14 subtasks of yes/no questions, two on every picture.

Source: https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models, branch Evaluation (Fu et al., 2023). The
pictures are given out on request, for academic use.

Layout, original: ``<root>/<subtask>/`` or ``<root>/MME_Benchmark_release_version/<subtask>/``, in either of two forms:
``<name>.jpg`` or ``.png`` and ``<name>.txt`` side by side, or ``images/`` and ``questions_answers_YN/`` (artwork,
celebrity, landmark, posters, scene). A text file has two lines ``question<TAB>Yes`` or ``question<TAB>No``. A name can
recur in several subtasks, so the key is (subtask, name).

Layout, hub (``lmms-lab/MME``): Parquet files of the split ``test`` with the columns ``question_id``
(``count/000000006040.jpg``), ``image``, ``question``, ``answer`` and ``category``. The form of ``question_id`` is that
of LLaVA's file; the hub's own rows could not be looked at when this was written.

Layout, M2PT: a JSON lines file named by ``question_file``, with ``question_id``, ``image``, ``text``, ``target`` and
``category``, beside the original pictures.

Layout, LLaVA (its ``eval/MME``): ``llava_mme.jsonl`` beside ``MME_Benchmark_release_version/``. The official questions
are asked from the folder; with ``question_file: llava_mme.jsonl`` those of its lines, which end in an instruction of
LLaVA's own. No line of such a file has a ``target``: the right answers are those of the folder's text files, found by
picture and question as LLaVA's ``convert_answer_to_mme.py`` finds them.

All of them give a question the same id, and the questions in the same order: of a picture's two the Yes question is the
first, as in all original files.

Counts: 2,374 questions on 1,187 pictures. Perception (10 subtasks, at most 2000 points): existence 60, count 60,
position 60, color 60, posters 294, celebrity 340, scene 400, landmark 400, artwork 400, OCR 40. Cognition (4, at most
800): commonsense_reasoning 140, numerical_calculation 40, text_translation 40, code_reasoning 40.

Split: test only. Contamination: existence, count, position and color use COCO pictures.

Metric: ``mme_official``; the questions end in "Please answer yes or no." and are asked as they are.
"""

import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy

from data_modules.benchmark import BenchmarkDataModule, TemplateName
from data_modules.reading.files import Record, fake_image, json_records, read_text, text_field, write_image, write_text
from data_modules.reading.hub_files import hub_files, hub_rows, refuse_two_forms
from data_modules.reading.llava_files import bare_question
from lightning_m2pt.configuration.paths import FilePath
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.images import resolve_inside
from lightning_m2pt.inputs.mistakes import made_of_each, refuse
from lightning_m2pt.inputs.samples import ImageSource, Question
from lightning_m2pt.metrics.mme import SUBTASKS

RELEASE_FOLDER = "MME_Benchmark_release_version"
HUB_SPLIT = "test"
IMAGE_SUFFIXES = (".jpg", ".png", ".jpeg")
SEPARATE_TEXTS = "questions_answers_YN"
SEPARATE_IMAGES = "images"
ANSWERS = ("Yes", "No")


class MME(BenchmarkDataModule):
    """MME, with the subtasks whose folders are there.

    Args:
        root: Folder of the subtasks' folders.
        template: Name of the conversation template.
        batch_size: Questions answered at once.
        max_new_tokens: Limit on an answer's tokens.
        limit: How many questions to take, whole pictures, spread evenly over the set; None takes all.
        question_file: Name of a JSON lines file within ``root`` to read instead of the text files or the hub's.
    """

    name = "mme"
    rules = ("mme_official",)
    fixed_answers = ("Yes", "No")
    questions_per_group = 2

    def __init__(
        self,
        root: FilePath,
        template: TemplateName,
        batch_size: int = 32,
        max_new_tokens: int = 128,
        limit: int | None = None,
        question_file: str | None = None,
    ) -> None:
        super().__init__(root, template, batch_size, max_new_tokens, limit)
        self.question_file = question_file

    @property
    def folder(self) -> Path:
        """Where the subtasks' folders are."""
        nested = self.root / RELEASE_FOLDER
        return nested if nested.is_dir() else self.root

    @staticmethod
    def write_fake(root: Path) -> None:
        """Writes three subtasks with two invented pictures each, one of them in the layout with two folders."""
        items = [
            MMEItem(
                subtask,
                f"fake_{number}",
                fake_image(number),
                (
                    (f"Is the number {number} in {subtask}? Please answer yes or no.", "Yes"),
                    (f"Is the number {number + 1} in {subtask}? Please answer yes or no.", "No"),
                ),
            )
            for subtask in ("existence", "count")
            for number in range(2)
        ]
        write_mme(root, items)
        for number in range(2):
            write_image(root / "scene" / SEPARATE_IMAGES / f"fake_{number}.jpg", fake_image(number))
            text = "Is this a scene? Please answer yes or no.\tYes\nIs this a car? Please answer yes or no.\tNo\n"
            write_text(root / "scene" / SEPARATE_TEXTS / f"fake_{number}.txt", text)

    def read(self) -> list[Question]:
        """Returns the questions, subtask after subtask in the official order, pictures by name.

        Raises:
            BadInputError: If there is no subtask, an unknown one, or a picture without exactly two questions.
        """
        if self.question_file is not None:
            return paired(self.records_of_file(self.root / self.question_file))
        hub = hub_files(self.root, HUB_SPLIT)
        if hub:
            for subtask in SUBTASKS:
                refuse_two_forms(self.root, hub, self.folder / subtask)
            rows = hub_rows(hub, ["question_id", "question", "answer", "category"], "image")
            return paired(
                made_of_each(rows, lambda row: record_of(row.record, "question", "answer", row.source, row.image))
            )
        if not self.root.is_dir():
            raise BadInputError(
                "the folder does not exist",
                where=str(self.root),
                expected="MME's subtask folders, or the hub's Parquet files",
            )
        folders = {path.name for path in self.folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
        unknown = sorted(folders - set(SUBTASKS))
        if unknown or not folders:
            raise BadInputError(
                f"unknown subtask folders: {', '.join(unknown)}" if unknown else "there are no subtask folders",
                where=str(self.folder),
                expected="folders named " + ", ".join(SUBTASKS) + ", or the hub's Parquet files",
            )
        present = [self.folder / subtask for subtask in SUBTASKS if subtask in folders]
        return [question for part in made_of_each(present, questions_of_subtask) for question in part]

    def records_of_file(self, path: Path) -> "list[MMERecord]":
        """Returns the records of a JSON lines file, with pictures in either layout.

        Raises:
            BadInputError: If a record is wrong.
        """

        def asked(place_and_record: Record) -> MMERecord:
            where, record = place_and_record
            image = resolve_inside(self.folder, text_field(record, "image", where), f"{where}: image")
            in_folder = image.parent / SEPARATE_IMAGES / image.name
            if is_llavas:
                record = record | {"target": self.official_answer(record, where)}
            return record_of(record, "text", "target", where, in_folder if in_folder.exists() else image)

        records = list(json_records(path))
        is_llavas = not any("target" in each[1] for each in records if not isinstance(each, BadInputError))
        return made_of_each(records, asked)

    def official_answer(self, record: Mapping[str, Any], where: str) -> str:
        """Returns the answer that the original folder has to a record's question.

        Raises:
            BadInputError: If that folder has no such picture or question.
        """
        subtask = text_field(record, "category", where)
        stem = PurePosixPath(text_field(record, "question_id", where)).stem
        if subtask not in SUBTASKS or "\0" in stem:
            raise BadInputError(f"the value is {subtask!r:.40}", where=f"{where}: category", expected="one of MME's")
        folder = self.folder / subtask
        folder = folder / SEPARATE_TEXTS if (folder / SEPARATE_TEXTS).is_dir() else folder
        asked = bare_question(text_field(record, "text", where))
        answers = {bare_question(text): answer for _, text, answer in two_questions(folder / f"{stem}.txt")}
        if asked not in answers:
            raise BadInputError(
                f"{folder / stem}.txt has no question {asked!r:.80}",
                where=f"{where}: text",
                expected="a target, or a question of the original folder",
            )
        return answers[asked]


@dataclass(frozen=True)
class MMERecord:
    """One question as a record of its own, in the hub's form or M2PT's."""

    subtask: str
    name: str
    text: str
    answer: str
    image: ImageSource
    source: str


def record_of(record: Mapping[str, Any], text_key: str, answer_key: str, where: str, image: ImageSource) -> MMERecord:
    """Returns a checked record.

    Raises:
        BadInputError: If a field is missing or wrong, or the subtask unknown.
    """
    subtask, answer = text_field(record, "category", where), text_field(record, answer_key, where).strip()
    if subtask not in SUBTASKS:
        raise BadInputError(
            f"the value is {subtask!r:.40}", where=f"{where}: category", expected="one of " + ", ".join(SUBTASKS)
        )
    if answer not in ANSWERS:
        raise BadInputError(f"the value is {answer!r:.40}", where=f"{where}: {answer_key}", expected="Yes or No")
    name = PurePosixPath(text_field(record, "question_id", where)).name
    return MMERecord(subtask, name, text_field(record, text_key, where).strip(), answer, image, where)


def paired(records: Iterable[MMERecord]) -> list[Question]:
    """Returns the questions in the order of the original form: subtasks as listed, pictures by name.

    Raises:
        BadInputError: If a picture has not exactly two questions, or there are none.
    """
    groups: dict[tuple[int, str], list[MMERecord]] = {}
    for record in records:
        # The original form is read in the order of its text files.
        key = SUBTASKS.index(record.subtask), f"{PurePosixPath(record.name).stem}.txt"
        groups.setdefault(key, []).append(record)

    def asked(group: list[MMERecord]) -> list[Question]:
        check_pair(len(group), group[0].name, group[0].source)
        # All original text files have the Yes question first; the order of rows elsewhere is nobody's promise.
        in_order = sorted(group, key=lambda record: ANSWERS.index(record.answer))
        return [question_of(record, number) for number, record in enumerate(in_order, start=1)]

    pairs = made_of_each((group for _, group in sorted(groups.items(), key=lambda item: item[0])), asked)
    return [question for pair in pairs for question in pair]


def question_of(record: MMERecord, number: int) -> Question:
    """Returns the first or second question about a picture."""
    return Question(
        id=f"{record.subtask}/{record.name}/{number}",
        subtask=record.subtask,
        text=record.text,
        target=record.answer,
        image=record.image,
        image_id=record.name,
        source=record.source,
    )


def check_pair(count: int, name: str, where: str) -> None:
    """Raises BadInputError unless a picture has exactly two questions."""
    if count != len(ANSWERS):
        raise BadInputError(
            f"the image {name!r} has {count} questions",
            where=where,
            expected="exactly two, or accuracy+ has no meaning",
        )


def questions_of_subtask(folder: Path) -> list[Question]:
    """Returns a subtask's questions.

    Raises:
        BadInputError: If there are none, or a text file has not exactly two questions answered Yes or No.
    """
    is_separate = (folder / SEPARATE_TEXTS).is_dir()
    # A Mac's archives leave a hidden `._NAME.txt` beside every file.
    texts = sorted((folder / SEPARATE_TEXTS if is_separate else folder).glob("[!.]*.txt"))
    if not texts:  # a folder that was made and never filled
        raise BadInputError("the subtask has no text files", where=str(folder), expected="one for every picture")
    images = folder / SEPARATE_IMAGES if is_separate else folder
    refuse(unmatched_pictures(images, {path.stem for path in texts}))

    def asked(path: Path) -> list[Question]:
        names = [path.stem + suffix for suffix in IMAGE_SUFFIXES]
        name = next((name for name in names if (images / name).exists()), names[0])
        image = resolve_inside(images, name, str(path))
        return [
            question_of(MMERecord(folder.name, name, text, answer, image, where), number)
            for number, (where, text, answer) in enumerate(two_questions(path), start=1)
        ]

    return [question for pair in made_of_each(texts, asked) for question in pair]


def unmatched_pictures(folder: Path, names: Set[str]) -> list[BadInputError]:
    """Returns the pictures about which nothing is asked, and those that are there twice under one name.

    Args:
        folder: Where a subtask's pictures are.
        names: Names of its text files, without their ending.
    """
    endings: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
            endings.setdefault(stem, []).append(name)
    unasked = [
        BadInputError("nothing is asked about the picture", where=str(folder / found[0]), expected=f"{stem}.txt")
        for stem, found in endings.items()
        if stem not in names
    ]
    twice = [
        BadInputError(f"the picture is there twice: {', '.join(found)}", where=str(folder), expected="one of them")
        for stem, found in endings.items()
        if stem in names and len(found) > 1
    ]
    return [*unasked, *twice]


def two_questions(path: Path) -> list[tuple[str, str, str]]:
    """Returns (``FILE:LINE``, question, answer) of both lines of a text file.

    Raises:
        BadInputError: If there are not exactly two, or an answer is neither Yes nor No.
    """
    lines = [(number, line) for number, line in enumerate(read_text(path).split("\n"), start=1) if line.strip()]
    check_pair(len(lines), path.stem, str(path))
    rows = []
    for number, line in lines:
        text, _, answer = line.rpartition("\t")
        if not text.strip() or "\t" in text.strip() or answer.strip() not in ANSWERS:
            raise BadInputError(
                f"the line is {line!r:.60}", where=f"{path}:{number}", expected="a question, a tab, and Yes or No"
            )
        rows.append((f"{path}:{number}", text.strip(), answer.strip()))
    return rows


@dataclass(frozen=True)
class MMEItem:
    """One picture ((H, W, 3) uint8) to write and its two questions with ``Yes`` or ``No``."""

    subtask: str
    name: str
    image: numpy.ndarray
    questions: tuple[tuple[str, str], tuple[str, str]]


def write_mme(root: Path, items: Sequence[MMEItem]) -> None:
    """Writes items in MME's side-by-side layout: ``<subtask>/<name>.png`` and ``<subtask>/<name>.txt``."""
    for item in items:
        folder = root / item.subtask
        write_image(folder / f"{item.name}.png", item.image)
        write_text(folder / f"{item.name}.txt", "".join(f"{text}\t{answer}\n" for text, answer in item.questions))

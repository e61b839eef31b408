"""MME: 14 subtasks of yes/no questions, two on every picture.

Source: https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models, branch Evaluation (Fu et al., 2023). The
pictures are given out on request, for academic use.

Layout: ``<root>/<subtask>/``, in either of two forms: ``<name>.jpg`` or ``.png`` and ``<name>.txt`` side by side, or
``images/`` and ``questions_answers_YN/`` (artwork, celebrity, landmark, posters, scene). A text file has two lines
``question<TAB>Yes`` or ``question<TAB>No``. A name can recur in several subtasks, so the key is (subtask, name).

Counts: 2,374 questions on 1,187 pictures. Perception (10 subtasks, at most 2000 points): existence 60, count 60,
position 60, color 60, posters 294, celebrity 340, scene 400, landmark 400, artwork 400, OCR 40. Cognition (4, at most
800): commonsense_reasoning 140, numerical_calculation 40, text_translation 40, code_reasoning 40.

Split: test only. Contamination: existence, count, position and color use COCO pictures.

Metric: ``mme_official``; the questions end in "Please answer yes or no." and are asked as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from data_modules.benchmark import BenchmarkDataModule, TemplateName
from data_modules.files import fake_image, read_text, write_image, write_text
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.images import resolve_inside
from lightning_m2pt.metrics.mme import SUBTASKS
from lightning_m2pt.types import Question

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
    """

    name = "mme"
    rules = ("mme_official",)
    fixed_answers = ("Yes", "No")
    questions_per_group = 2

    def __init__(
        self,
        root: str,
        template: TemplateName,
        batch_size: int = 32,
        max_new_tokens: int = 128,
        limit: int | None = None,
    ) -> None:
        super().__init__(root, template, batch_size, max_new_tokens, limit)

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
            BadInputError: If there is no subtask, an unknown one, or a text file without exactly two questions.
        """
        if not self.root.is_dir():
            raise BadInputError("the folder does not exist", where=str(self.root), expected="MME's subtask folders")
        folders = {path.name for path in self.root.iterdir() if path.is_dir() and not path.name.startswith(".")}
        unknown = sorted(folders - set(SUBTASKS))
        if unknown or not folders:
            raise BadInputError(
                f"unknown subtask folders: {', '.join(unknown)}" if unknown else "there are no subtask folders",
                where=str(self.root),
                expected="folders named " + ", ".join(SUBTASKS),
            )
        return [
            question
            for subtask in SUBTASKS
            if subtask in folders
            for question in questions_of_subtask(self.root / subtask)
        ]


def questions_of_subtask(folder: Path) -> list[Question]:
    """Returns a subtask's questions.

    Raises:
        BadInputError: If there are none, or a text file has not exactly two questions answered Yes or No.
    """
    is_separate = (folder / SEPARATE_TEXTS).is_dir()
    texts = sorted((folder / SEPARATE_TEXTS if is_separate else folder).glob("*.txt"))
    if not texts:
        raise BadInputError("the subtask has no text files", where=str(folder), expected="one for every picture")
    images = folder / SEPARATE_IMAGES if is_separate else folder
    questions = []
    for path in texts:
        names = [path.stem + suffix for suffix in IMAGE_SUFFIXES]
        name = next((name for name in names if (images / name).exists()), names[0])
        image = resolve_inside(images, name, str(path))
        for number, (where, text, answer) in enumerate(two_questions(path), start=1):
            questions.append(
                Question(
                    id=f"{folder.name}/{name}/{number}",
                    subtask=folder.name,
                    text=text,
                    target=answer,
                    image=image,
                    image_id=name,
                    source=where,
                )
            )
    return questions


def two_questions(path: Path) -> list[tuple[str, str, str]]:
    """Returns (``FILE:LINE``, question, answer) of both lines of a text file.

    Raises:
        BadInputError: If there are not exactly two, or an answer is neither Yes nor No.
    """
    lines = [(number, line) for number, line in enumerate(read_text(path).split("\n"), start=1) if line.strip()]
    if len(lines) != len(ANSWERS):
        raise BadInputError(
            f"the image {path.stem!r} has {len(lines)} questions",
            where=str(path),
            expected="exactly two, or accuracy+ has no meaning",
        )
    rows = []
    for number, line in lines:
        text, _, answer = line.rpartition("\t")
        if not text.strip() or answer.strip() not in ANSWERS:
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

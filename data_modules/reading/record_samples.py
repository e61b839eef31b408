"""From records of any form to samples."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_modules.reading.columns import ROLES, plain
from data_modules.reading.picture_cells import Picture, PictureCells
from data_modules.reading.talks import Talk, talk_of_columns, talk_of_conversation, text_of
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.samples import Sample
from lightning_m2pt.inputs.templates import IMAGE_MARK
from lightning_m2pt.metrics.predictions import is_encodable

DESCRIBE = "Describe the image."
"""What is asked for a caption, unless a setting says otherwise."""
FORMS = {
    "conversation": ("conversation",),
    "question": ("question", "answer", "input", "history"),
    "answer": ("answer", "input", "history"),
    "caption": ("caption",),
}
"""Roles of every form; the first column that a form needs names it."""
EVERYWHERE = ("id", "image", "system", "task")
NOT_READ = ("video", "videos", "audio", "audios")
"""What other tools' records may hold besides; without it a question would be about nothing."""
EMPTY = "the answer is empty"
NAMES_OF_PICTURES = frozenset(name for name in ROLES["image"] if name.startswith(("image", "img", "picture")))
"""What a picture may stand under that a record has in no other place; other names may be those of other things."""
NO_MARK, FIRST_ANSWER, TEXT_ONLY, SEVERAL, OWN_SYSTEM = (
    "with pictures and no mark for them, whose first question shows them",
    "that begin with a turn of the model's, which is left out",
    "without a picture",
    "with several pictures",
    "with a system text of their own",
)


def form_of(columns: Mapping[str, str], names: Sequence[str], question: str | None, where: str) -> dict[str, str]:
    """Returns the columns that are used, by role: those of the form that the columns have.

    Args:
        columns: The column of every role that has one.
        names: All columns, for errors.
        question: What is asked where there is no column of questions.
        where: The file, for errors.

    Raises:
        BadInputError: If they have no form.
    """
    if "conversation" in columns:
        form = "conversation"
    elif {"question", "answer"} <= set(columns):
        form = "question"
    elif "answer" in columns and question is not None:
        form = "answer"
    elif "caption" in columns and "question" not in columns:
        form = "caption"
    else:
        alone = next((columns[role] for role in ("question", "answer") if role in columns), None)
        raise BadInputError(
            "no column is a conversation, a caption, or question and answer"
            + (f": of {', '.join(names):.100}" if alone is None else f": {alone!r:.60} is alone"),
            where=where,
            expected="columns such as conversations, messages, question and answer, instruction and output, or caption",
            hint="name them: columns: {question: COLUMN, answer: COLUMN}; or set `question` to ask the same of all",
        )
    return {role: column for role, column in columns.items() if role in (*FORMS[form], *EVERYWHERE)}


@dataclass
class RecordSamples:
    """Makes samples of the records of one file.

    Attributes:
        columns: The column of every role that is used.
        cells: Reads the cells of pictures.
        name: The task of records that name none.
        question: What is asked where there is no column of questions.
        id_prefix: What all ids begin with.
        hint_for_empty: What to do about an empty answer.
        skip_empty_answers: Leave out records without an answer.
        one_picture_only: Leave out records without a picture and with several.
        noted: How many records were which kind of unusual.
        left_out: How many records were left out, by reason.
    """

    columns: Mapping[str, str]
    cells: PictureCells
    name: str
    question: str | None
    id_prefix: str
    hint_for_empty: str
    skip_empty_answers: bool = False
    one_picture_only: bool = False
    noted: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def sample(self, number: int, where: str, record: Mapping[str, Any]) -> Sample | None:
        """Returns a record's sample; None if it is left out, which is counted.

        Args:
            number: The record's place in its file, from 0: ids need not be unique.
            where: ``FILE:LINE`` or ``FILE: record N``.
            record: The record.

        Raises:
            BadInputError: If it is wrong.
        """
        unread = next((key for key in NOT_READ if record.get(key)), None)
        if unread is not None:
            raise BadInputError(
                f"the record has {unread}", where=f"{where}: {unread}", expected="pictures and texts alone"
            )
        talk = self.talk(record, where)
        if not all(turn.answer for turn in talk.turns):
            if self.skip_empty_answers:
                self.left_out[EMPTY] += 1
                return None
            raise self.empty_answer(record, where)
        pictures = self.pictures(record, talk, where)
        if self.one_picture_only and len(pictures) != 1:
            self.left_out["they have several pictures" if pictures else "they have no picture"] += 1
            return None
        shown = shown_in_turns(talk.marks, len(pictures), where)
        self.note(talk, pictures)
        images = [picture.image for picture in pictures]
        return Sample(
            id=self.id_prefix + self.id_of(number, record, where),
            image=images[0] if images else None,
            image_id="\n".join(picture.name for picture in pictures),
            turns=talk.turns,
            tasks=(self.task_of(record, where),) * len(talk.turns),
            source=where,
            further_images=tuple(images[1:]),
            system=talk.system,
            shown_in_turns=shown,
        )

    def empty_answer(self, record: Mapping[str, Any], where: str) -> BadInputError:
        """Returns the error about an answer that is empty."""
        own = record.get(self.columns.get("id", ""))
        column = next(self.columns[role] for role in ("conversation", "answer", "caption") if role in self.columns)
        return BadInputError(
            "the answer is empty" if own is None else f"the answer of {own!r:.80} is empty",
            where=f"{where}: {column}",
            expected="an answer",
            hint=self.hint_for_empty,
        )

    def talk(self, record: Mapping[str, Any], where: str) -> Talk:
        """Returns what a record says.

        Raises:
            BadInputError: If it is wrong.
        """
        column = self.columns.get("conversation")
        if column is None:
            question = DESCRIBE if self.question is None and "caption" in self.columns else self.question
            return talk_of_columns(record, self.columns, question, where)
        if record.get(column) is None:
            raise BadInputError(f"the key {column!r} is missing", where=where, expected="a conversation under it")
        system = self.columns.get("system", "")
        text = text_of(record.get(system), f"{where}: {system}", may_be_empty=True).strip() if system else ""
        return talk_of_conversation(record[column], text, f"{where}: {column}")

    def pictures(self, record: Mapping[str, Any], talk: Talk, where: str) -> list[Picture]:
        """Returns a record's pictures: those of its column, or those that stand inside of its messages.

        Raises:
            BadInputError: If one is no picture, or both places have some that differ.
        """
        column = self.columns.get("image", "")
        place = f"{where}: {column}"
        of_column = self.cells.pictures(record.get(column), place) if column else []
        inside = [picture for cell in talk.pictures for picture in self.cells.pictures(cell, where)]
        if of_column and inside and of_column != inside:
            raise BadInputError(
                "the messages name other pictures than the record",
                where=place,
                expected="pictures in one of both places, or the same in the same order",
            )
        if not of_column and not inside:
            other = next((key for key, value in record.items() if value and plain(key) in NAMES_OF_PICTURES), None)
            if other is not None:
                raise BadInputError(
                    f"the record has no picture under {column!r:.60}, and {other!r:.60} is not read"
                    if column
                    else f"the picture under {other!r:.60} is not read",
                    where=where,
                    expected="pictures of all records in one column",
                )
        return of_column or inside

    def note(self, talk: Talk, pictures: list[Picture]) -> None:
        """Counts what is unusual of a record."""
        if talk.began_with_answer:
            self.noted[FIRST_ANSWER] += 1
        if talk.system:
            self.noted[OWN_SYSTEM] += 1
        if pictures and not any(talk.marks) and "conversation" in self.columns:
            self.noted[NO_MARK] += 1
        if len(pictures) != 1:
            self.noted[SEVERAL if pictures else TEXT_ONLY] += 1

    def id_of(self, number: int, record: Mapping[str, Any], where: str) -> str:
        """Returns a record's place and its id, if it has one: a text or a whole number.

        Raises:
            BadInputError: If it is something else.
        """
        column = self.columns.get("id", "")
        own = record.get(column) if column else None
        if own is None:
            return str(number)
        is_text = isinstance(own, str) and own.strip() and is_encodable(own)
        if not is_text and (not isinstance(own, int) or isinstance(own, bool)):
            raise BadInputError(
                f"the id is {own!r:.40}", where=f"{where}: {column}", expected="a text or a whole number"
            )
        return f"{number}/{own}"

    def task_of(self, record: Mapping[str, Any], where: str) -> str:
        """Returns a record's task, or the set's name.

        Raises:
            BadInputError: If it is no text.
        """
        column = self.columns.get("task", "")
        own = record.get(column) if column else None
        return self.name if own is None else text_of(own, f"{where}: {column}")


def shown_in_turns(marks: tuple[int, ...], pictures: int, where: str) -> tuple[int, ...]:
    """Returns how many pictures each of the first turns shows; empty where the first question shows all of them.

    Pictures without any mark are shown by the first question, as other tools do.

    Args:
        marks: How many each question marks.
        pictures: How many there are.
        where: ``FILE:LINE`` or record, for the error.

    Raises:
        BadInputError: If there are other numbers of marks and pictures.
    """
    if sum(marks) not in (0, pictures):
        raise BadInputError(
            f"there are {sum(marks)} {IMAGE_MARK} marks for {pictures} image{'s' * (pictures != 1)}"
            if pictures
            else f"there are {sum(marks)} {IMAGE_MARK} marks, and the record has no image",
            where=where,
            expected="a mark for every image, or none",
        )
    if sum(marks) == marks[0]:
        return ()
    last = max(place for place, count in enumerate(marks) if count)
    return marks[: last + 1]

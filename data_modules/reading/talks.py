"""From a record's columns to questions and answers: conversations, messages, instructions, captions.

``<image>`` marks are counted and taken out: the template puts a question's pictures where published training had them,
in front of its text. A first turn of the model's is left out, as LLaVA's training does (``preprocess_v1``: "Skip the
first one if it is not from human"); LLaMA-Factory leaves out the whole record.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.samples import Turn
from lightning_m2pt.inputs.templates import IMAGE_MARK
from lightning_m2pt.metrics.predictions import is_encodable
from lightning_m2pt.system.strict_json import parse_json

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
SPEAKERS = {"human": USER, "user": USER, "gpt": ASSISTANT, "assistant": ASSISTANT, "model": ASSISTANT, "system": SYSTEM}
"""What a turn may be from, as ShareGPT, LLaVA, OpenAI and Gemini write it."""
SHAPES = (("from", "value"), ("role", "content"))
NAMES_OF_PICTURES = ("image", "image_url", "path", "url")


class Talk(NamedTuple):
    """What a record says.

    Attributes:
        turns: Questions without marks, and answers, without outer spaces; an answer may be empty.
        marks: How many pictures each question marks.
        system: A system text of its own, or empty.
        pictures: Cells of pictures that stand inside of messages.
        began_with_answer: Whether a first turn of the model's was left out.
    """

    turns: tuple[Turn, ...]
    marks: tuple[int, ...]
    system: str = ""
    pictures: tuple[Any, ...] = ()
    began_with_answer: bool = False


class Entry(NamedTuple):
    """One turn of a conversation: who says what, the cells of the pictures inside, and its number."""

    speaker: str
    text: str
    pictures: tuple[Any, ...]
    number: int

    def place(self, where: str) -> str:
        """Returns where it stands in a conversation."""
        return place_of_entry(where, self.number)


def place_of_entry(where: str, number: int) -> str:
    """Returns where a conversation's turn stands; numbers begin with 1."""
    return f"{where}: entry {number}"


def talk_of_conversation(cell: Any, system: str, where: str) -> Talk:
    """Returns what a conversation says.

    Args:
        cell: A list of ``{"from", "value"}``, of ``{"role", "content"}`` or of ``{"user", "assistant"}``; in a table
            its JSON. A content is a text, or a list of parts such as ``{"type": "image"}``.
        system: The record's own system text, or empty.
        where: ``FILE:LINE: key`` or record, for errors.

    Raises:
        BadInputError: If user and model do not take turns, or a turn is from somebody else.
    """
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        cell = parse_json(cell, where, first_line=0, expected="a JSON list of turns")
    if not isinstance(cell, list) or not cell:
        found = "empty" if cell in ([], None) else f"{cell!r:.40}"
        raise BadInputError(f"the conversation is {found}", where=where, expected="a list of questions and answers")
    entries = [entry for number, item in enumerate(cell, start=1) for entry in entries_of(item, where, number)]
    if entries[0].speaker == SYSTEM:
        if system and system != entries[0].text.strip():
            raise BadInputError("there are two system texts", where=entries[0].place(where), expected="one")
        system, entries = entries[0].text.strip(), entries[1:]
        refuse_marks(system, where)
    began_with_answer = bool(entries) and entries[0].speaker == ASSISTANT
    if began_with_answer:
        refuse_marks(entries[0].text, where)
        entries = entries[1:]
    for number, entry in enumerate(entries):
        expected = (USER, ASSISTANT)[number % 2]
        if entry.speaker != expected:
            raise BadInputError(
                f"two turns of the {entry.speaker} follow each other"
                if entry.speaker != SYSTEM
                else "a system text stands behind the first turn",
                where=entry.place(where),
                expected=f"a turn of the {expected}",
            )
    if not entries or len(entries) % 2:
        raise BadInputError("the last question has no answer", where=where, expected="one answer a question")
    questions, answers = entries[::2], entries[1::2]
    for answer in answers:
        refuse_marks(answer.text, where)
    asked = [without_marks(entry.text, where) for entry in questions]
    return Talk(
        tuple(Turn(text, answer.text.strip()) for (text, _), answer in zip(asked, answers, strict=True)),
        tuple(marks for _, marks in asked),
        system,
        tuple(picture for entry in questions for picture in entry.pictures),
        began_with_answer,
    )


def talk_of_columns(record: Mapping[str, Any], columns: Mapping[str, str], question: str | None, where: str) -> Talk:
    """Returns what a record of columns says: an instruction with its input and history, a question, or a caption.

    Args:
        record: The record.
        columns: The column of every role.
        question: What is asked where there is no column of questions.
        where: ``FILE:LINE`` or record, for errors.

    Raises:
        BadInputError: If a text is missing or no text.
    """

    def text(role: str, *, may_be_empty: bool = False) -> str:
        return text_of(record.get(columns[role]), f"{where}: {columns[role]}", may_be_empty) if role in columns else ""

    asked = question if "question" not in columns else text("question")
    further = text("input", may_be_empty=True)
    asked_text, marks = without_marks("\n".join(filter(None, (asked, further))), where)
    answer = text("caption" if "caption" in columns else "answer", may_be_empty=True).strip()
    refuse_marks(answer, where)
    earlier = earlier_turns(record.get(columns.get("history", "")), f"{where}: history")
    return Talk(
        (*(turn for turn, _ in earlier), Turn(asked_text, answer)),
        (*(count for _, count in earlier), marks),
        text("system", may_be_empty=True).strip(),
    )


def earlier_turns(cell: Any, where: str) -> list[tuple[Turn, int]]:
    """Returns the turns before an instruction, ``[[question, answer], ...]``, with their marks.

    Raises:
        BadInputError: If they are something else.
    """
    if isinstance(cell, str):
        cell = parse_json(cell, where, first_line=0, expected="a JSON list of pairs")
    turns = []
    for pair in cell or []:
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadInputError(f"an earlier turn is {pair!r:.40}", where=where, expected="[question, answer]")
        question, marks = without_marks(text_of(pair[0], where), where)
        answer = text_of(pair[1], where)
        refuse_marks(answer, where)
        turns.append((Turn(question, answer.strip()), marks))
    return turns


def entries_of(item: Any, where: str, number: int) -> Iterator[Entry]:
    """Yields one turn, or the question and the answer of a pair.

    Args:
        item: What stands in the list.
        where: Where the conversation is, for errors.
        number: The item's number, from 1.

    Raises:
        BadInputError: If it is no turn, or from somebody else than user, model or system.
    """
    if isinstance(item, dict) and USER in item and ASSISTANT in item:
        for speaker in (USER, ASSISTANT):
            text = text_of(item[speaker], where, speaker == ASSISTANT, entry=number)
            yield Entry(speaker, text, (), number)
        return
    keys = next((keys for keys in SHAPES if isinstance(item, dict) and keys[0] in item and keys[1] in item), None)
    if keys is None:
        raise BadInputError(
            f"the turn is {item!r:.60}",
            where=place_of_entry(where, number),
            expected='{"from", "value"}, or {"role", "content"}',
        )
    speaker = SPEAKERS.get(str(item[keys[0]]).strip().lower(), "")
    if not speaker:
        raise BadInputError(
            f"the turn is from {item[keys[0]]!r:.40}",
            where=place_of_entry(where, number),
            expected=", ".join(SPEAKERS),
        )
    content = item[keys[1]]
    pictures: tuple[Any, ...] = ()
    if isinstance(content, list):
        content, pictures = text_of_parts(content, place_of_entry(where, number))
    text = text_of(content, where, speaker == ASSISTANT, numbers=False, entry=number)
    if pictures and speaker != USER:
        raise BadInputError(
            f"a picture stands in a turn of the {speaker}",
            where=place_of_entry(where, number),
            expected="pictures in questions",
        )
    yield Entry(speaker, text, pictures, number)


def text_of_parts(parts: Sequence[Any], place: str) -> tuple[str, tuple[Any, ...]]:
    """Returns the text of a content in parts, with a mark for every picture, and the cells of pictures that it names.

    Raises:
        BadInputError: If a part is neither text nor picture.
    """
    texts: list[str] = []
    pictures: list[Any] = []
    was_text = True
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"] if was_text else f"\n{part['text']}")
            was_text = True
        elif kind in ("image", "image_url"):
            named = next((part[key] for key in NAMES_OF_PICTURES if part.get(key) is not None), None)
            if isinstance(named, Mapping) and "url" in named:
                named = named["url"]
            pictures += [] if named is None else [named]
            texts.append(f"\n{IMAGE_MARK}" if texts else IMAGE_MARK)
            was_text = False
        else:
            raise BadInputError(f"a part of the turn is {part!r:.60}", where=place, expected="parts of text and images")
    return "".join(texts), tuple(pictures)


def text_of(cell: Any, where: str, may_be_empty: bool = False, *, numbers: bool = True, entry: int = 0) -> str:
    """Returns a cell's text; a number is written out, and a list of one text is that text.

    Args:
        cell: The cell.
        where: Where it is, for errors.
        may_be_empty: Whether an empty text will do.
        numbers: Whether a number will do.
        entry: Number of the conversation's turn, from 1; 0 where it is none.

    Raises:
        BadInputError: If it is no text, or empty and may not be.
    """
    if isinstance(cell, list) and len(cell) == 1:
        cell = cell[0]
    if numbers and isinstance(cell, int | float) and not isinstance(cell, bool):
        cell = str(cell)
    if cell is None and may_be_empty:
        cell = ""
    if not isinstance(cell, str):
        what, expected = f"the value is {'missing' if cell is None else repr(cell):.40}", "a text"
    elif not may_be_empty and not cell.strip():
        what, expected = "the text is empty", "a text that is not empty"
    elif not is_encodable(cell):
        what, expected = "the text holds half a character", "Unicode text"
    else:
        return cell
    raise BadInputError(what, where=place_of_entry(where, entry) if entry else where, expected=expected)


def without_marks(text: str, place: str) -> tuple[str, int]:
    """Returns a question without its image marks and outer spaces, and how many there were.

    Raises:
        BadInputError: If words stand between two marks: they would be taken from their pictures.
    """
    marks = text.count(IMAGE_MARK)
    if marks > 1 and any(part.strip() for part in text.split(IMAGE_MARK)[1:-1]):
        raise BadInputError(
            f"words stand between the {marks} {IMAGE_MARK} marks of a question",
            where=place,
            expected="the marks side by side: templates show all pictures of a question in front of its text",
        )
    return text.replace(IMAGE_MARK, "").strip(), marks


def refuse_marks(text: str, place: str) -> None:
    """Refuses an image mark where no picture can be shown.

    Raises:
        BadInputError: If there is one.
    """
    if IMAGE_MARK in text:
        raise BadInputError(
            f"an {IMAGE_MARK} mark stands outside of questions", where=place, expected="marks in questions"
        )

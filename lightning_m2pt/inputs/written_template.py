"""Conversation templates as YAML files: texts that stand before, between and behind questions and answers."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inputs.samples import Turn
from lightning_m2pt.inputs.templates import IMAGE_MARK, Piece

SYSTEM_MARK = "<system>"
"""What stands in ``own_system`` in the place of a conversation's own system text."""
SHIPPED_SYSTEMS = frozenset(
    (
        f"<|im_start|>system\n{SYSTEM_MARK}<|im_end|>\n",
        f"<|start_header_id|>system<|end_header_id|>\n\n{SYSTEM_MARK}<|eot_id|>",
        f"<|system|>\n{SYSTEM_MARK}<|end|>\n",
    )
)
"""``own_system`` of forms that come with the package: their digests are those that they had without it."""


@dataclass(frozen=True)
class WrittenTemplate:
    """A conversation template that a file holds. Every text is taken as it stands, special tokens too.

    Attributes:
        name: The name users write, or the file's.
        before_answer: What stands between a question and its answer. Blanks at its end belong to the answer: the model
            is asked without them and writes them itself.
        before_question: What introduces a question.
        end_of_answer: The token that ends an answer; empty for the tokenizer's own end token.
        after_answer: What stands behind it.
        system: What stands before everything else.
        image: How a picture is written in front of its question, with the mark ``<image>`` in it.
        own_system: What stands in the place of ``system`` where a conversation has a system text of its own, with the
            mark ``<system>`` for that; empty: no conversation may have one.
    """

    name: str
    before_answer: str
    before_question: str = ""
    end_of_answer: str = ""
    after_answer: str = ""
    system: str = ""
    image: str = f"{IMAGE_MARK}\n"
    own_system: str = ""

    def digest(self) -> str:
        """Returns the SHA-256 of everything but the name."""
        *texts, own_system = astuple(self)[1:]
        decides = [*texts, own_system] if own_system and own_system not in SHIPPED_SYSTEMS else texts
        return hashlib.sha256(repr(tuple(decides)).encode()).hexdigest()

    def refuses_system(self, system: str) -> str:
        """Returns why a conversation cannot have a system text of its own; empty if it can."""
        return "" if self.own_system else "its file has no own_system, which says what stands around one"

    def pieces(self, turns: Sequence[Turn], images: Sequence[int] = (1,), system: str = "") -> list[Piece]:
        """Renders a conversation.

        Args:
            turns: Questions with their answers, whose outer white space is left out. The last answer may be empty:
                then the text ends where the model has to go on.
            images: How many images each of the first turns shows; turns behind them show none.
            system: What ``own_system`` is written with in the place of the template's system text; empty leaves that.

        Raises:
            BadInputError: If there is no turn, or an answer is missing anywhere but at the end.
            ValueError: If there is a system text and no place for it.
        """
        if system and not self.own_system:
            raise ValueError(self.refuses_system(system))
        if not turns:
            raise BadInputError("a conversation without a question", expected="at least one question")
        if not all(turn.answer.strip() for turn in turns[:-1]):
            raise BadInputError("an answer is missing before the last question", expected="one answer a question")
        if len(images) > len(turns):
            raise ValueError(f"images of {len(images)} turns, where there are {len(turns)}")
        before = self.own_system.replace(SYSTEM_MARK, system) if system else self.system
        pieces = [Piece(before, Span.SYSTEM)]
        before_image, _, behind_image = self.image.partition(IMAGE_MARK)
        asked = self.before_answer.rstrip(" ")
        for number, turn in enumerate(turns):
            pieces.append(Piece(self.before_question, Span.QUESTION))
            for _ in range(images[number] if number < len(images) else 0):
                pieces += [Piece(before_image, Span.QUESTION), Piece(IMAGE_MARK, Span.IMAGE)]
                pieces.append(Piece(behind_image, Span.QUESTION))
            pieces.append(Piece(turn.question + asked, Span.QUESTION))
            if answer := turn.answer.strip():
                lead = self.before_answer[len(asked) :]
                pieces.append(Piece(lead + answer + self.end_of_answer, Span.ANSWER))
                pieces.append(Piece(self.after_answer, Span.QUESTION))
        return [piece for piece in pieces if piece.text]


def written_template(content: Mapping[str, Any], name: str, path: Path) -> WrittenTemplate:
    """Returns the template that a file holds.

    Args:
        content: The file's keys and values.
        name: What the template is called.
        path: The file, for messages.

    Raises:
        BadInputError: If there is another key than a template's, a value that is no text, or a mark not where it
            belongs.
    """
    keys = [field.name for field in fields(WrittenTemplate) if field.name != "name"]
    for key, value in content.items():
        if key not in keys:
            raise BadInputError("unknown key", where=f"{path}: {key:.60}", expected=", ".join(keys))
        if not isinstance(value, str):
            raise BadInputError(f"{value!r:.60} is no text", where=f"{path}: {key}", expected="a text in quotes")
    if not content.get("before_answer"):
        raise BadInputError(
            "it does not say what stands between a question and its answer",
            where=f"{path}: before_answer",
            expected="a text",
        )
    made = WrittenTemplate(name, **content)
    if made.own_system and made.own_system.count(SYSTEM_MARK) != 1:
        raise BadInputError(
            f"the mark {SYSTEM_MARK} has to stand once, in the place of a record's own system text",
            where=f"{path}: own_system",
            expected=f'such as "{SYSTEM_MARK}\\n"',
        )
    if made.image.count(IMAGE_MARK) != 1 or IMAGE_MARK in "".join(astuple(replace(made, image=""))[1:]):
        raise BadInputError(
            f"the mark {IMAGE_MARK} has to stand once, in the key image",
            where=f"{path}: image",
            expected=f'such as "{IMAGE_MARK}\\n"',
        )
    return made

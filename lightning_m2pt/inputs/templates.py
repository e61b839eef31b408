"""Conversation templates: pure strings, no tokenizer.

A template turns questions and answers into pieces of text, each marked with what it is. Joined, the pieces are the
exact string the published preprocessing builds (``vicuna_v1``: LLaVA's ``v1``, "curious user").
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inputs.samples import Turn

IMAGE_MARK = "<image>"


@dataclass(frozen=True)
class Piece:
    """A stretch of the conversation's text and what it is."""

    text: str
    span: Span


@dataclass(frozen=True)
class ConversationTemplate:
    """How questions and answers become one text.

    Attributes:
        name: The name users write.
        system: What stands before everything else, its separator included.
        before_question: What introduces a question.
        before_answer: What introduces an answer, without the space before the answer itself.
        end_of_answer: The text of the end token; it closes every answer and is supervised with it.
        image_first: The image stands at the very front, before the system text, instead of in the first question.
    """

    name: str
    system: str
    before_question: str
    before_answer: str
    end_of_answer: str = "</s>"
    image_first: bool = False

    def refuses_system(self, system: str) -> str:
        """Returns why a conversation cannot have a system text of its own; empty if it can."""
        return "" if self.system else "it has no system text whose place another could take"

    def pieces(self, turns: Sequence[Turn], images: Sequence[int] = (1,), system: str = "") -> list[Piece]:
        """Renders a conversation.

        Args:
            turns: Questions with their answers. The last answer may be empty: then the text ends where the model
                has to go on.
            images: How many images each of the first turns shows; turns behind them show none.
            system: What stands in the place of the template's system text; empty leaves that.

        Returns:
            Pieces in order; for every image one is ``IMAGE_MARK`` with ``Span.IMAGE``. The published preprocessing
            moves the image to the front of the first question and writes a newline behind it; several stand there
            one after the other.

        Raises:
            BadInputError: If there is no turn, or an answer is missing anywhere but at the end.
        """
        if not turns:
            raise BadInputError("a conversation without a question", expected="at least one question")
        if len(images) > len(turns):
            raise ValueError(f"images of {len(images)} turns, where there are {len(turns)}")
        before = f"{system} " if system else self.system
        pieces = [Piece(before, Span.SYSTEM)] if before else []
        for number, turn in enumerate(turns):
            shown = [Piece(IMAGE_MARK, Span.IMAGE)] * (images[number] if number < len(images) else 0)
            if self.image_first:
                pieces = [*pieces, *shown] if number else [*shown, *pieces]
            pieces.append(Piece(self.before_question, Span.QUESTION))
            if not self.image_first:
                pieces += [each for mark in shown for each in (mark, Piece("\n", Span.QUESTION))]
            pieces.append(Piece(f"{turn.question} {self.before_answer}", Span.QUESTION))
            if turn.answer:
                # The space is the answer's: a tokenizer that makes a token of its own of it (Llama's before a digit)
                # leaves that token to the model, whose questions end without it.
                pieces.append(Piece(f" {turn.answer}{self.end_of_answer}", Span.ANSWER))
            elif number != len(turns) - 1:
                raise BadInputError("an answer is missing before the last question", expected="one answer a question")
        return pieces


VICUNA_V1 = ConversationTemplate(
    name="vicuna_v1",
    system=(
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions. "
    ),
    before_question="USER: ",
    before_answer="ASSISTANT:",
)
"""The template of M2PT's training and MME evaluation. Its separators are " " and "</s>"."""

PLAIN = ConversationTemplate(
    name="plain", system="", before_question="Question: ", before_answer="Answer:", image_first=True
)
"""No system text and plain words for the roles; the embedded backbone was pretrained with it."""

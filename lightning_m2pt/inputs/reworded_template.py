"""A prompt that is words: what is written around every question, on top of a conversation template."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.chat_form import control_tokens
from lightning_m2pt.inputs.samples import Turn
from lightning_m2pt.inputs.templates import IMAGE_MARK, Piece

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

QUESTION_MARK = "{question}"
"""What stands in a prompt's text in the place of every question."""
BASED_ON = "based_on"
"""Key of a prompt's file: the template that it is written on top of."""
QUESTION, SYSTEM = "question", "system"
KEYS = (BASED_ON, QUESTION, SYSTEM)
MOST_LETTERS = 20_000
"""Letters of one text; whether the model can read as many is known where its questions are."""
MOST_WORDS_NAMED = 5


class WritesConversations(Protocol):
    """What turns conversations into pieces of text."""

    def pieces(self, turns: Sequence[Turn], images: Sequence[int] = (1,), system: str = "") -> list[Piece]:
        """Returns the pieces of a conversation in order."""

    def refuses_system(self, system: str) -> str:
        """Returns why a conversation cannot have a system text of its own; empty if it can."""


@dataclass(frozen=True)
class PromptText:
    """The words of a prompt.

    Attributes:
        question: What every question becomes, with the mark ``{question}`` once in the place of the question. Other
            braces are letters like any other.
        system: What stands in the place of the template's system text; empty leaves that. A conversation with a system
            text of its own keeps it.

    Raises:
        BadInputError: If the mark is not there once, a text holds the mark of a picture, or is too long.
    """

    question: str = QUESTION_MARK
    system: str = ""

    def __post_init__(self) -> None:
        """Looks at the texts."""
        if not self.question.strip():
            raise BadInputError("the text is empty", where=QUESTION, expected=f"a text with {QUESTION_MARK} in it")
        if self.question.count(QUESTION_MARK) != 1:
            raise BadInputError(
                f"{QUESTION_MARK} stands {self.question.count(QUESTION_MARK)} times in {self.question!r:.80}",
                where=QUESTION,
                expected=f"once, in the place of the question, as in '{QUESTION_MARK} Answer with one word.'",
            )
        if QUESTION_MARK in self.system:
            raise BadInputError(
                f"{QUESTION_MARK} stands in {self.system!r:.80}",
                where=SYSTEM,
                expected=f"a text without it: a question stands where {QUESTION} says, and nowhere else",
            )
        for key, text in ((QUESTION, self.question), (SYSTEM, self.system)):
            if IMAGE_MARK in text:
                raise BadInputError(
                    f"{IMAGE_MARK} stands in {text!r:.80}",
                    where=key,
                    expected="a text without it: the template says where the picture goes",
                )
            if len(text) > MOST_LETTERS:
                raise BadInputError(
                    f"the text has {len(text):,} letters", where=key, expected=f"at most {MOST_LETTERS:,}"
                )

    @property
    def says_nothing(self) -> bool:
        """Whether every question and the system text stay as they are."""
        return self == PromptText()

    def asked(self, turn: Turn) -> Turn:
        """Returns a turn with the prompt's words around its question."""
        before, _, behind = self.question.partition(QUESTION_MARK)
        return Turn(f"{before}{turn.question}{behind}", turn.answer)

    def digest(self, base: str) -> str:
        """Returns the SHA-256 of the words and of what they are written on top of.

        Args:
            base: The base template's digest, or the name that says everything of it.
        """
        return hashlib.sha256(repr((base, self.question, self.system)).encode()).hexdigest()


@dataclass(frozen=True)
class RewordedForm:
    """Writes conversations with a prompt's words around every question, in another form.

    Attributes:
        inner: The form.
        text: The words.
    """

    inner: WritesConversations
    text: PromptText

    def refuses_system(self, system: str) -> str:
        """Returns why a conversation cannot have a system text of its own; empty if it can."""
        return self.inner.refuses_system(system)

    def pieces(self, turns: Sequence[Turn], images: Sequence[int] = (1,), system: str = "") -> list[Piece]:
        """Renders a conversation: the words are the questions' (``Span.QUESTION``), in every turn.

        Args:
            turns: Questions with their answers; the last answer may be empty.
            images: How many images each of the first turns shows.
            system: The conversation's own system text; empty takes the prompt's.

        Raises:
            BadInputError: As the other form does.
        """
        return self.inner.pieces([self.text.asked(turn) for turn in turns], images, system or self.text.system)


def refuse_unreadable(text: PromptText, tokenizer: "PreTrainedTokenizerFast", name: str) -> None:
    """Looks whether a tokenizer reads a prompt's words as words.

    Args:
        text: The words.
        tokenizer: The model's.
        name: What the prompt is called, for messages.

    Raises:
        BadInputError: If a text holds a special token, or words that the tokenizer does not know.
    """
    for key, words in ((QUESTION, text.question.replace(QUESTION_MARK, " ")), (SYSTEM, text.system)):
        refuse_unreadable_words(words, tokenizer, f"prompt text {name}: {key}", "write it with other words")


def refuse_unreadable_words(words: str, tokenizer: "PreTrainedTokenizerFast", where: str, remedy: str) -> None:
    """Looks whether a tokenizer reads a text as words.

    A special token would be a sign to the model and no word; an unknown word would be read as any other unknown one.

    Args:
        words: The text.
        tokenizer: The model's.
        where: Where the text comes from, for messages.
        remedy: What to do about unknown words.

    Raises:
        BadInputError: If the text holds a special token, or words that the tokenizer does not know.
    """
    found = control_tokens(tokenizer, "").search(words)
    if found is not None:
        raise BadInputError(
            f"{found[0]!r:.40} stands in the text, a sign of the model",
            where=where,
            expected="words: the template writes the signs",
        )
    unknown = unknown_words(words, tokenizer)
    if unknown:
        more = f" and {len(unknown) - MOST_WORDS_NAMED} more" if len(unknown) > MOST_WORDS_NAMED else ""
        raise BadInputError(
            f"the tokenizer does not know {', '.join(map(repr, unknown[:MOST_WORDS_NAMED]))}{more}",
            where=where,
            expected="words that the model's tokenizer can read",
            hint=f"{remedy}: each of these would be read as one and the same unknown word",
        )


def unknown_words(text: str, tokenizer: "PreTrainedTokenizerFast") -> list[str]:
    """Returns the words of a text that a tokenizer reads as unknown, each once; none where it has no unknown token."""
    if tokenizer.unk_token_id is None:
        return []
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    found = (
        text[begin:end]
        for number, (begin, end) in zip(tokens["input_ids"], tokens["offset_mapping"], strict=True)
        if number == tokenizer.unk_token_id
    )
    return list(dict.fromkeys(found))


def prompt_text(content: Mapping[str, Any], path: Path) -> PromptText:
    """Returns the words that a file holds.

    Args:
        content: The file's keys and values.
        path: The file, for messages.

    Raises:
        BadInputError: If there is another key than a prompt's, a value that is no text, or a text that cannot be one.
    """
    for key, value in content.items():
        if key not in KEYS:
            raise BadInputError("unknown key", where=f"{path}: {key:.60}", expected=", ".join(KEYS))
        if not isinstance(value, str):
            raise BadInputError(f"{value!r:.60} is no text", where=f"{path}: {key}", expected="a text in quotes")
    try:
        return PromptText(**{key: value for key, value in content.items() if key != BASED_ON})
    except BadInputError as error:
        raise BadInputError(error.what, where=f"{path}: {error.where}", expected=error.expected) from None

"""A model's own chat template, rendered in the library's sandbox: the same on every day.

The text is a program in Jinja's language that somebody else wrote. It runs in transformers' own sandboxed environment
and sees messages and special tokens alone. The current date is a fixed one: a prompt must not change with the day.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from lightning_m2pt.errors import BadInputError

if TYPE_CHECKING:
    import jinja2
    from transformers import PreTrainedTokenizerFast

DAY = datetime(2024, 7, 26)
"""What a template reads that asks for the date: the day that Llama's templates fall back on."""

MOST_LETTERS = 1_000_000
"""Letters of a template, and of what it may write for a conversation beside the conversation's own."""

Messages: TypeAlias = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class ChatTemplate:
    """The chat template of a model.

    Attributes:
        text: What its file holds, in Jinja's language.
        source: The file, for messages.
        of_processor: It belongs to a processor of text and pictures. The library puts the tokenizer's begin token in
            front of what such a template writes without one, and never does for a tokenizer's own.
        image_token: The token that stands for a picture in what it writes. Empty: the model has no such token; our own
            mark is put into the question's text.
        image_around: Tokens that a picture's layout begins and ends with and that the template may write itself; there
            they are taken out of what it writes, so that none stands there twice.
        other_end_token_ids: Tokens that end an answer beside the tokenizer's end token, as the model's generation
            settings list them.
    """

    text: str
    source: str
    of_processor: bool = False
    image_token: str = ""
    image_around: tuple[str, str] = ("", "")
    other_end_token_ids: tuple[int, ...] = ()

    def digest(self, system: str = "") -> str:
        """Returns the SHA-256 of what decides how conversations are written and where answers end.

        Args:
            system: Text of a system's message in front of every conversation.
        """
        decides = [self.text, self.of_processor, self.image_token, list(self.other_end_token_ids), system]
        return hashlib.sha256(repr(decides).encode()).hexdigest()


class FixedDay:
    """Stands for the function ``strftime_now`` in templates.

    Attributes:
        is_asked: Whether a template has asked for the date.
    """

    def __init__(self) -> None:
        self.is_asked = False

    def __call__(self, form: str) -> str:
        """Returns the fixed day in the form asked for."""
        self.is_asked = True
        return DAY.strftime(form)


class ChatRenderer:
    """Renders messages with a chat template as the library does.

    Args:
        tokenizer: The model's; the template knows its special tokens by their names.
        template: The template.

    Attributes:
        day: What tells the template the date.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerFast", template: ChatTemplate) -> None:
        self.template = template
        self.special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        self.day = FixedDay()

    def render(self, messages: Messages, goes_on: bool = False) -> str:
        """Returns the conversation's text.

        Args:
            messages: Mappings with ``role`` and ``content``.
            goes_on: The text ends where the model has to go on.

        Raises:
            BadInputError: If the template is none, refuses the messages, fails, or writes far too much.
        """
        try:
            text = compiled(self.template.text).render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=goes_on,
                # A switch of models that can think aloud first; others do not read it. Answers are short here.
                enable_thinking=False,
                strftime_now=self.day,
                **self.special,
            )
        except MemoryError:
            raise
        except Exception as error:  # a program somebody else wrote: it can fail in any way
            raise self.refusal(error) from error
        if len(text) > MOST_LETTERS + sum(len(str(message["content"])) for message in messages):
            raise BadInputError(
                f"the chat template writes {len(text):,} letters for a conversation",
                where=self.template.source,
                expected=f"at most {MOST_LETTERS:,} beside the conversation's own",
            )
        return str(text)

    def refusal(self, reason: object) -> BadInputError:
        """Returns the error about a template that cannot be used."""
        said = " ".join(str(reason).split()) or type(reason).__name__
        return BadInputError(
            f"the chat template cannot be used: {ascii(said)[1:-1]:.200}",
            where=self.template.source,
            expected="a template that writes conversations of questions and answers",
            hint="take another one than the model's: vicuna_v1, plain, or a YAML file of your own",
        )


@lru_cache(maxsize=8)
def compiled(text: str) -> "jinja2.Template":
    """Returns a template in transformers' sandboxed environment, where values given to it hide functions of that name.

    The library's public call hands on no functions, so that the date could not be fixed through it; that both write
    the same is tested.
    """
    from transformers.utils.chat_template_utils import _compile_jinja_template

    found: jinja2.Template = _compile_jinja_template(text)
    return found

"""Domain-conditional PMI: candidates are set against how likely they are behind the assistant's name alone.

Holtzman et al., "Surface Form Competition" (EMNLP 2021): the answer is the candidate with the greatest
p(answer | question) / p(answer | premise), where the premise is a short text of the domain, there the end of the
prompt. Here it is what the template writes between a question and its answer, without system text, question, picture
and examples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from lightning_m2pt.answering.premises import Premise, Premises
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inputs.encoded_text import EncodedText
from lightning_m2pt.inputs.named_templates import RewordedTemplate, Template
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.reworded_template import refuse_unreadable_words
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.inputs.templates import IMAGE_MARK

FLAG = "--premise"
QUESTION = "What?"
"""Stands for any question; whatever its words become, it is cut away."""


@dataclass(frozen=True)
class DomainPremise:
    """Behind which words candidates are as likely as without any question.

    Attributes:
        text: The words, behind the begin token; None takes those of the template between a question and its answer.

    Raises:
        BadInputError: If the text is empty, or holds the mark of a picture.
    """

    text: str | None = None

    def __post_init__(self) -> None:
        """Looks at the text."""
        if self.text is not None and (not self.text.strip() or IMAGE_MARK in self.text):
            raise BadInputError(
                f"{IMAGE_MARK} stands in the premise" if self.text.strip() else "the premise is empty",
                where=FLAG,
                expected="words behind which an answer may stand, such as ASSISTANT:",
            )

    def premises(self, samples: Sequence[Sample], processor: Processor, template: Template) -> Premises:
        """Returns the one premise of all questions.

        Args:
            samples: The questions; they change nothing.
            processor: The base's tokenizer.
            template: What they are written in; a prompt's words belong to the question and are no part of the premise.

        Raises:
            BadInputError: If there are no words, or the tokenizer cannot read them.
        """
        base = template.base if isinstance(template, RewordedTemplate) else template
        begin, whole = encoded_question(processor, base)
        if self.text is not None:
            refuse_unreadable_words(self.text, processor.tokenizer, FLAG, "take other words")
            words, ids = self.text, tokens_of(processor, self.text)
        else:
            words, ids = words_behind_question(processor, base, whole)
        if not ids:
            raise BadInputError(
                f"the template {base.name} writes nothing between a question and its answer"
                if self.text is None
                else f"the tokenizer reads nothing in {self.text!r:.40}",
                where=FLAG,
                expected="words behind which an answer may stand",
                hint=f"name some: {FLAG} Answer:",
            )
        together = numpy.array([*begin, *ids], numpy.int32)
        text = EncodedText(together, numpy.full(len(together), Span.QUESTION, numpy.int8))
        sample = Sample("premise", None, "", (Turn(words),), ("",), FLAG)
        return Premises(
            processor, [Premise(sample, text)], {"": (0,)}, as_shares=False, said=self.description(words, len(together))
        )

    def description(self, words: str, tokens: int) -> Mapping[str, Any]:
        """Returns what prediction files say of the premise."""
        return {"premise": {"text": words, "tokens": tokens}}


def encoded_question(processor: Processor, template: Template) -> tuple[list[int], list[int]]:
    """Returns the begin token, if conversations have one, and all tokens of a question without a picture."""
    sample = Sample("premise", None, "", (Turn(QUESTION),), ("",), FLAG)
    ids: list[int] = processor.encode(sample, template, with_answers=False).input_ids.tolist()
    begin = processor.tokenizer.bos_token_id
    return ([begin] if ids[:1] == [begin] else []), ids


def words_behind_question(processor: Processor, template: Template, whole: Sequence[int]) -> tuple[str, list[int]]:
    """Returns what a template writes between a question and its answer, as text and as the tokens it is there.

    Args:
        processor: The base's tokenizer.
        template: The template.
        whole: The tokens of a question without an answer.

    Raises:
        BadInputError: If the tokenizer joins these words with the question's, or the template changes the question.
    """
    pieces = processor.bound(template).form.pieces([Turn(QUESTION)], images=(0,))
    _, question, behind = "".join(piece.text for piece in pieces).rpartition(QUESTION)
    for words in (behind, behind.lstrip()):  # some tokenizers have the space before a word in its token, some write it
        ids = tokens_of(processor, words)
        if question and list(whole[len(whole) - len(ids) :]) == ids:
            return behind.strip(), ids
    raise BadInputError(
        f"the tokenizer joins {behind!r:.40} with the question before it",
        where=FLAG,
        expected="a template whose words behind a question are tokens of their own",
        hint=f"name some: {FLAG} Answer:",
    )


def tokens_of(processor: Processor, words: str) -> list[int]:
    """Returns the tokens of a text; the signs that a template writes are read as signs."""
    ids: list[int] = processor.tokenizer(words, add_special_tokens=False, verbose=False)["input_ids"]
    return ids

"""Conversations with a prompt of token ids in them, which are what the tokenizer reads of the prompt's text.

A prompt is reported as a text, so what is measured has to be that text's tokens. Tokenizers join neighbours: a
sequence of ids written out and read again may be another one, alone or beside the words around it. Here a prompt
counts only if the whole rendered conversation of every sample is read as the untouched one with exactly these ids in
its place.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IGNORED_LABEL, Span
from lightning_m2pt.inputs.encoded_text import EncodedText
from lightning_m2pt.inputs.named_templates import Template
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.samples import Sample
from lightning_m2pt.prompt_search.placing import Position, refuse_own_systems, with_words

Prompt: TypeAlias = tuple[int, ...]
"""A prompt as token ids."""

MARKERS_TRIED = 200
"""Tokens with which the place of a prompt is looked for in a conversation."""
TEXTS_AT_ONCE = 4096
STARTS_TRIED = 100


@dataclass(frozen=True)
class OpenText:
    """A conversation in which a prompt can be put.

    Attributes:
        text: The conversation's tokens without a prompt.
        places: Before which of its tokens the prompt stands; one place a question, ascending.
        span: What the prompt is a part of.
    """

    text: EncodedText
    places: tuple[int, ...]
    span: Span

    def filled(self, prompt: Prompt) -> EncodedText:
        """Returns the conversation's tokens with a prompt in each place."""
        ids, spans = self.text.input_ids, self.text.spans
        where = [place for place in self.places for _ in prompt]
        own = numpy.array(prompt * len(self.places), numpy.int32)
        return EncodedText(numpy.insert(ids, where, own), numpy.insert(spans, where, self.span))

    def starts(self, length: int) -> tuple[int, ...]:
        """Returns where prompts of a length begin in the filled conversation."""
        return tuple(place + number * length for number, place in enumerate(self.places))


class PromptTexts:
    """The conversations that prompts are scored on.

    Args:
        samples: Conversations with answers.
        processor: Of the model.
        template: How conversations become texts.
        position: Where the prompt stands.
        max_text_length: Limit on a conversation's tokens, the prompt's among them; None: there is none.

    Raises:
        BadInputError: If a conversation has a system text of its own where the prompt would stand, or cannot be read.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        processor: Processor,
        template: Template,
        position: Position,
        max_text_length: int | None = None,
    ) -> None:
        refuse_own_systems(samples, position)
        self.samples = samples
        self.processor = processor
        self.template = template
        self.position = position
        self.max_text_length = max_text_length
        self.untouched = processor.encode_all(samples, template, max_text_length=max_text_length)
        self.opened: list[OpenText] = []

    def words(self, prompt: Prompt) -> str:
        """Returns a prompt as the text that is put into the conversations."""
        return str(self.processor.tokenizer.decode(list(prompt), clean_up_tokenization_spaces=False)).strip()

    def rendered(self, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> list[EncodedText]:
        """Returns the tokens that the tokenizer reads in conversations with prompts: of each prompt all samples'.

        Raises:
            BadInputError: If one is longer than ``max_text_length``.
        """
        texts = [self.words(prompt) for prompt in prompts]
        asked = [with_words(sample, text, self.position, self.template) for text in texts for sample in samples]
        return self.processor.encode_all(asked, self.template, max_text_length=self.max_text_length)

    def has_room(self, length: int) -> bool:
        """Tells whether a prompt of so many tokens leaves every conversation within ``max_text_length``."""
        if self.max_text_length is None:
            return True
        longest = max(
            len(untouched) + length * len(opened.places)
            for untouched, opened in zip(self.untouched, self.opened, strict=True)
        )
        return longest <= self.max_text_length

    def open(self, candidates: Iterable[int]) -> None:
        """Finds the place of the prompt in every conversation, by a token that stands nowhere else in it.

        Args:
            candidates: Tokens that may stand in a prompt.

        Raises:
            BadInputError: If the place cannot be found in a conversation.
        """
        self.opened = []
        markers = list(candidates)
        last = 0  # the marker of the sample before: most have none of its words either
        for sample, untouched in zip(self.samples, self.untouched, strict=True):
            present = set(untouched.input_ids.tolist())
            others = [number for number in markers if number not in present]
            tried = [last] * (last in others) + others[:MARKERS_TRIED]
            found = next(((each, text) for each in tried if (text := self._opened_by(each, sample, untouched))), None)
            if found is None:
                # A word behind a prompt may be read with the space in front of it, and alone without: tokenizers of
                # bytes do so. Then two markers have to agree about what stands around them.
                pairs = pairwise(tried)
                found = next(
                    ((one, text) for one, two in pairs if (text := self._opened_by_two(one, two, sample))), None
                )
            if found is None:
                raise BadInputError(
                    f"no place for a prompt is found in sample {sample.id}",
                    where=sample.source,
                    expected="a place whose neighbours the tokenizer does not join with a prompt's words",
                    hint="search at another --position, or allow more words",
                )
            last, text = found
            self.opened.append(text)

    def _opened_by(self, marker: int, sample: Sample, untouched: EncodedText) -> OpenText | None:
        """Returns a conversation with the places where a marker stands, if it is read as the untouched one with it."""
        (marked,) = self.rendered([(marker,)], [sample])
        found = numpy.flatnonzero(marked.input_ids == marker)
        if len(found) != self._number_of_places(sample):
            return None
        text = OpenText(untouched, tuple(int(place) - number for number, place in enumerate(found)), self._span)
        return text if is_same(text.filled((marker,)), marked) else None

    def _opened_by_two(self, marker: int, other: int, sample: Sample) -> OpenText | None:
        """Returns what two markers leave of a conversation, if each in its places is read as it."""
        (marked,) = self.rendered([(marker,)], [sample])
        found = numpy.flatnonzero(marked.input_ids == marker)
        if len(found) != self._number_of_places(sample):
            return None
        rest = EncodedText(numpy.delete(marked.input_ids, found), numpy.delete(marked.spans, found))
        opened = self._opened_by(other, sample, rest)
        return opened if opened is not None and is_same(opened.filled((marker,)), marked) else None

    def _number_of_places(self, sample: Sample) -> int:
        """How many places a prompt has in a conversation."""
        return 1 if self.position == "system" else len(sample.turns)

    @property
    def _span(self) -> Span:
        """What a prompt is a part of."""
        return Span.SYSTEM if self.position == "system" else Span.QUESTION

    def survivors(self, prompts: Sequence[Prompt], of_samples: int | None = None) -> list[Prompt]:
        """Returns those prompts that are read as they were written, in every conversation.

        Args:
            prompts: Prompts.
            of_samples: Looks at so many conversations only; None: at all of them.
        """
        number = len(self.samples) if of_samples is None else of_samples
        samples, opened = self.samples[:number], self.opened[:number]
        at_once = max(1, TEXTS_AT_ONCE // number)
        alive = []
        for begin in range(0, len(prompts), at_once):
            some = prompts[begin : begin + at_once]
            read = iter(self.rendered(some, samples))
            for prompt in some:
                # All of them, whatever the first says: each prompt's conversations stand behind the last one's.
                same = [is_same(text.filled(prompt), next(read)) for text in opened]
                if all(same):
                    alive.append(prompt)
        return alive


def drawn_start(texts: PromptTexts, allowed: Sequence[int], length: int, seed: int) -> Prompt:
    """Returns the first of some drawn prompts that is read as it is written: every proposer's start.

    Raises:
        BadInputError: If none is.
    """
    drawn = numpy.random.default_rng([seed, length]).choice(numpy.array(allowed), size=(STARTS_TRIED, length))
    for prompt in drawn.tolist():
        if texts.survivors([tuple(prompt)]):
            return tuple(prompt)
    raise BadInputError(
        f"none of {STARTS_TRIED} drawn prompts is read as it is written",
        where="command line: --length",
        expected="a shorter prompt, or another --position",
    )


def is_same(expected: EncodedText, found: EncodedText) -> bool:
    """Tells whether two conversations have the same tokens, and the same of them supervised."""
    same = numpy.array_equal(expected.input_ids, found.input_ids)
    return bool(same and numpy.array_equal(expected.labels, found.labels))


def supervised(text: EncodedText) -> numpy.ndarray:
    """Returns (T,) bool: which tokens are supervised."""
    return numpy.asarray(text.labels != IGNORED_LABEL)

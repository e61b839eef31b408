"""Sentences of a grammar: what a human thought of, tried out."""

from collections.abc import Sequence
from typing import Any

import numpy
from typing_extensions import override

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.prompt_search.grammar import Grammar
from lightning_m2pt.prompt_search.prompt_texts import Prompt
from lightning_m2pt.prompt_search.proposers.base import Proposer
from lightning_m2pt.prompt_search.scorer import PromptScorer
from lightning_m2pt.prompt_search.state import SearchState
from lightning_m2pt.prompt_search.written_prompts import WrittenPrompts

NEXT = "next"
"""How many sentences were proposed so far."""
MOST_IN_ORDER = 20_000
"""A grammar with more sentences is sampled, each sentence drawn by itself; else it is gone through once."""


class GrammarSentences(Proposer):
    """Proposes the sentences of a grammar in a drawn order, each once; of a large grammar drawn ones.

    What the model cannot read and what says an answer is left out before anything is scored.

    Args:
        grammar: The grammar.
        prompts: Reads its sentences.
        width: Sentences a round.
        seed: Of the order.

    Attributes:
        sentences: What can be read, in the order in which it is proposed; of a large grammar a sample of it.
        left_out: How many cannot be proposed, by the reason.

    Raises:
        BadInputError: If fewer than two sentences can be read.
    """

    name = "grammar"

    def __init__(self, grammar: Grammar, prompts: WrittenPrompts, width: int, seed: int) -> None:
        self.grammar = grammar
        self.width = width
        self.left_out: dict[str, int] = {}
        generator = numpy.random.default_rng([seed, 1])
        if grammar.size <= MOST_IN_ORDER:
            numbers = generator.permutation(grammar.size).tolist()
        else:
            numbers = generator.integers(grammar.size, size=MOST_IN_ORDER).tolist()
        found: dict[Prompt, None] = {}
        example = ""
        for number in numbers:
            sentence = grammar.sentence(number)
            prompt = prompts.read(sentence)
            if isinstance(prompt, str):
                self.left_out[prompt] = self.left_out.get(prompt, 0) + 1
                example = example or f"{sentence!r:.60}: {prompt}"
            else:
                found.setdefault(prompt)
        self.sentences = list(found)
        if len(self.sentences) < 2:
            raise BadInputError(
                f"{len(self.sentences)} sentences of the grammar can be tried",
                where="command line: --grammar",
                expected=f"two or more; left out: {example}",
                hint="--answer-words yes allows the words of answers",
            )

    @override
    def settings(self) -> dict[str, Any]:
        return {"proposer": self.name, "grammar": self.grammar.digest(), "width": self.width}

    @override
    def start(self, drawn: Prompt) -> Prompt:
        return self.sentences[0]

    @property
    @override
    def longest(self) -> int:
        return max(map(len, self.sentences))

    @override
    def propose(
        self, state: SearchState, scorer: PromptScorer, allowed: Sequence[int], generator: numpy.random.Generator
    ) -> tuple[list[Prompt], dict[str, Any]]:
        first = state.memory.get(NEXT, 1)
        return self.sentences[first : first + self.width], {NEXT: first + self.width}

    @override
    def is_over(self, state: SearchState) -> str:
        if state.memory.get(NEXT, 1) < len(self.sentences):
            return ""
        sampled = " that were drawn" if self.grammar.size > MOST_IN_ORDER else ""
        return f"all {len(self.sentences):,} sentences{sampled} were tried"

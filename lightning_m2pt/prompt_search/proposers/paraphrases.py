"""Paraphrases by a local language model: what a search proposes is written by another model (as APE, ICLR 2023)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from typing_extensions import override

from lightning_m2pt.answering.local_model import LocalModel, check_model_folder, model_fingerprint
from lightning_m2pt.prompt_search.prompt_texts import Prompt
from lightning_m2pt.prompt_search.proposers.base import Proposer, ScoredPrompt
from lightning_m2pt.prompt_search.proposers.beam import BeamSearch, kept
from lightning_m2pt.prompt_search.scorer import PromptScorer
from lightning_m2pt.prompt_search.state import SearchState
from lightning_m2pt.prompt_search.written_prompts import WrittenPrompts

ASKED = (
    "Say the following instruction in other words. Keep its meaning, and write one line.\n"
    "Instruction: {text}\n"
    "In other words:"
)
"""What the writing model reads: our own, as APE's resampling asks for a variation with the same meaning."""
REPLIES_AT_ONCE = 16
REPLIES, LEFT_OUT = "replies", "left_out"
"""What is kept: how many replies the model gave, and how many of them are no prompts, by the reason."""


class WritingModel(LocalModel):
    """A model that draws other words for a text."""

    called = "the writing model"
    max_new_tokens = 48
    temperature = 1.0


@dataclass
class Writer:
    """A writing model's folder, and the model once it is loaded.

    Attributes:
        folder: Safetensors, a configuration and a tokenizer.
        model: None before ``load``.
    """

    folder: Path
    model: WritingModel | None = None

    def check(self) -> None:
        """Refuses a folder that holds no complete model; opens no weights.

        Raises:
            BadInputError: If it does not.
        """
        check_model_folder(self.folder, WritingModel.called)

    def load(self, device: torch.device) -> None:
        """Loads the model.

        Raises:
            BadInputError: If it cannot be loaded.
        """
        self.model = WritingModel.load(self.folder, device)

    def other_words(self, text: str, number: int, seed: int) -> list[str]:
        """Returns drawn replies, the first line of each.

        Raises:
            ValueError: If the model is not loaded.
        """
        if self.model is None:
            raise ValueError("the writing model is not loaded")
        replies: list[str] = []
        for first in range(0, number, REPLIES_AT_ONCE):
            asked = [ASKED.format(text=text)] * min(REPLIES_AT_ONCE, number - first)
            replies += self.model.replies(asked, seed + first)
        return [first_line(reply) for reply in replies]


class Paraphrases(Proposer):
    """Keeps the best texts it knows, and has each of them said in other words.

    The model's own work is not in the budget, which counts rows of the model that is prompted; how many replies it gave
    is kept and said.

    Args:
        writer: The writing model.
        prompts: Reads what it writes.
        text: What the search starts from.
        start: That text as it is read.
        width: Replies a round.
        beam: Texts that are kept.
    """

    name = "model"

    def __init__(
        self, writer: Writer, prompts: WrittenPrompts, text: str, start: Prompt, width: int, beam: int
    ) -> None:
        self.writer = writer
        self.prompts = prompts
        self.text = text
        self.first = start
        self.width = width
        self.best_of = BeamSearch(beam, top_k=1)

    @override
    def settings(self) -> dict[str, Any]:
        return {
            "proposer": self.name,
            "model": model_fingerprint(self.writer.folder),
            "text": self.text,
            "width": self.width,
            "beam": self.best_of.beam,
        }

    @override
    def start(self, drawn: Prompt) -> Prompt:
        return self.first

    @property
    @override
    def longest(self) -> int | None:
        return self.prompts.most_tokens

    @override
    def propose(
        self, state: SearchState, scorer: PromptScorer, allowed: Sequence[int], generator: numpy.random.Generator
    ) -> tuple[list[Prompt], dict[str, Any]]:
        texts = [self.prompts.texts.words(each.prompt) for each in kept(state)]
        left_out, proposed = Counter(state.memory.get(LEFT_OUT, {})), []
        for place, text in enumerate(texts):
            number = self.width // len(texts) + (place < self.width % len(texts))
            for reply in self.writer.other_words(text, number, int(generator.integers(2**31))):
                prompt = self.prompts.read(reply)
                if isinstance(prompt, str):
                    left_out[prompt] += 1
                else:
                    proposed.append(prompt)
        replies = state.memory.get(REPLIES, 0) + self.width
        return proposed, {**state.memory, REPLIES: replies, LEFT_OUT: dict(left_out)}

    @override
    def accept(self, state: SearchState, scored: Sequence[ScoredPrompt]) -> SearchState:
        return self.best_of.accept(state, scored)


def first_line(reply: str) -> str:
    """Returns the first line of a reply that says something, without quotation marks around it."""
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    return lines[0].strip("\"'`“” ") if lines else ""

"""A beam of prompts: of each the most promising words in one place, and the best of all go on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy
from typing_extensions import override

from lightning_m2pt.prompt_search.prompt_texts import Prompt
from lightning_m2pt.prompt_search.proposers.base import Proposer, ScoredPrompt, promising_tokens, with_token
from lightning_m2pt.prompt_search.scorer import PromptScorer
from lightning_m2pt.prompt_search.state import SearchState

BEAM = "beam"


class BeamSearch(Proposer):
    """Keeps the best prompts it knows, and changes each in one place after another; of one prompt it is greedy.

    Args:
        beam: Prompts that are kept.
        top_k: Tokens tried in the round's place of each.
    """

    name = "beam"

    def __init__(self, beam: int, top_k: int) -> None:
        self.beam = beam
        self.top_k = top_k
        self.gradients = beam

    @override
    def settings(self) -> dict[str, Any]:
        return {"proposer": self.name, "beam": self.beam, "top_k": self.top_k}

    @override
    def propose(
        self, state: SearchState, scorer: PromptScorer, allowed: Sequence[int], generator: numpy.random.Generator
    ) -> tuple[list[Prompt], dict[str, Any]]:
        place = state.round % len(state.current)
        proposed = []
        for each in kept(state):
            tokens = promising_tokens(each.prompt, scorer, allowed, self.top_k)[place].tolist()
            proposed += [with_token(each.prompt, place, token) for token in tokens]
        return proposed, state.memory

    @override
    def accept(self, state: SearchState, scored: Sequence[ScoredPrompt]) -> SearchState:
        known = {each.prompt: each for each in (*kept(state), *scored)}
        best = sorted(known.values(), key=lambda each: (each.loss, each.prompt))[: self.beam]
        memory = {**state.memory, BEAM: [[list(each.prompt), each.loss] for each in best]}
        return replace(state, current=best[0].prompt, current_loss=best[0].loss, memory=memory)


def kept(state: SearchState) -> list[ScoredPrompt]:
    """Returns the beam; before the first round it is the start alone."""
    beam = state.memory.get(BEAM, [[state.current, state.current_loss]])
    return [ScoredPrompt(tuple(prompt), loss) for prompt, loss in beam]

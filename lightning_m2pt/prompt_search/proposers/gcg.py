"""Greedy coordinate gradient (Zou et al., 2023): single changes drawn from every place's most promising words."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy
from typing_extensions import override

from lightning_m2pt.prompt_search.prompt_texts import Prompt
from lightning_m2pt.prompt_search.proposers.base import Proposer, ScoredPrompt, promising_tokens, with_token
from lightning_m2pt.prompt_search.scorer import PromptScorer
from lightning_m2pt.prompt_search.state import SearchState


class GreedyCoordinateGradient(Proposer):
    """Draws changes of one place each, scores them, and goes on from the best of them, be it worse or not.

    As published, the next round starts from this round's best even where the current prompt was better; the result is
    the best of all rounds. Changes that are drawn twice are scored once.

    Args:
        width: Changes drawn a round (published: 512).
        top_k: Tokens of each place that are drawn among (published: 256).
    """

    name = "gcg"
    gradients = 1

    def __init__(self, width: int, top_k: int) -> None:
        self.width = width
        self.top_k = top_k

    @override
    def propose(
        self, state: SearchState, scorer: PromptScorer, allowed: Sequence[int], generator: numpy.random.Generator
    ) -> tuple[list[Prompt], dict[str, Any]]:
        tokens = promising_tokens(state.current, scorer, allowed, self.top_k)
        places = generator.integers(len(state.current), size=self.width).tolist()
        choices = generator.integers(tokens.shape[1], size=self.width).tolist()
        drawn = [with_token(state.current, i, int(tokens[i, k])) for i, k in zip(places, choices, strict=True)]
        return drawn, state.memory

    @override
    def accept(self, state: SearchState, scored: Sequence[ScoredPrompt]) -> SearchState:
        least = min(scored, key=lambda each: each.loss, default=None)
        return state if least is None else replace(state, current=least.prompt, current_loss=least.loss)

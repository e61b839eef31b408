"""AutoPrompt (Shin et al., EMNLP 2020): one place a round, its most promising words tried exactly."""

from collections.abc import Sequence
from typing import Any

import numpy
from typing_extensions import override

from lightning_m2pt.prompt_search.prompt_texts import Prompt
from lightning_m2pt.prompt_search.proposers.base import Proposer, promising_tokens, with_token
from lightning_m2pt.prompt_search.scorer import PromptScorer
from lightning_m2pt.prompt_search.state import SearchState


class AutoPrompt(Proposer):
    """Draws a place, tries the tokens that promise most there, and takes the best if it is better.

    The published code draws other batches for the trial than for the gradient, and for the current prompt than for the
    others; here all are compared on the same samples.

    Args:
        top_k: Tokens tried a round (published: 10, and 100 in one of its examples).
    """

    name = "autoprompt"
    gradients = 1

    def __init__(self, top_k: int) -> None:
        self.top_k = top_k

    @override
    def propose(
        self, state: SearchState, scorer: PromptScorer, allowed: Sequence[int], generator: numpy.random.Generator
    ) -> tuple[list[Prompt], dict[str, Any]]:
        place = int(generator.integers(len(state.current)))
        tokens = promising_tokens(state.current, scorer, allowed, self.top_k)[place].tolist()
        return [with_token(state.current, place, token) for token in tokens], state.memory

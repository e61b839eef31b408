"""Whole prompts drawn uniformly: what every other search has to beat at the same cost."""

from collections.abc import Sequence
from typing import Any

import numpy
from typing_extensions import override

from lightning_m2pt.prompt_search.prompt_texts import Prompt
from lightning_m2pt.prompt_search.proposers.base import Proposer
from lightning_m2pt.prompt_search.scorer import PromptScorer
from lightning_m2pt.prompt_search.state import SearchState


class RandomPrompts(Proposer):
    """Draws whole prompts, each token uniformly among the allowed ones.

    Args:
        width: Prompts a round.
    """

    name = "random"

    def __init__(self, width: int) -> None:
        self.width = width

    @override
    def propose(
        self, state: SearchState, scorer: PromptScorer, allowed: Sequence[int], generator: numpy.random.Generator
    ) -> tuple[list[Prompt], dict[str, Any]]:
        drawn = generator.choice(numpy.array(allowed), size=(self.width, len(state.current)))
        return [tuple(each) for each in drawn.tolist()], state.memory

"""Every allowed token in one place after another: exact, and the yardstick of whatever guesses."""

from collections.abc import Sequence
from typing import Any

import numpy
from typing_extensions import override

from lightning_m2pt.prompt_search.prompt_texts import Prompt
from lightning_m2pt.prompt_search.proposers.base import Proposer, with_token
from lightning_m2pt.prompt_search.scorer import PromptScorer
from lightning_m2pt.prompt_search.state import SearchState


class ExhaustiveCoordinates(Proposer):
    """Coordinate descent: tries every allowed token in one place, takes the best, and goes on to the next place.

    The loss never rises; once no place has a better token, it is over.
    """

    name = "exhaustive"

    @override
    def propose(
        self, state: SearchState, scorer: PromptScorer, allowed: Sequence[int], generator: numpy.random.Generator
    ) -> tuple[list[Prompt], dict[str, Any]]:
        place = state.round % len(state.current)
        return [with_token(state.current, place, token) for token in allowed], state.memory

    @override
    def is_over(self, state: SearchState) -> str:
        # The round that moved has looked at its own place already.
        length = len(state.current)
        is_settled = state.unchanged >= (length if not state.moves else length - 1) and state.round >= length
        return "no other word in any place is better" if is_settled else ""

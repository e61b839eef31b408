"""What proposes prompts, and decides which of them the next round starts from."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy
import torch
from torch import Tensor

from lightning_m2pt.prompt_search.gradient import linearised_changes
from lightning_m2pt.prompt_search.prompt_texts import Prompt
from lightning_m2pt.prompt_search.scorer import PromptScorer
from lightning_m2pt.prompt_search.state import SearchState


@dataclass(frozen=True)
class ScoredPrompt:
    """A prompt and its loss per supervised token."""

    prompt: Prompt
    loss: float


class Proposer(ABC):
    """Proposes prompts from a state; all it remembers is in the state.

    Attributes:
        name: What users call it.
        gradients: How many gradients a round takes.
    """

    name: str
    gradients: int = 0

    def settings(self) -> dict[str, Any]:
        """Returns what it was made with, as plain values."""
        return {"proposer": self.name, **vars(self)}

    @property
    def longest(self) -> int | None:
        """Tokens of the longest prompt it proposes; None where all are as long as the start."""
        return None

    def start(self, drawn: Prompt) -> Prompt:
        """Returns what the search starts from.

        Args:
            drawn: Drawn tokens, as many as were asked for.
        """
        return drawn

    @abstractmethod
    def propose(
        self, state: SearchState, scorer: PromptScorer, allowed: Sequence[int], generator: numpy.random.Generator
    ) -> tuple[list[Prompt], dict[str, Any]]:
        """Returns prompts to score, and what to remember.

        Args:
            state: Where the search stands.
            scorer: Gives gradients.
            allowed: Tokens that a prompt may be made of, ascending.
            generator: Of this round alone.
        """

    def accept(self, state: SearchState, scored: Sequence[ScoredPrompt]) -> SearchState:
        """Returns the state with the prompt that the next round starts from; the best so far is not its business.

        This default takes the least loss, and only if it is less than the current prompt's on the same samples.
        """
        least = min(scored, key=lambda each: each.loss, default=None)
        if least is None or not least.loss < state.current_loss:
            return state
        return replace(state, current=least.prompt, current_loss=least.loss)

    def is_over(self, state: SearchState) -> str:
        """Returns why nothing more can come of it; empty if something may."""
        return ""


def with_token(prompt: Prompt, place: int, token: int) -> Prompt:
    """Returns a prompt with another token in one place."""
    return (*prompt[:place], token, *prompt[place + 1 :])


def promising_tokens(prompt: Prompt, scorer: PromptScorer, allowed: Sequence[int], number: int) -> Tensor:
    """Returns (length, number) int64: for each place the allowed tokens that would lower the loss most, to first order.

    The prompt's own token, which changes nothing, is not among them. The change to first order by a word w in the place
    of e is g (E_w - E_e): least is best.

    Args:
        prompt: The prompt.
        scorer: Gives its gradient, over all samples.
        allowed: Tokens to choose among.
        number: How many a place; at most one less than are allowed.
    """
    rows = scorer.rows_of(allowed)
    changes = linearised_changes(scorer.gradient(prompt), rows, scorer.rows_of(prompt))
    choice = torch.tensor(list(allowed), device=changes.device)
    own = choice[None] == torch.tensor(prompt, device=changes.device)[:, None]
    least = changes.masked_fill(own, torch.inf).topk(min(number, len(allowed) - 1), dim=1, largest=False)
    return choice[least.indices].cpu()

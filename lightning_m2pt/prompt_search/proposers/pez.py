"""PEZ (Wen et al., NeurIPS 2023): continuous rows that move by the gradient at the nearest words."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.nn.functional import normalize
from typing_extensions import override

from lightning_m2pt.prompt_search.prompt_texts import Prompt
from lightning_m2pt.prompt_search.proposers.base import Proposer, ScoredPrompt
from lightning_m2pt.prompt_search.scorer import PromptScorer
from lightning_m2pt.prompt_search.state import SearchState

ROWS, MOMENTS, LIKENESS = "rows", "moments", "cosine"
"""What is kept: the continuous rows, AdamW's state, and the rows' mean cosine to their nearest words."""


class PEZ(Proposer):
    """Keeps continuous rows, takes the gradient at the words nearest to them, and moves the rows by it.

    Nearest is by cosine, as in the published code (Euclidean in the paper). Weight decay holds the rows near the words;
    how near they are is kept as ``cosine``.

    Args:
        learning_rate: Of AdamW (published: 0.1).
        weight_decay: Of AdamW (published: 0.1).
    """

    name = "pez"
    gradients = 1

    def __init__(self, learning_rate: float = 0.1, weight_decay: float = 0.1) -> None:
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay

    @override
    def propose(
        self, state: SearchState, scorer: PromptScorer, allowed: Sequence[int], generator: numpy.random.Generator
    ) -> tuple[list[Prompt], dict[str, Any]]:
        words = scorer.rows_of(allowed)
        kept = state.memory.get(ROWS)
        # The rows move alone: the gradient is the nearest words', and no graph leads from these back to the rows.
        rows = scorer.rows_of(state.current) if kept is None else torch.tensor(kept).to(words)
        gradient = scorer.gradient(state.current)
        rows, moments = self.moved(rows, gradient, state.memory.get(MOMENTS))
        likeness = normalize(rows, dim=1) @ normalize(words, dim=1).T
        nearest = likeness.max(dim=1)
        prompt = tuple(allowed[place] for place in nearest.indices.tolist())
        memory = {ROWS: rows.tolist(), MOMENTS: moments, LIKENESS: float(nearest.values.mean())}
        return [prompt], memory

    def moved(self, rows: Tensor, gradient: Tensor, moments: dict[str, Any] | None) -> tuple[Tensor, dict[str, Any]]:
        """Returns the rows after a step of AdamW, and its state as plain values."""
        parameter = torch.nn.Parameter(rows.clone())
        optimizer = torch.optim.AdamW([parameter], lr=self.learning_rate, weight_decay=self.weight_decay)
        if moments is not None:
            state = {name: torch.tensor(value, dtype=torch.float32) for name, value in moments.items()}
            optimizer.load_state_dict({**optimizer.state_dict(), "state": {0: state}})
        parameter.grad = gradient.to(parameter)
        optimizer.step()
        after = optimizer.state_dict()["state"][0]
        return parameter.detach(), {name: value.tolist() for name, value in after.items()}

    @override
    def accept(self, state: SearchState, scored: Sequence[ScoredPrompt]) -> SearchState:
        """Goes on from the nearest words, be they worse or not."""
        if not scored:
            return state
        return replace(state, current=scored[0].prompt, current_loss=scored[0].loss)

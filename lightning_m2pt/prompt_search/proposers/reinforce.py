"""REINFORCE (Williams, 1992) over tokens: a demonstration of search by reward alone.

Each place has a distribution over the allowed tokens, of its own and of nothing else: no network as in RLPrompt (Deng
et al., EMNLP 2022). Prompts are drawn, their losses are the rewards, and the distributions move up the gradient of what
is expected of them. No gradient of the model is used.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy
from numpy.typing import NDArray
from typing_extensions import override

from lightning_m2pt.prompt_search.prompt_texts import Prompt
from lightning_m2pt.prompt_search.proposers.base import Proposer, ScoredPrompt
from lightning_m2pt.prompt_search.scorer import PromptScorer
from lightning_m2pt.prompt_search.state import SearchState

LOGITS, DRAWN, ENTROPY = "logits", "drawn", "entropy"
"""What is kept: (length, V) of the distributions; the round's prompts, each with its columns and how often it was
drawn; and the mean entropy of a place in nats."""


class Reinforce(Proposer):
    """Draws prompts from a distribution a place, and moves these by how much better than the round's mean each was.

    The reward is the negative loss; what counts is its distance from the mean of the round's draws, in units of their
    deviation. A prompt that was drawn twice is scored once and counts twice; one that is read otherwise than written
    counts not at all. All distributions begin uniform.

    Args:
        width: Prompts drawn a round.
        learning_rate: Of plain gradient ascent.
        entropy_weight: Of the entropy that is added to what is ascended: it keeps distributions from narrowing early.
    """

    name = "reinforce"

    def __init__(self, width: int, learning_rate: float = 10.0, entropy_weight: float = 0.01) -> None:
        self.width = width
        self.learning_rate = learning_rate
        self.entropy_weight = entropy_weight

    @override
    def propose(
        self, state: SearchState, scorer: PromptScorer, allowed: Sequence[int], generator: numpy.random.Generator
    ) -> tuple[list[Prompt], dict[str, Any]]:
        kept = state.memory.get(LOGITS)
        logits = numpy.zeros((len(state.current), len(allowed))) if kept is None else numpy.array(kept)
        columns = [generator.choice(len(allowed), size=self.width, p=each) for each in probabilities(logits)]
        drawn = Counter(tuple(each) for each in numpy.stack(columns, axis=1).tolist())
        tokens = {choice: tuple(allowed[column] for column in choice) for choice in drawn}
        kept_draws = [[list(tokens[choice]), list(choice), count] for choice, count in drawn.items()]
        return list(tokens.values()), {LOGITS: logits.tolist(), DRAWN: kept_draws}

    @override
    def accept(self, state: SearchState, scored: Sequence[ScoredPrompt]) -> SearchState:
        known = {each.prompt: each.loss for each in scored} | {state.current: state.current_loss}
        drawn = [(choice, count, -known[tuple(p)]) for p, choice, count in state.memory[DRAWN] if tuple(p) in known]
        logits = numpy.array(state.memory[LOGITS])
        choices = numpy.array([choice for choice, _, _ in drawn], numpy.int64).reshape(len(drawn), len(logits))
        counts = numpy.array([count for _, count, _ in drawn], numpy.float64)
        rewards = numpy.array([reward for _, _, reward in drawn], numpy.float64)
        moved = logits + self.learning_rate * ascent(logits, choices, counts, rewards, self.entropy_weight)
        entropy = float(entropies(probabilities(moved)).mean())
        return replace(super().accept(state, scored), memory={LOGITS: moved.tolist(), ENTROPY: entropy})


def probabilities(logits: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """Returns the softmax of each row."""
    raised = numpy.exp(logits - logits.max(axis=1, keepdims=True))
    found: NDArray[numpy.float64] = raised / raised.sum(axis=1, keepdims=True)
    return found


def entropies(chances: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """Returns (length,): the entropy of each row in nats."""
    safe = numpy.where(chances > 0, chances, 1.0)
    found: NDArray[numpy.float64] = -(chances * numpy.log(safe)).sum(axis=1)
    return found


def ascent(
    logits: NDArray[numpy.float64],
    choices: NDArray[numpy.int64],
    counts: NDArray[numpy.float64],
    rewards: NDArray[numpy.float64],
    entropy_weight: float,
) -> NDArray[numpy.float64]:
    """Returns (length, V): the gradient of mean advantage times log-probability, and of the weighted mean entropy.

    Args:
        logits: (length, V) of the distributions.
        choices: (N, length) which column each draw took.
        counts: (N,) how often each was drawn.
        rewards: (N,) what it gave.
        entropy_weight: Of the sum of the places' entropies.
    """
    chances = probabilities(logits)
    gradient = numpy.zeros_like(logits)
    total = counts.sum()
    if total:
        baseline = (counts * rewards).sum() / total
        deviation = numpy.sqrt((counts * (rewards - baseline) ** 2).sum() / total)
        weights = counts * (rewards - baseline) / total / deviation if deviation > 0 else numpy.zeros_like(counts)
        for place, of_place in enumerate(choices.T):
            # Less the probabilities, times the sum of the weights: which is nothing.
            numpy.add.at(gradient[place], of_place, weights)
    logs = numpy.log(numpy.where(chances > 0, chances, 1.0))
    own = entropies(chances)[:, None]
    gradient += entropy_weight * -chances * (logs + own)
    return gradient

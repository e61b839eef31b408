"""The search: propose, score on a fixed set of samples, accept, until the budget is spent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy

from lightning_m2pt.prompt_search.prompt_texts import Prompt, PromptTexts
from lightning_m2pt.prompt_search.proposers.base import Proposer, ScoredPrompt
from lightning_m2pt.prompt_search.scorer import PromptScorer
from lightning_m2pt.prompt_search.state import SearchState

EMPTY_ROUNDS = 50
"""After so many rounds one after another in which nothing could be scored the search is over."""
SPENT = "the budget is spent"


def started(scorer: PromptScorer, start: Prompt) -> SearchState:
    """Returns the state before the first round: the start, scored."""
    (loss,) = scorer.mean_losses([start])
    return SearchState(start, loss, start, loss, scorer.rows, curve=((scorer.rows, loss),))


@dataclass(frozen=True)
class SearchTask:
    """What a search does, but for where it stands.

    Attributes:
        proposer: Proposes prompts.
        scorer: Scores them, and counts rows.
        texts: Say which prompts are read as they are written.
        allowed: Tokens that a prompt may be made of, ascending.
        budget: Rows that the search may run in all.
        seed: Of all draws.
    """

    proposer: Proposer
    scorer: PromptScorer
    texts: PromptTexts
    allowed: Sequence[int]
    budget: int
    seed: int


def run_search(task: SearchTask, state: SearchState, on_round: Callable[[SearchState], None]) -> SearchState:
    """Searches until the budget is spent or nothing more can come of it.

    A round depends on the state and the seed alone, so that a search that was stopped goes on as it would have. What is
    not paid for by what is left of the budget is not begun; of the last round's prompts as many are scored as are.

    Args:
        task: What is searched, by whom, for how much.
        state: Where the search stands; the scorer counts rows from the state's on.
        on_round: Told of every state.
    """
    task.scorer.rows = state.rows
    while not state.ended:
        state = replace(state, ended=why_over(task, state))
        if not state.ended:
            state = next_round(task, state)
        on_round(state)
    return state


def why_over(task: SearchTask, state: SearchState) -> str:
    """Returns why no further round is begun; empty if one is."""
    if reason := task.proposer.is_over(state):
        return reason
    if state.empty >= EMPTY_ROUNDS:
        return f"in {EMPTY_ROUNDS} rounds nothing that was proposed could be scored"
    left = task.budget - task.scorer.rows - task.proposer.gradients * task.scorer.rows_of_gradient
    return "" if task.scorer.prompts_for(left) else SPENT


def next_round(task: SearchTask, state: SearchState) -> SearchState:
    """Returns the state after one round.

    Of a round that the budget cuts short what was found counts, and nothing else: it looked at a part of what it was to
    look at, so nothing is accepted by it, and a larger budget makes it again.
    """
    proposer, scorer = task.proposer, task.scorer
    generator = numpy.random.default_rng([task.seed, state.round])
    proposed, memory = proposer.propose(state, scorer, task.allowed, generator)
    distinct = [prompt for prompt in dict.fromkeys(proposed) if prompt != state.current]
    alive = task.texts.survivors(distinct)
    paid = scorer.paid_for(alive, task.budget - scorer.rows)
    losses = scorer.mean_losses(paid) if paid else []
    scored = [ScoredPrompt(prompt, loss) for prompt, loss in zip(paid, losses, strict=True)]
    counted = replace(
        with_best(state, scored, scorer.rows),
        rows=scorer.rows,
        scored=state.scored + len(scored),
        unread=state.unread + len(distinct) - len(alive),
    )
    if len(paid) < len(alive):
        return replace(counted, ended=SPENT)
    after = proposer.accept(replace(counted, memory=memory), scored)
    moved = after.current != state.current
    return replace(
        after,
        round=state.round + 1,
        moves=state.moves + moved,
        unchanged=0 if moved else state.unchanged + 1,
        empty=0 if scored else state.empty + 1,
    )


def with_best(state: SearchState, scored: Sequence[ScoredPrompt], rows: int) -> SearchState:
    """Returns a state with the least loss of what was scored, if it is less than any before.

    Args:
        state: Where the search stood.
        scored: What was scored since.
        rows: Rows that were run by now.
    """
    least = min(scored, key=lambda each: each.loss, default=None)
    if least is None or not least.loss < state.best_loss:
        return state
    return replace(state, best=least.prompt, best_loss=least.loss, curve=(*state.curve, (rows, least.loss)))

"""What proposers make of losses and gradients, by value."""

import numpy
import torch
from torch import Tensor

from lightning_m2pt.prompt_search.proposers.base import ScoredPrompt
from lightning_m2pt.prompt_search.proposers.beam import BeamSearch, kept
from lightning_m2pt.prompt_search.proposers.pez import MOMENTS, PEZ, ROWS
from lightning_m2pt.prompt_search.search import SearchTask, run_search
from lightning_m2pt.prompt_search.state import SearchState

WORDS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.2], [0.3, -1.0]])
GRADIENTS = (torch.tensor([[0.5, -2.0], [1.0, 0.1]]), torch.tensor([[-0.3, 1.0], [0.2, -4.0]]))


class Scorer:
    """Four words in the plane, and gradients that are known."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def rows_of(self, ids: list[int]) -> Tensor:
        return WORDS[list(ids)]

    def gradient(self, prompt: tuple[int, ...]) -> Tensor:
        self.asked.append(prompt)
        return GRADIENTS[len(self.asked) - 1]


def test_pez_moves_its_rows_by_adamw_against_the_gradient_at_the_nearest_words() -> None:
    scorer, pez, generator = Scorer(), PEZ(learning_rate=0.4, weight_decay=0.1), numpy.random.default_rng(0)
    state = SearchState((0, 2), 1.0, (0, 2), 1.0, 0)
    rows = torch.nn.Parameter(WORDS[[0, 2]].clone())
    optimizer = torch.optim.AdamW([rows], lr=0.4, weight_decay=0.1)
    first = WORDS[[0, 2]] * (1 - 0.4 * 0.1) - 0.4 * GRADIENTS[0].sign()  # what AdamW's first step is
    for number, gradient in enumerate(GRADIENTS):
        prompts, memory = pez.propose(state, scorer, range(4), generator)
        rows.grad = gradient
        optimizer.step()
        torch.testing.assert_close(torch.tensor(memory[ROWS]), rows.detach(), rtol=0, atol=1e-6)
        if not number:
            torch.testing.assert_close(rows.detach(), first, rtol=0, atol=1e-6)
        cosines = torch.nn.functional.cosine_similarity(rows.detach()[:, None], WORDS[None], dim=2)
        assert prompts == [tuple(cosines.argmax(dim=1).tolist())]
        assert memory[MOMENTS]["step"] == number + 1
        state = pez.accept(SearchState((0, 2), 1.0, (0, 2), 1.0, 0, memory=memory), [ScoredPrompt(prompts[0], 9.0)])
        assert (state.current, state.current_loss) == (prompts[0], 9.0)
    assert scorer.asked[0] == (0, 2)
    assert len(scorer.asked) == 2


def test_a_beam_keeps_the_best_it_knows() -> None:
    beam = BeamSearch(beam=2, top_k=3)
    state = SearchState((0, 1), 1.0, (0, 1), 1.0, 0)
    state = beam.accept(state, [ScoredPrompt((2, 1), 3.0), ScoredPrompt((3, 1), 0.5)])
    assert [(each.prompt, each.loss) for each in kept(state)] == [((3, 1), 0.5), ((0, 1), 1.0)]
    state = beam.accept(state, [ScoredPrompt((3, 2), 0.9), ScoredPrompt((3, 3), 2.0)])
    assert [each.prompt for each in kept(state)] == [(3, 1), (3, 2)]
    assert (state.current, state.current_loss) == ((3, 1), 0.5)


class KnownLosses:
    """Prompts of one token that cost a row each, whose losses are known; every one is read as it is written."""

    rows_of_gradient = 0

    def __init__(self, losses: list[float]) -> None:
        self.known, self.rows = losses, 0

    def prompts_for(self, rows: int) -> int:
        return max(0, rows)

    def paid_for(self, prompts: list[tuple[int, ...]], rows: int) -> list[tuple[int, ...]]:
        return prompts[:rows]

    def mean_losses(self, prompts: list[tuple[int, ...]]) -> list[float]:
        self.rows += len(prompts)
        return [self.known[prompt[0]] for prompt in prompts]

    def survivors(self, prompts: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        return prompts


class OneAfterAnother(PEZ):
    """Proposes the next token whatever it has found, and goes on from it."""

    gradients = 0

    def propose(self, state, scorer, allowed, generator):
        return [(state.round + 1,)], state.memory


def test_the_result_is_the_best_of_all_rounds_though_the_search_goes_on_from_worse_ones() -> None:
    scorer = KnownLosses([1.0, 0.5, 2.0, 1.5, 0.4])
    start = SearchState((0,), 1.0, (0,), 1.0, 0, curve=((0, 1.0),))
    best: list[float] = []
    task = SearchTask(OneAfterAnother(), scorer, scorer, range(5), 4, 0)
    rounds = run_search(task, start, lambda each: best.append(each.best_loss))
    assert best == [0.5, 0.5, 0.5, 0.4, 0.4]
    assert (rounds.best, rounds.current, rounds.rows, rounds.moves) == ((4,), (4,), 4, 4)
    assert rounds.curve == ((0, 1.0), (1, 0.5), (4, 0.4))
    assert rounds.ended == "the budget is spent"

"""What proposers make of losses and gradients, by value."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy
import torch
from torch import Tensor

from lightning_m2pt.prompt_search.grammar import Grammar
from lightning_m2pt.prompt_search.proposers.base import ScoredPrompt
from lightning_m2pt.prompt_search.proposers.beam import BeamSearch, kept
from lightning_m2pt.prompt_search.proposers.grammar_sentences import GrammarSentences
from lightning_m2pt.prompt_search.proposers.known import proposer_named
from lightning_m2pt.prompt_search.proposers.pez import MOMENTS, PEZ, ROWS
from lightning_m2pt.prompt_search.scorer import PromptScorer
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


class Steady(Scorer):
    """One gradient, whatever is asked."""

    def gradient(self, prompt: tuple[int, ...]) -> Tensor:
        return GRADIENTS[0]


def test_what_a_round_proposes() -> None:
    """Of the two places' words, the gradient promises most of 1 and 2 in the first, and of 1 and 3 in the second."""
    state, changes = SearchState((0, 2), 1.0, (0, 2), 1.0, 0), ([(1, 2), (2, 2)], [(0, 1), (0, 3)])

    def proposed(name: str, number: int = 0, width: int = 64, **of_state: int) -> list[tuple[int, ...]]:
        generator, at = numpy.random.default_rng(number), SearchState(**{**vars(state), **of_state})
        return proposer_named(name, width, 2, 1).propose(at, Steady(), range(4), generator)[0]

    gcg = proposed("gcg")
    assert len(gcg) == 64
    assert set(gcg) == {*changes[0], *changes[1]}
    tried = [proposed("autoprompt", number) for number in range(16)]
    assert {tuple(sorted(each)) for each in tried} == {tuple(each) for each in changes}
    assert [sorted(proposed("beam", round=number)) for number in range(3)] == [*changes, changes[0]]
    assert [proposed("exhaustive", round=number) for number in (1, 2)] == [
        [(0, token) for token in range(4)],
        [(token, 2) for token in range(4)],
    ]
    drawn = proposed("random", width=300)
    assert len(drawn) == 300
    assert set(drawn) == {(one, two) for one in range(4) for two in range(4)}


class Longer(Steady):
    """The last word is ten times as long as the others."""

    def rows_of(self, ids: list[int]) -> Tensor:
        return (WORDS * torch.tensor([1.0, 1.0, 1.0, 10.0])[:, None])[list(ids)]


def test_pez_s_nearest_words_are_those_of_the_same_direction_however_long() -> None:
    pez, generator = PEZ(learning_rate=1e-3), numpy.random.default_rng(0)
    assert pez.propose(SearchState((0, 2), 1.0, (0, 2), 1.0, 0), Longer(), range(4), generator)[0] == [(0, 2)]


class Reads:
    """Reads a word as its number, and the last one as three tokens."""

    def read(self, text: str) -> tuple[int, ...]:
        return (9, 9, 9) if text == "e" else (ord(text),)


def test_a_grammar_s_sentences_come_in_drawn_order_each_once() -> None:
    grammar = Grammar(("{word}",), {"word": tuple("abcde")})
    proposer = GrammarSentences(grammar, Reads(), width=2, seed=3)  # type: ignore[arg-type]
    order = numpy.random.default_rng([3, 1]).permutation(5).tolist()
    assert proposer.sentences == [Reads().read("abcde"[number]) for number in order]
    first = proposer.start((1, 2))
    assert (first, proposer.longest) == (proposer.sentences[0], 3)
    state, proposed = SearchState(first, 1.0, first, 1.0, 0), []
    while not proposer.is_over(state):
        some, memory = proposer.propose(state, Steady(), (), numpy.random.default_rng(0))
        state, proposed = replace(state, memory=memory), [*proposed, *some]
    assert proposed == proposer.sentences[1:]
    assert proposer.is_over(state) == "all 5 sentences were tried"
    others = [Grammar(("{word}",), {"word": tuple("abcdf")}), Grammar(("a {word}",), {"word": tuple("abcde")})]
    assert len({each.digest() for each in (grammar, *others)}) == 3


def test_of_equal_prompts_a_beam_keeps_the_same_whatever_their_order() -> None:
    state, found = SearchState((9,), 1.0, (9,), 1.0, 0), [ScoredPrompt((5,), 0.5), ScoredPrompt((3,), 0.5)]
    for scored in (found, found[::-1]):
        assert BeamSearch(beam=2, top_k=1).accept(state, scored).current == (3,)


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


def test_a_budget_counts_shared_rows_once_and_a_gradient_three_times() -> None:
    """Two samples of 20 rows with a prompt beside it: 13 stand in front of it, 5 behind it are computed."""
    given = {"head": 10, "rows_for_marks": 3, "tokens": 2, "has_pictures_in_head": True}
    sample: Any = SimpleNamespace(**given, rows=lambda length: 20 + length, rows_behind=lambda length: 5 + length)
    backbone: Any = SimpleNamespace(shape=SimpleNamespace(runs_reference=""))
    scorer = PromptScorer(backbone, None, [sample, sample], 4)  # type: ignore[arg-type]
    assert scorer.shares
    assert (scorer.rows_in_front, scorer.rows_of_prompt, scorer.rows_of_samples) == (26, 18, 48)
    assert (scorer.rows_of_gradient, scorer.tokens) == (144, 4)
    assert [scorer.prompts_for(rows) for rows in (10, 26 + 17, 26 + 18, 26 + 3 * 18)] == [0, 0, 1, 3]
    prompts = [(1,) * 4, (2,) * 4, (3,) * 6]  # of 18, 18 and 22 rows
    assert [len(scorer.paid_for(prompts, rows)) for rows in (25, 43, 44, 83, 84)] == [0, 0, 1, 2, 3]
    assert scorer.paid_for(prompts, 62) == prompts[:2]
    sample.head = 0
    alone = PromptScorer(backbone, None, [sample, sample], 4)  # type: ignore[arg-type]
    assert (alone.shares, alone.why_not) == (False, "nothing stands in front of the prompt")
    assert (alone.rows_in_front, alone.rows_of_prompt, alone.prompts_for(96)) == (0, 48, 2)


class OfRounds(PEZ):
    """Proposes what it is told to in each round, the last again and again, and remembers the round."""

    gradients = 0

    def __init__(self, rounds: list[list[tuple[int, ...]]]) -> None:
        self.rounds = rounds

    def propose(self, state, scorer, allowed, generator):
        return self.rounds[min(state.round, len(self.rounds) - 1)], {"drawn": float(generator.random())}


class Unread(KnownLosses):
    """The last prompt is read otherwise than it is written."""

    def survivors(self, prompts: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        return [prompt for prompt in prompts if prompt != (3,)]


def test_a_prompt_is_scored_once_a_round_and_rounds_of_nothing_end_a_search() -> None:
    scorer, states = Unread([1.0, 0.5, 2.0, 0.0]), []
    proposer = OfRounds([[(0,), (1,), (1,), (3,)], [(2,)], [(3,), (3,)]])
    task = SearchTask(proposer, scorer, scorer, range(4), 10**6, 7)

    def noted(state: SearchState) -> None:
        states.append(state)
        assert len(states) < 100, "a search of nothing goes on and on"

    end = run_search(task, SearchState((0,), 1.0, (0,), 1.0, 0), noted)
    counts = [(each.scored, each.unread, each.moves, each.unchanged, each.empty, each.rows) for each in states[:4]]
    assert counts == [(2, 1, 1, 0, 0, 1), (3, 1, 2, 0, 0, 2), (3, 2, 2, 1, 1, 2), (3, 3, 2, 2, 2, 2)]
    assert (end.round, end.empty, end.rows, end.best) == (52, 50, 2, (1,))
    assert end.ended == "in 50 rounds nothing that was proposed could be scored"
    # Every round has draws of its own, which hang on the search's seed and the round's number alone.
    draws = [float(numpy.random.default_rng([7, number]).random()) for number in range(3)]
    assert [each.memory["drawn"] for each in states[:3]] == draws


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

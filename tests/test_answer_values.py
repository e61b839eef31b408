"""Greedy answers and their margins over logits that are written down: tokens, ends and the smallest lead, by value."""

from types import SimpleNamespace

import pytest
import torch

from lightning_m2pt import shared_answers
from lightning_m2pt.answering import LikelihoodAnswering
from lightning_m2pt.generation import GreedyAnswer, greedy_answers
from lightning_m2pt.likelihood import Candidates
from lightning_m2pt.shared_answers import greedy_answers_of_pictures

END = 0
STEPS = torch.tensor(
    [
        # Question 0 leads by 4, 1, 3 and 2 and never ends; 1 leads by 2 and 5 and ends; 2 ends at once with 7.
        [[0.0, 4.0, 0.0], [0.0, 0.0, 2.0], [7.0, 0.0, 0.0]],
        [[0.0, 0.0, 1.0], [5.0, 0.0, 0.0], [0.0, 0.5, 0.0]],
        [[0.0, 3.0, 0.0], [0.0, 0.25, 0.0], [0.0, 0.5, 0.0]],
        [[0.0, 0.0, 2.0], [0.0, 0.25, 0.0], [0.0, 0.5, 0.0]],
    ]
)
EXPECTED = {
    4: [GreedyAnswer([1, 2, 1, 2], 1.0), GreedyAnswer([2], 2.0), GreedyAnswer([], 7.0)],
    2: [GreedyAnswer([1, 2], 1.0), GreedyAnswer([2], 2.0), GreedyAnswer([], 7.0)],
    1: [GreedyAnswer([1], 4.0), GreedyAnswer([2], 2.0), GreedyAnswer([], 7.0)],
}


class Batch(SimpleNamespace):
    def __len__(self) -> int:
        return 3


@pytest.mark.parametrize("limit", EXPECTED)
def test_answers_end_at_the_end_token_and_lead_by_their_closest_step(limit):
    steps = iter(STEPS[1:])
    backbone = SimpleNamespace(
        prefill=lambda _: SimpleNamespace(logits=STEPS[0]),
        advance=lambda _state, _tokens: SimpleNamespace(logits=next(steps)),
    )
    assert greedy_answers(backbone, Batch(), limit, END) == EXPECTED[limit]


@pytest.mark.parametrize("limit", EXPECTED)
def test_answers_from_shared_prefixes_are_the_same(monkeypatch, limit):
    left, steps = [torch.arange(3)], iter(STEPS[1:])

    def advance(_backbone, _state, kept, tokens):
        assert (tokens != END).all()
        left[0] = left[0][kept]
        return SimpleNamespace(logits=next(steps)[left[0]])

    monkeypatch.setattr(shared_answers, "prefill_pictures", lambda *_: SimpleNamespace(logits=STEPS[0]))
    monkeypatch.setattr(shared_answers, "advance_pictures", advance)
    found = greedy_answers_of_pictures(None, SimpleNamespace(pictures=[0, 0, 1]), limit, END)
    assert found == EXPECTED[limit]


@pytest.mark.parametrize(
    ("method", "sums", "text", "margin"),
    [
        ("likelihood_sum", [-2.0, -3.0, -9.0], "a", 1.0),
        ("likelihood_mean", [-2.0, -3.0, -9.0], "b", 0.5),  # means -2, -1.5 and -3
        ("likelihood_sum", [-4.0, -3.0, -3.0], "b", 0.0),  # of equal ones the first
    ],
)
def test_the_best_candidate_and_its_lead(method, sums, text, margin):
    answering = LikelihoodAnswering(Candidates(("a", "b", "c"), ((1,), (1, 2), (1, 2, 3))), method)
    answer = answering._best(sums)
    assert (answer.text, answer.margin) == (text, margin)
    assert dict(answer.log_probabilities) == dict(zip("abc", sums, strict=True))

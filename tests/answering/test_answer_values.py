"""Greedy answers and their margins over logits that are written down: tokens, ends and the smallest lead, by value."""

from types import SimpleNamespace

import pytest
import torch

from lightning_m2pt.answering import greedy, likelihood
from lightning_m2pt.answering.decoding import best_candidate
from lightning_m2pt.answering.greedy import GreedyAnswer, greedy_answers
from lightning_m2pt.answering.likelihood import Candidates
from lightning_m2pt.tuning.sample_order import OrderedSampler, ResumableLoader

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


@pytest.mark.parametrize("limit", EXPECTED)
def test_answers_end_at_the_end_token_and_lead_by_their_closest_step(monkeypatch, limit):
    left, steps = [torch.arange(3)], iter(STEPS[1:])

    def advance(_backbone, _state, tokens, kept):
        assert (tokens != END).all()
        left[0] = left[0][kept]
        return SimpleNamespace(logits=next(steps)[left[0]])

    monkeypatch.setattr(greedy, "advance", advance)
    backbone = SimpleNamespace(prefill=lambda _: SimpleNamespace(logits=STEPS[0]), never_answered=())
    assert greedy_answers(backbone, SimpleNamespace(), limit, END) == EXPECTED[limit]


def test_answers_end_at_any_of_several_tokens(monkeypatch):
    monkeypatch.setattr(greedy, "advance", lambda *_: pytest.fail("a question goes on"))
    backbone = SimpleNamespace(prefill=lambda _: SimpleNamespace(logits=STEPS[0]), never_answered=())
    answers = greedy_answers(backbone, SimpleNamespace(), 4, END, 1, 2)
    assert answers == [GreedyAnswer([], 4.0), GreedyAnswer([], 2.0), GreedyAnswer([], 7.0)]


@pytest.mark.parametrize(
    ("method", "sums", "text", "margin"),
    [
        ("likelihood_sum", [-2.0, -3.0, -9.0], "a", 1.0),
        ("likelihood_mean", [-2.0, -3.0, -9.0], "b", 0.5),  # means -2, -1.5 and -3
        ("likelihood_sum", [-4.0, -3.0, -3.0], "b", 0.0),  # of equal ones the first
    ],
)
def test_the_best_candidate_and_its_lead(method, sums, text, margin):
    candidates = Candidates(("a", "b", "c"), ((1,), (1, 2), (1, 2, 3)))
    answer = best_candidate(candidates, sums, method)
    assert (answer.text, answer.margin) == (text, margin)
    assert dict(answer.log_probabilities) == dict(zip("abc", sums, strict=True))


def test_later_tokens_are_added_in_any_number_of_parts(monkeypatch):
    """Five tokens of two questions, the logits of two at a time held at once."""
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(2, 5, 4, generator=generator)
    targets, owners = torch.tensor([[1, 3, 0, 2, 1]]), torch.tensor([[0, 0, 1, 2, 2]])
    first = torch.randn(2, 3, generator=generator)
    expected = first.clone()
    for row, (target, owner) in enumerate(zip(targets[0].tolist(), owners[0].tolist(), strict=True)):
        expected[:, owner] += states[:, row].log_softmax(dim=-1)[:, target]
    for rows in (1, 2, 5, 64):
        monkeypatch.setattr(likelihood, "ROWS_PER_LOGITS", rows)
        found = likelihood.add_later_tokens(SimpleNamespace(logits=lambda each: each), first, states, targets, owners)
        assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_loaders_state_counts_the_samples_of_all_devices(ranks):
    """Micro-batches of 1, eight samples a step: two micro-batches of every device are two samples of each."""
    sampler = OrderedSampler(16, 0, 8, 1, rank=ranks - 1, world_size=ranks)
    loader = ResumableLoader(range(16), sampler, lambda _epoch, _step: 5, lambda batch: batch)
    loader.state_micro_batches = 2
    assert loader.state_dict() == {"epoch": 0, "samples": 2 * ranks}
    loader.load_state_dict({"epoch": 1, "samples": 4 * ranks})
    assert (loader.state_epoch, loader.state_micro_batches) == (1, 4)
